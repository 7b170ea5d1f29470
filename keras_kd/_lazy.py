"""Packages whose public names are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package that imports nothing until it must.

    Args:
        package: its `__name__`.
        modules: for each public name the module in the package that has it; the name of a module
            stands for that module itself. No other name may be that of a module in the package,
            which Python would put in its place.
    """

    def get(name: str) -> Any:
        """Import a public name when it is first used."""
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{modules[name]}")
        value = module if modules[name] == name else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        """All public names, those too that were not used yet."""
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
