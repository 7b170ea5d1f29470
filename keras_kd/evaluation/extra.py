"""Imports of the `report` extra."""

from __future__ import annotations

import importlib
from types import ModuleType

from keras_kd._checks import three_parts


def report_module(name: str) -> ModuleType:
    """Import a module of the `report` extra.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            three_parts(
                f"a report to make without {name} installed",
                "the `report` extra",
                "run: pip install 'keras-kd[report]'",
            ),
            name=name,
        ) from error


def check_report_extra() -> None:
    """Find out before long work whether a report can be made.

    Raises:
        ModuleNotFoundError: if a module of the `report` extra is not installed.
    """
    for name in ("jinja2", "matplotlib"):
        report_module(name)
