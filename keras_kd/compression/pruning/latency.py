"""The layers in which XNNPACK, TFLite's library for CPUs, can skip zeros.

These are the 1x1 convolutions between a first convolution and a pooling, if XNNPACK supports every
layer between. The conditions are those of TF-MOT's `PruneForLatencyOnXNNPack`, checked on a graph,
so that the error can name the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from keras_kd._checks import problem
from keras_kd._keras import check_model
from keras_kd.compression.bridge.graph import Call, Graph, read

# Facts about XNNPACK and not about layers, which is why they are not in the table of layers.
_ELEMENTWISE = frozenset(
    {"Add", "Dropout", "ELU", "LeakyReLU", "Multiply", "ReLU", "ZeroPadding2D"}
)
_ACTIVATIONS = frozenset({"relu", "relu6", "leaky_relu", "elu", "sigmoid"})


def layers_for_xnnpack(student: Any) -> list[str]:
    """The names of the layers to prune so that XNNPACK can skip their zeros (Elsen et al., 2020).

    XNNPACK is TFLite's library for CPUs. It can skip zeros only in 1x1 convolutions, and only in
    models of the form of MobileNet. The zeros must also be stored sparsely, as TensorFlow's
    converter does with `tf.lite.Optimize.EXPERIMENTAL_SPARSITY`.

    Args:
        student: a Sequential or Functional model of either Keras.

    Raises:
        ValueError: if XNNPACK cannot skip zeros in this student; the message names the layer.

    Example:
        >>> pruned = prune(student, 0.8, layers=layers_for_xnnpack(student))

    Reference:
        Elsen, E. et al. Fast Sparse ConvNets. CVPR, 2020.
    """
    check_model("student", student)
    graph = read(student)
    _check_supported(graph)
    names = graph.names()
    return [names[id(layer)] for layer in graph.layers() if _is_pointwise(layer)]


def _is_pointwise(layer: Any) -> bool:
    return type(layer).__name__ == "Conv2D" and tuple(layer.kernel_size) == (1, 1)


def _check_supported(graph: Graph) -> None:
    producers = {slot: call for call in graph.calls for slot in call.results}

    def before(call: Call) -> list[Call]:
        return [producers[slot] for slot in call.operands() if slot in producers]

    def after(call: Call) -> list[Call]:
        return [other for other in graph.calls if set(call.results) & set(other.operands())]

    first = [call for call in graph.calls if not before(call)]
    starts = _reached(first, lambda call: _is_start(call, before(call)), after)
    if not starts:
        raise _unsuited(
            graph,
            "on every way from the inputs a ZeroPadding2D of 1 and after it a 3x3 Conv2D with"
            " strides=2, padding='valid' and 3 input channels",
        )
    last = [call for call in graph.calls if not after(call)]
    ends = _reached(last, lambda call: _kind(call) == "GlobalAveragePooling2D", before)
    if not ends:
        raise _unsuited(graph, "on every way to the outputs a GlobalAveragePooling2D")
    inner = _reached(
        [consumer for start in starts for consumer in after(start)],
        lambda call: call in ends or not _is_known(call, before(call)),
        after,
    )
    for call in inner:
        if call not in ends:
            raise _unsuited(
                graph,
                "between them 1x1 Conv2D, 3x3 or 5x5 DepthwiseConv2D of the same size or after a"
                " ZeroPadding2D of half of it, BatchNormalization and elementwise layers",
                f", in which layer {call.path!r} ({_kind(call)}) is not supported",
            )


def _reached(
    begin: Iterable[Call], is_end: Callable[[Call], bool], go_on: Callable[[Call], list[Call]]
) -> list[Call]:
    """The first calls on each way for which `is_end` holds; none if a way has none."""
    waiting, seen, found = list(begin), set(), []
    while waiting:
        call = waiting.pop()
        if id(call) in seen:
            continue
        seen.add(id(call))
        if is_end(call):
            found.append(call)
            continue
        following = go_on(call)
        if not following:
            return []
        waiting.extend(following)
    return found


def _is_start(call: Call, before: list[Call]) -> bool:
    layer = call.layer
    return (
        _kind(call) == "Conv2D"
        and tuple(layer.kernel.shape[:3]) == (3, 3, 3)
        and tuple(layer.strides) == (2, 2)
        and layer.padding == "valid"
        and _padding(before) == ((1, 1), (1, 1))
    )


def _is_known(call: Call, before: list[Call]) -> bool:
    layer, kind = call.layer, _kind(call)
    if kind == "Conv2D":
        strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
        return _is_pointwise(layer) and layer.groups == 1 and strides == dilation == (1, 1)
    if kind == "DepthwiseConv2D":
        return _is_known_depthwise(layer, _padding(before))
    if kind == "BatchNormalization":
        axis = layer.axis
        return (list(axis) if isinstance(axis, list | tuple) else [axis]) in ([3], [-1])
    if kind == "Activation":
        return getattr(layer.activation, "__name__", None) in _ACTIVATIONS
    if kind == "GlobalAveragePooling2D":
        return layer.keepdims
    if kind == "UpSampling2D":
        return layer.interpolation == "bilinear"
    return kind in _ELEMENTWISE


def _is_known_depthwise(layer: Any, padding: Any) -> bool:
    half = {(3, 3): 1, (5, 5): 2}.get(tuple(layer.kernel_size))
    if half is None or layer.depth_multiplier != 1 or tuple(layer.dilation_rate) != (1, 1):
        return False
    if layer.padding == "same":
        return tuple(layer.strides) == (1, 1)
    return tuple(layer.strides) in ((1, 1), (2, 2)) and padding == ((half, half), (half, half))


def _padding(before: list[Call]) -> Any:
    """The padding that the only layer before it adds at each side; None for another layer."""
    if len(before) != 1 or _kind(before[0]) != "ZeroPadding2D":
        return None
    return tuple(tuple(side) for side in before[0].layer.padding)


def _kind(call: Call) -> str:
    return type(call.layer).__name__


def _unsuited(graph: Graph, expected: str, detail: str = "") -> Exception:
    return problem(
        f"the student {graph.name!r}{detail}",
        f"a student in which XNNPACK can skip zeros: {expected}",
        "build it like MobileNet, or prune it for its compressed size alone",
    )
