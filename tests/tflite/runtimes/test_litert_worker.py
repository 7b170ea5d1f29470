"""Operators that lack an input."""

import pytest

from keras_kd.tflite.runtimes._litert_worker import check_operands


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("CONV_2D", [0, 1, -1]),
        ("FULLY_CONNECTED", [0, 1]),
        ("TRANSPOSE_CONV", [0, 1, 2, -1]),
        ("SVDF", [0, 1, 2, -1, 4]),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", [0, *[-1] * 23]),
        ("RESHAPE", [0]),
        ("SOFTMAX", [0]),
        ("VAR_HANDLE", []),
    ],
)
def test_what_operators_can_do_without(operator, inputs):
    check_operands([(operator, inputs)])


@pytest.mark.parametrize(
    ("operator", "inputs", "reason"),
    [
        ("FULLY_CONNECTED", [0, -1, 2], "FULLY_CONNECTED lacks its input 1"),
        ("CONV_2D", [-1, 1, -1], "CONV_2D lacks its input 0"),
        ("SOFTMAX", [-1], "SOFTMAX lacks its input 0"),
        ("STRIDED_SLICE", [0], "STRIDED_SLICE has 1 of the 4 inputs that it needs"),
        ("ADD", [0], "ADD has 1 of the 2 inputs that it needs"),
    ],
)
def test_what_they_cannot_do_without(operator, inputs, reason):
    with pytest.raises(ValueError, match=reason):
        check_operands([("RELU", [0]), (operator, inputs)])
