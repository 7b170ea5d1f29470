"""Losses on hidden features stated a second time, in NumPy."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def references():
    """See reference/features.py."""
    path = Path(__file__).parents[2] / "reference" / "features.py"
    spec = importlib.util.spec_from_file_location("features", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
