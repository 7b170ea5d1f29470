"""The operators of TensorFlow Lite Micro (TFLM), and the calls that register them."""

from __future__ import annotations

from collections.abc import Iterable

from keras_kd._checks import problem

# The built-in operators of TFLM of October 2026, by their names in the schema of TFLite, and the
# bytes of flash that each takes: with the reference kernels, and behind the stroke with CMSIS-NN's,
# where that is not the same. Linked for a Cortex-M4 by GCC 12.2 with -Os, sections that nothing
# reaches left out, from TFLM 90b983c2b (2026-08-20) and CMSIS-NN 4ab83cc3c (-Ofast, as TFLM
# compiles it), less what an interpreter without operators takes and what nine operators share.
_FLASH = """
    ABS 1908, ADD 5594/9242, ADD_N 1322/246, ARG_MAX 1766, ARG_MIN 1766, ASSIGN_VARIABLE 1542/1130,
    AVERAGE_POOL_2D 2398/3310, BATCH_MATMUL 6932/9844, BATCH_TO_SPACE_ND 2052, BROADCAST_ARGS 1278,
    BROADCAST_TO 2320, CALL_ONCE 694, CAST 2250, CEIL 1472, CONCATENATION 4106, CONV_2D 6784/26864,
    COS 5680, CUMSUM 1590, DEPTHWISE_CONV_2D 6166/18698, DEPTH_TO_SPACE 2244, DEQUANTIZE 864,
    DIV 5118, DYNAMIC_UPDATE_SLICE 3116/1904, ELU 2721, EMBEDDING_LOOKUP 2612, EQUAL 4446, EXP 2075,
    EXPAND_DIMS 1770, FILL 1686, FLOOR 900, FLOOR_DIV 1756, FLOOR_MOD 2707,
    FULLY_CONNECTED 5208/17414, GATHER 2708, GATHER_ND 2208, GREATER 4734, GREATER_EQUAL 3710,
    HARD_SWISH 926, IF 2182, L2_NORMALIZATION 2493, L2_POOL_2D 2923, LEAKY_RELU 968, LESS 3710,
    LESS_EQUAL 3710, LOG 2171, LOGICAL_AND 1364, LOGICAL_NOT 1504, LOGICAL_OR 1364, LOGISTIC 4573,
    LOG_SOFTMAX 4685, MAXIMUM 5146/5562, MAX_POOL_2D 2550/3668, MEAN 3864, MINIMUM 5146/5562,
    MIRROR_PAD 1266, MUL 5806/7766, NEG 668, NOT_EQUAL 4414, PACK 1624, PAD 3528/3822,
    PADV2 3560/3854, PRELU 2762, QUANTIZE 2120, READ_VARIABLE 738/552, REDUCE_ALL 1582,
    REDUCE_MAX 3014, REDUCE_MIN 3014, RELU 724, RELU6 654, RESHAPE 1972, RESIZE_BILINEAR 3142,
    RESIZE_NEAREST_NEIGHBOR 2700, REVERSE_V2 4852, ROUND 1568, RSQRT 2487, SELECT_V2 5796,
    SHAPE 862, SIN 5680, SLICE 2430, SOFTMAX 6007/8119, SPACE_TO_BATCH_ND 2180,
    SPACE_TO_DEPTH 2316/1702, SPLIT 1878, SPLIT_V 2166, SQRT 1627, SQUARE 1536,
    SQUARED_DIFFERENCE 5334, SQUEEZE 1598, STRIDED_SLICE 5802, SUB 5786, SUM 3944, SVDF 6649/12591,
    TANH 4719, TRANSPOSE 2334/3518, TRANSPOSE_CONV 6170/11104,
    UNIDIRECTIONAL_SEQUENCE_LSTM 14007/18327, UNPACK 1432, VAR_HANDLE 834, WHILE 2460,
    ZEROS_LIKE 920
"""
_BYTES = {
    name: [int(number) for number in numbers.split("/")]
    for name, numbers in (row.split() for row in _FLASH.split(","))
}
KNOWN = frozenset(_BYTES)
# The interpreter, with start code and newlib's nano version, `DebugLog` empty.
CORE_BYTES = 27776
# What the full newlib takes besides, and its printf for a `DebugLog` that formats numbers.
NEWLIB_BYTES = 7876
PRINTF_BYTES = 15096
# What at least nine of the operators have in common, with the reference kernels and CMSIS-NN's.
_SHARED_BYTES = (6421, 9037)
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
        ValueError: if TFLM lacks one of them.
    """
    names = list(operators)
    unknown = [name for name in names if name not in KNOWN]
    if unknown:
        raise problem(
            f"a model that TensorFlow Lite Micro refuses: operators {', '.join(unknown)}",
            "operators of TensorFlow Lite Micro",
            "; ".join(dict.fromkeys(_INSTEAD.get(name, _OTHERWISE) for name in unknown)),
        )
    return [_IRREGULAR.get(name) or f"Add{name.title().replace('_', '')}" for name in names]


def kernel_bytes(operators: Iterable[str], *, cmsis_nn: bool = False) -> int:
    """About how many bytes of flash the kernels of operators take on a Cortex-M4.

    Four firmwares that were linked took 2 to 6 % less than this and `CORE_BYTES`.

    Args:
        operators: the names of known ones.
        cmsis_nn: whether CMSIS-NN's kernels take the place of the reference kernels.
    """
    own = sum(_BYTES[name][-1 if cmsis_nn else 0] for name in operators)
    return own + _SHARED_BYTES[cmsis_nn]


def flash_note() -> str:
    """What a table of file sizes leaves out of a microcontroller's flash, in two sentences."""
    network = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MEAN", "SOFTMAX")
    core, kernels, optimized = (
        f"{round(count / 1000)} kB"
        for count in (CORE_BYTES, kernel_bytes(network), kernel_bytes(network, cmsis_nn=True))
    )
    return (
        f"The flash of a microcontroller holds more than the file: about {core} for the core of "
        f"TensorFlow Lite Micro, and for the kernels of a small convolutional network {kernels} "
        f"({optimized} with CMSIS-NN); for a Cortex-M4, GCC 12, -Os. The README of a firmware "
        "folder has these numbers for its operators."
    )
