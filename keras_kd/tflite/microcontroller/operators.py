"""The operators that TensorFlow Lite Micro (TFLM) knows, and the calls that register them."""

from __future__ import annotations

from collections.abc import Iterable

from keras_kd._checks import problem

# The built-in operators of TFLM of October 2026, by their names in the schema of TFLite.
_NAMES = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND
    BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL
    EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER
    GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX
    REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT
    SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
    SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
KNOWN = frozenset(_NAMES.split())
_IRREGULAR = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
_SPECTRUM = "compute the spectrum of the data before the student"
_OTHERWISE = "replace the layers that compute them"
# What a student can do instead, by operator.
_INSTEAD = {
    "GELU": "replace gelu by relu, or write it as x * keras.ops.sigmoid(1.702 * x)",
    "TILE": "repeat by keras.layers.Concatenate()([x, x]) instead of tile or RepeatVector",
    "RFFT2D": _SPECTRUM,
    "REAL": _SPECTRUM,
    "IMAG": _SPECTRUM,
    "COMPLEX_ABS": _SPECTRUM,
    "POW": "replace powers by products or keras.ops.sqrt",
    "TOPK_V2": "end the student before top_k, and sort its output in the firmware",
    "ONE_HOT": "pass one-hot rows to the student instead of encoding them in it",
    "SELECT": "pass keras_kd.compression.to_tf_keras(student), whose Embedding needs no SELECT",
}


def registrations(operators: Iterable[str]) -> list[str]:
    """The methods of `MicroMutableOpResolver` that register operators, for example "AddConv2D".

    Args:
        operators: their names in the schema of TFLite, for example "CONV_2D".

    Raises:
        ValueError: if TFLM does not know one of them.
    """
    names = list(operators)
    unknown = [name for name in names if name not in KNOWN]
    if unknown:
        raise ValueError(
            problem(
                f"a model that TensorFlow Lite Micro refuses: operators {', '.join(unknown)}",
                "operators that TensorFlow Lite Micro knows",
                "; ".join(dict.fromkeys(_INSTEAD.get(name, _OTHERWISE) for name in unknown)),
            )
        )
    return [_IRREGULAR.get(name) or f"Add{name.title().replace('_', '')}" for name in names]
