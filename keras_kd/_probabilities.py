"""From a tensor of probabilities back to the logits behind them.

The operations behind the tensor are followed to a softmax or sigmoid, and what stands between is
done to the logits instead. Rounding cannot hurt: a probability that has become 0 still has a
logit.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_kd import _backends, _keras
from keras_kd._distributions import (
    DERIVED,
    LOGITS,
    ONE_INPUT,
    SEVERAL,
    UNKNOWN,
    Behind,
    Found,
    of_other_logits,
)
from keras_kd._operations import Operation, noted, operation_of, repeated

# The end of a model is short, and chains of sums such as those of a residual network are long.
_DEPTH = 40


def behind(tensor: Any) -> Behind:
    """What made a tensor: the logits of its probabilities, or a word of `_distributions`."""
    return _backends.without_autograph(_follow)(tensor, {}, _DEPTH)


def noting() -> Any:
    """A context in which `behind` sees operations that run outside of a traced function."""
    return noted(_NOTED)


def _follow(tensor: Any, known: dict[int, tuple[Any, Behind]], depth: int) -> Behind:
    """What made a tensor, at most so many operations back; `known` keeps what was found."""
    if id(tensor) not in known:
        found = _explained(tensor, known, depth - 1) if depth else UNKNOWN
        known[id(tensor)] = tensor, found
    return known[id(tensor)][1]


def _explained(tensor: Any, known: dict[int, tuple[Any, Behind]], depth: int) -> Behind:
    operation = operation_of(tensor)
    if operation is None:
        return UNKNOWN
    kind = operation.kind
    if kind == "Softmax":
        logits = _keras.at_least_float32(operation.inputs[0])
        return Found(logits, "softmax", -1, logits.shape[-1])
    if kind == "KerasSoftmax":
        logits = _keras.at_least_float32(operation.inputs[0])
        axis = operation.attribute("axis")
        if not isinstance(axis, int):
            return Found(logits, "softmax")
        axis = axis if axis < 0 else axis - len(logits.shape)
        return Found(logits, "softmax", axis, logits.shape[axis])
    if kind == "Sigmoid":
        return Found(_keras.at_least_float32(operation.inputs[0]), "sigmoid")
    if kind in _MAKE_LOGITS:
        return LOGITS
    if kind in _PRODUCTS:
        # Means of distributions can be computed so.
        parts = [_follow(part, known, depth) for part in operation.inputs]
        return (
            UNKNOWN if any(isinstance(part, Found) or part == DERIVED for part in parts) else LOGITS
        )
    if kind in _PASS:
        source = operation.inputs[operation.number if kind == "IdentityN" else 0]
        is_float = "float" in keras.backend.standardize_dtype(source.dtype)
        return _follow(source, known, depth) if is_float else UNKNOWN
    if kind in ONE_INPUT:
        place = 1 if kind == "Split" else 0
        source = operation.inputs[place]
        found = _follow(source, known, depth)
        if not isinstance(found, Found):
            return found
        if found.activation == "sigmoid":
            return of_other_logits(found, repeated(operation, found.logits, place))
        return ONE_INPUT[kind](operation, found, tensor)
    if kind in SEVERAL:
        parts = [(part, _follow(part, known, depth)) for part in _numbers(operation)]
        return SEVERAL[kind](operation, parts)
    return UNKNOWN


def _numbers(operation: Operation) -> list[Any]:
    """The inputs that are computed with, without axes and conditions."""
    inputs = operation.inputs
    if operation.kind == "ConcatV2":
        inputs = inputs[:-1]
    elif operation.kind in ("Sum", "Max", "Min", "Prod", "Mean", "Tile", "BroadcastTo"):
        inputs = inputs[:1]
    return [part for part in inputs if part.dtype.is_floating]


_PASS = frozenset(
    {
        "Cast",
        "CheckNumerics",
        "EnsureShape",
        "FakeQuantWithMinMaxArgs",
        "FakeQuantWithMinMaxVars",
        "FakeQuantWithMinMaxVarsPerChannel",
        "Identity",
        "IdentityN",
        "PreventGradient",
        "Snapshot",
    }
)
_PRODUCTS = frozenset(
    {"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "KerasAdd", "MatMul"}
)
_MAKE_LOGITS = frozenset(
    {
        "BiasAdd",
        "Conv2D",
        "Conv2DBackpropInput",
        "Conv3D",
        "DepthwiseConv2dNative",
        "Elu",
        "FusedBatchNormV3",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "Relu",
        "Selu",
        "Softplus",
        "Softsign",
        "Tanh",
    }
)
_NOTED = frozenset(
    {
        "ReadVariableOp",
        "Sigmoid",
        "Softmax",
        *_PASS,
        *_PRODUCTS,
        *_MAKE_LOGITS,
        *ONE_INPUT,
        *SEVERAL,
    }
)
