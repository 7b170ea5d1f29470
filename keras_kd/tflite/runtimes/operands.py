"""Which inputs an operator cannot do without: LiteRT reads them before it counts them.

A kernel that is given none, or fewer, reads memory beside its tensors: it crashes, refuses, or
computes from what it finds there. Counts and optional inputs are those of the kernels of LiteRT 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# By the number of inputs that they need. Those that are not here need one, or check by themselves.
_NEEDED = {
    2: (
        "ADD", "ARG_MAX", "ARG_MIN", "ATAN2", "BATCH_MATMUL", "BITWISE_XOR", "BROADCAST_TO",
        "CONV_2D", "CONV_3D", "CUMSUM", "DEPTHWISE_CONV_2D", "DIV", "EMBEDDING_LOOKUP", "EQUAL",
        "EXPAND_DIMS", "FILL", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED", "GATHER", "GATHER_ND",
        "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_OR", "MAXIMUM",
        "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NOT_EQUAL", "PAD", "POW", "PRELU", "REDUCE_ALL",
        "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR", "REVERSE_SEQUENCE", "REVERSE_V2", "RIGHT_SHIFT", "SEGMENT_SUM",
        "SPLIT", "SQUARED_DIFFERENCE", "SUB", "SUM", "TILE", "TOPK_V2", "TRANSPOSE",
    ),
    3: (
        "BATCH_TO_SPACE_ND", "CONV_3D_TRANSPOSE", "DYNAMIC_UPDATE_SLICE", "PADV2", "RANGE",
        "SCATTER_ND", "SELECT", "SELECT_V2", "SLICE", "SPACE_TO_BATCH_ND", "SPLIT_V",
        "TRANSPOSE_CONV",
    ),
    4: ("ONE_HOT", "SPARSE_TO_DENSE", "STRIDED_SLICE"),
    5: ("RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_RNN"),
}  # fmt: skip
_LEAST = {name: count for count, names in _NEEDED.items() for name in names}
# The operator works without a tensor there: a bias mostly.
_OPTIONAL = {
    "CONV_2D": (2,),
    "CONV_3D": (2,),
    "CONV_3D_TRANSPOSE": (3,),
    "DEPTHWISE_CONV_2D": (2,),
    "FULLY_CONNECTED": (2,),
    "SVDF": (3,),
    "TRANSPOSE_CONV": (3,),
}
# Most inputs of these are optional, and they check by themselves.
_CHECKED_BY_LITERT = (
    "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "LSTM",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)  # fmt: skip


def check_operands(operators: Iterable[tuple[str, Sequence[int]]]) -> None:
    """Refuse operators that lack an input.

    Args:
        operators: the name of each, and the indices of its inputs: -1 where there is none.

    Raises:
        ValueError: if one lacks an input that it needs.
    """
    for name, inputs in operators:
        if name in _CHECKED_BY_LITERT:
            continue
        least = _LEAST.get(name, 0)
        if len(inputs) < least:
            raise ValueError(f"{name} has {len(inputs)} of the {least} inputs that it needs")
        for position, index in enumerate(inputs):
            if index < 0 and position not in _OPTIONAL.get(name, ()):
                raise ValueError(f"{name} lacks its input {position}")
