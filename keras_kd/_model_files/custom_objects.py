"""The user's own classes and functions, by their names in models."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from keras_kd._checks import one_line, problem


def check_file(name: str) -> bool:
    """Whether a name is that of a Python file; otherwise it is that of a module.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    is_file = name.endswith(".py")
    if is_file and not Path(name).is_file():
        raise problem(
            f"the path {name!r}",
            "a Python file with your own layers",
            "check the path",
            kind=FileNotFoundError,
        )
    return is_file


def import_custom_objects(name: str) -> dict[str, Any]:
    """Import the user's own code and return the public classes and functions that it defines.

    What it registers with Keras is found by the registered name; a package may do only that. What
    is in it runs: only the user can decide to trust it.

    Args:
        name: the path of a Python file, or the name of a module as after `import`; it may lie in
            the working directory.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if there is no such module, or if it cannot be imported.
        ValueError: if it defines nothing that a model could be made of.
    """
    is_file = check_file(name)
    import keras

    registered = set(keras.saving.get_custom_objects())
    try:
        module = _import_file(Path(name)) if is_file else _import_module(name)
    except Exception as error:  # Any Python may be in it.
        raise problem(
            f"{name!r}, which cannot be imported ({type(error).__name__}: {one_line(error)})",
            "a Python file or module that defines your own layers",
            f"see that python -c 'import {Path(name).stem}' works",
            kind=ImportError,
        ) from error
    found = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    }
    if not found and registered.issuperset(keras.saving.get_custom_objects()):
        raise problem(
            f"{name!r}, which defines no class or function",
            "the classes that the model is made of",
            "name the file that defines them",
        )
    return found


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Under its own name, as when it was saved: a model may remember the module of its classes.
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if before is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = before
        raise
    return module


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove("")
