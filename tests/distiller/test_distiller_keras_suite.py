"""The suite of Keras' own Distiller, with ours in its place."""

import importlib.util
import unittest
from pathlib import Path

import keras
import keras.src.distillation
import pytest

import keras_kd

SUITE = Path(keras.src.distillation.__file__).parent / "distiller_test.py"


def load_tests():
    if not SUITE.exists():
        return []
    spec = importlib.util.spec_from_file_location("keras_distiller_test", SUITE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Distiller = keras_kd.Distiller
    loaded = unittest.defaultTestLoader.loadTestsFromModule(module)
    return [test for suite in loaded for test in suite if not test.id().endswith("test_session")]


# Their losses are Keras' default ones, for which ours has a warning.
@pytest.mark.fast_rows(4)
@pytest.mark.filterwarnings("ignore:Received LogitsDistillation")
@pytest.mark.parametrize("test", load_tests(), ids=lambda test: test.id().rpartition(".")[2])
def test_keras_own_suite_passes(test):
    result = unittest.TestResult()
    test.run(result)
    problems = [trace for _, trace in result.errors + result.failures]
    assert not problems, "\n".join(problems)
    assert not result.skipped


@pytest.mark.skipif(not SUITE.exists(), reason="the installed Keras ships no distiller_test.py")
def test_the_suite_was_found():
    assert len(load_tests()) >= 9
