import importlib.util
from pathlib import Path

import pytest

from keras_kd.tflite import microcontroller
from keras_kd.tflite.microcontroller.operators import KNOWN, registrations


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
    with pytest.raises(
        ValueError, match=r"operators GELU, TILE\. Expected operators that .* knows"
    ):
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
