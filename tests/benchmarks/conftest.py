import importlib
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """Imports the scripts as they import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        yield importlib.import_module
