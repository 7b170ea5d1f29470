"""Public names of a package: their public path, and import on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any


def publish(package: str, names: Iterable[str]) -> None:
    """Name the public path of a package as the place of its classes and functions.

    Tracebacks, `repr`, `pickle` and Keras' files then show `keras_kd.losses.SoftTargets`, and not
    the module that defines it.

    Args:
        package: its `__name__`.
        names: what it exports; values of other kinds, and of other packages, are left as they are.
    """
    for name in names:
        value = vars(sys.modules[package]).get(name)
        if isinstance(value, type | FunctionType) and value.__module__.startswith(f"{package}."):
            value.__module__ = package


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package that imports nothing until it must.

    Args:
        package: its `__name__`.
        modules: for each public name the module in the package that has it; the name of a module
            represents that module itself. No other name may be that of a module in the package,
            which Python would put in its place.
    """

    def get(name: str) -> Any:
        """Import a public name when it is first used."""
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        importlib.import_module(f"{package}.{modules[name]}")
        # Those too that were imported with it: functions return objects of these classes.
        for public, path in modules.items():
            module = sys.modules.get(f"{package}.{path}")
            value = module if path == public else getattr(module, public, None)
            if value is not None:
                setattr(sys.modules[package], public, value)
        publish(package, modules)
        return vars(sys.modules[package])[name]

    def names() -> list[str]:
        """All public names, those too that were not used yet."""
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
