import numpy as np
import pytest

from keras_kd.tflite.microcontroller.vectors import choose, vectors_source


def test_other_answers_come_first():
    inputs = {"x": np.arange(6, dtype=np.int8)[:, None]}
    outputs = {"y": np.eye(3, dtype=np.int8)[[0, 0, 0, 1, 1, 2]]}
    assert choose(inputs, outputs) == [0, 3, 5]
    assert choose(inputs, {"y": np.eye(3, dtype=np.int8)[[1, 1, 1, 1, 0, 0]]}) == [0, 1, 4]


def test_equal_examples_are_taken_once():
    inputs = {"x": np.array([[1], [1], [2], [2], [3]], np.int8)}
    outputs = {"y": np.zeros((5, 2), np.int8)}
    assert choose(inputs, outputs) == [0, 2, 4]
    inputs["x"][4] = 2
    with pytest.raises(ValueError, match=r"2 different examples .* at least 3"):
        choose(inputs, outputs)


def test_a_type_that_c_does_not_have():
    with pytest.raises(ValueError, match=r"of type float16\. Expected one of float32"):
        vectors_source("model", {"input": [np.zeros((3, 2), np.float16)]}, 0.1)


def test_examples_that_find_an_old_runtime_come_first():
    inputs = {"x": np.arange(8, dtype=np.int8)[:, None]}
    outputs = {"y": np.eye(4, dtype=np.int8)[[0, 1, 2, 3, 0, 1, 2, 3]]}
    others = {"y": outputs["y"].copy()}
    others["y"][[4, 5, 7], 0] += 1
    assert choose(inputs, outputs, others) == [4, 5, 7]
    assert choose(inputs, outputs, outputs) == [0, 1, 2]
