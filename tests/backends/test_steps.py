"""Five steps of a Distiller end alike on TensorFlow, JAX and PyTorch, for each kind of loss.

`steps.npz` holds what they end with on TensorFlow, whose formulas other tests compare with NumPy;
`_cases.py` writes it.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import _cases

CASES = _cases.all_cases()


# `make test-backends` runs the slow ones as well: one run of the cases on each backend.
if keras.backend.backend() == "tensorflow":
    pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected():
    return _cases.known()


def test_every_case_is_in_the_file(expected):
    assert set(expected) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_weights_and_logs(name, expected):
    weights, logs = _cases.ends(CASES[name])
    own = dict(expected[name])
    np.testing.assert_allclose(weights, own.pop("weights"), rtol=0, atol=1e-5)
    assert set(logs) == set(own)
    for log, value in logs.items():
        assert value == pytest.approx(own[log], rel=1e-5, abs=1e-5), log
