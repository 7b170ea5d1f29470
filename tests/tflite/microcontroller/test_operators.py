import importlib.util
from pathlib import Path

import pytest

from keras_kd.tflite import microcontroller
from keras_kd.tflite.microcontroller.operators import (
    CORE_BYTES,
    KNOWN,
    flash_note,
    kernel_bytes,
    registrations,
)


def test_methods_are_named_as_in_tflm():
    expected = {
        "ADD_N": "AddAddN",
        "AVERAGE_POOL_2D": "AddAveragePool2D",
        "BATCH_MATMUL": "AddBatchMatMul",
        "BATCH_TO_SPACE_ND": "AddBatchToSpaceNd",
        "CONV_2D": "AddConv2D",
        "CUMSUM": "AddCumSum",
        "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
        "L2_NORMALIZATION": "AddL2Normalization",
        "LOG_SOFTMAX": "AddLogSoftmax",
        "PADV2": "AddPadV2",
        "RELU6": "AddRelu6",
        "RESIZE_NEAREST_NEIGHBOR": "AddResizeNearestNeighbor",
        "SELECT_V2": "AddSelectV2",
        "SPLIT_V": "AddSplitV",
        "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
    }
    assert registrations(expected) == list(expected.values())


def test_unknown_operators_are_refused():
    with pytest.raises(ValueError, match=r"operators GELU, TILE\. Expected operators of .* Micro"):
        registrations(["CONV_2D", "GELU", "TILE"])


def test_operators_are_those_of_the_schema():
    from ai_edge_litert import schema_py_generated as schema

    assert all(hasattr(schema.BuiltinOperator, name) for name in KNOWN)


@pytest.mark.skipif(not microcontroller.is_installed(), reason="tflite-micro is not installed")
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_installed_tflm_registers_it(name):
    package = Path(importlib.util.find_spec("tflite_micro").origin).parent
    library = (package / "python" / "tflite_micro" / "_runtime.so").read_bytes()
    # As C++ mangles a function of that name without arguments.
    function = f"Register_{name}"
    assert f"{len(function)}{function}Ev".encode() in library


@pytest.mark.parametrize(
    ("operators", "cmsis_nn", "linked"),
    [
        ("CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED MEAN SOFTMAX", False, 59_504),
        ("FULLY_CONNECTED", False, 37_856),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE", False, 52_424),
        ("CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED MEAN SOFTMAX", True, 109_968),
        ("FULLY_CONNECTED", True, 51_176),
    ],
)
def test_flash_is_about_what_was_linked(operators, cmsis_nn, linked):
    """Against firmwares for a Cortex-M4, less their models."""
    estimated = CORE_BYTES + kernel_bytes(operators.split(), cmsis_nn=cmsis_nn)
    assert 1.0 <= estimated / linked <= 1.07


def test_a_report_says_what_else_is_in_the_flash():
    note = flash_note()
    assert "about 28 kB for the core" in note
    assert "network 34 kB (84 kB with CMSIS-NN)" in note
