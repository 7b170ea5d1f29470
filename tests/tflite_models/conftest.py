"""The scripts that make the models, imported as they import each other."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "tflite_models")
        yield importlib.import_module
