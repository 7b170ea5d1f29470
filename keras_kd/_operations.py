"""The operations behind a tensor: those of a graph of TensorFlow, or noted while they ran.

On JAX and PyTorch the functions of Keras' backend are noted that `_CALLS` names: enough to see the
softmax or sigmoid at the end of a model, and the layers that make logits.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd import _backends

_LOCAL = threading.local()


class Operation(NamedTuple):
    """What made a tensor.

    Attributes:
        kind: the name of TensorFlow's operation, such as `"Softmax"`.
        inputs: the tensors that it reads.
        attribute: gives an attribute by its name.
        number: which of the operation's outputs the tensor is.
    """

    kind: str
    inputs: tuple[Any, ...]
    attribute: Callable[[str], Any]
    number: int


def operation_of(tensor: Any) -> Operation | None:
    """The operation that made a tensor; `None` where it is unknown."""
    noted = getattr(_LOCAL, "noted", None)
    if noted is not None and id(tensor) in noted:
        return noted[id(tensor)][1]
    try:
        operation = tensor.op
        return Operation(
            operation.type, tuple(operation.inputs), operation.get_attr, tensor.value_index
        )
    except (AttributeError, RuntimeError):
        return None


@contextmanager
def noted(kinds: frozenset[str]) -> Iterator[bool]:
    """Note operations of these kinds that run in here, for `operation_of`.

    In a function that TensorFlow traces this is not needed and does nothing.

    Args:
        kinds: which ones; their inputs and outputs are kept until the end.

    Yields:
        Whether operations are noted.
    """
    if hasattr(_LOCAL, "noted"):
        yield False
        return
    if not _backends.is_tensorflow():
        with _noted_calls():
            yield True
        return
    import tensorflow as tf

    callbacks = _callbacks()
    if callbacks is None or not tf.executing_eagerly():
        yield False
        return
    found: dict[int, tuple[Any, Operation]] = {}

    def note(
        op_type: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None
    ) -> None:
        kind = op_type.decode() if isinstance(op_type, bytes) else op_type
        if graph is not None or kind not in kinds:
            return
        attributes = dict(zip(attrs[::2], attrs[1::2], strict=True))
        for number, output in enumerate(outputs):
            # The tensor is kept, so that no other one gets its id.
            operation = Operation(kind, tuple(inputs), attributes.__getitem__, number)
            found[id(output)] = output, operation

    _LOCAL.noted = found
    callbacks.add_op_callback(note)
    try:
        yield True
    finally:
        callbacks.remove_op_callback(note)
        del _LOCAL.noted


# Functions of Keras' backends on JAX and PyTorch, and the names that their results get here.
# `Keras...` are kinds that TensorFlow does not have.
_CALLS = {
    "nn": {
        "conv": "Conv2D",
        "conv_transpose": "Conv2D",
        "depthwise_conv": "DepthwiseConv2dNative",
        "elu": "Elu",
        "gelu": "Elu",
        "leaky_relu": "LeakyRelu",
        "log_softmax": "LogSoftmax",
        "relu": "Relu",
        "separable_conv": "Conv2D",
        "sigmoid": "Sigmoid",
        "silu": "Elu",
        "softmax": "KerasSoftmax",
    },
    "numpy": {"add": "KerasAdd", "einsum": "Einsum", "matmul": "MatMul"},
    "core": {"cast": "Cast"},
}


@contextmanager
def _noted_calls() -> Iterator[None]:
    """Within this context the calls of the functions in `_CALLS` are noted.

    Keras looks them up in the modules of its backend, which no public function replaces.
    """
    from keras.src import backend

    originals = []
    _LOCAL.noted = {}
    try:
        for module_name, kinds in _CALLS.items():
            modules = [backend, getattr(backend, module_name)]
            for name, kind in kinds.items():
                for module in modules:
                    function = vars(module).get(name)
                    if function is not None:
                        originals.append((module, name, function))
                        setattr(module, name, _noting(function, kind))
        yield
    finally:
        for module, name, function in originals:
            setattr(module, name, function)
        del _LOCAL.noted


# Once for each function: signatures take longer to read than a small layer to run.
@functools.cache
def _noting(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """A function of Keras' backend that notes its calls in this thread, where some are noted."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        found = getattr(_LOCAL, "noted", None)
        if found is None:
            return result
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        inputs = tuple(
            one
            for value in (*given.args, *given.kwargs.values())
            for one in (value if isinstance(value, tuple) else (value,))
            if keras.ops.is_tensor(one) or isinstance(one, keras.Variable)
        )
        operation = Operation(kind, inputs, given.arguments.__getitem__, 0)
        # A tensor that is returned as it came keeps what made it.
        if not any(result is one for one in inputs):
            found[id(result)] = result, operation
        return result

    return called


def _callbacks() -> Any:
    """TensorFlow's module of callbacks, which its debugger uses; `None` where it is not found."""
    try:
        from tensorflow.python.framework import op_callbacks
    except ImportError:
        return None
    return op_callbacks


def repeated(operation: Operation, tensor: Any, place: int = 0) -> Any:
    """The same operation on another tensor, all its other inputs the same.

    Args:
        operation: one whose inputs are single tensors.
        tensor: the input instead of that at `place`.
        place: which input it is.
    """
    import tensorflow as tf

    function = getattr(tf.raw_ops, operation.kind)
    inputs = [*operation.inputs[:place], tensor, *operation.inputs[place + 1 :]]
    names = [name for name in inspect.signature(function).parameters if name != "name"]
    given = dict(zip(names, inputs, strict=False))
    attributes = {
        name: operation.attribute(_ATTRIBUTES.get((operation.kind, name), name))
        for name in names[len(inputs) :]
    }
    result = function(**given, **attributes)
    return result[operation.number] if isinstance(result, list | tuple) else result


# Arguments of Python that are called otherwise in a graph.
_ATTRIBUTES = {("Squeeze", "axis"): "squeeze_dims"}


def constant(tensor: Any) -> np.ndarray | None:
    """The value of a tensor that does not depend on the data; `None` for others."""
    import tensorflow as tf

    value = tf.get_static_value(tensor)
    if value is not None:
        return np.asarray(value)
    operation = operation_of(tensor)
    if operation is not None and operation.kind == "StridedSlice":
        return _known_size(operation)
    if operation is None or operation.kind not in _FOLDED:
        return None
    # Axes are computed from ranks that are known, which TensorFlow does later only.
    inputs = [constant(part) for part in operation.inputs]
    if any(part is None for part in inputs):
        return None
    return np.asarray(_FOLDED[operation.kind](*inputs))


def _known_size(operation: Operation) -> np.ndarray | None:
    """A size of a tensor that is known, where others are not."""
    sizes = constant(operation.inputs[0])
    shape = operation_of(operation.inputs[0])
    if sizes is None and shape is not None and shape.kind == "Shape":
        known = shape.inputs[0].shape
        sizes = None if known.rank is None else np.array([-1 if n is None else n for n in known])
    if sizes is None:
        return None
    taken = _strided(operation, sizes)
    return None if (taken < 0).any() else taken


_FOLDED: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Less": np.less,
    "SelectV2": np.where,
    "Range": np.arange,
    "Pack": lambda *parts: np.stack(parts),
    "ConcatV2": lambda *parts: np.concatenate(parts[:-1], axis=int(parts[-1])),
    "Cast": lambda values: values,
}


def moved_axis(
    operation: Operation, shape: Sequence[int | None], axis: int
) -> tuple[np.ndarray, int | None] | None:
    """Where an operation that selects or moves whole axes puts the entries of one axis.

    Args:
        operation: a transposition, a slice, a selection, or one that adds or removes axes of 1.
        shape: that of the tensor it acts on, `None` for unknown sizes.
        axis: an axis of known size, counted from the end.

    Returns:
        Which entries are left, in their order, and their axis in the result, counted from the end
        and `None` where one entry is left without an axis; `None` where it is unknown.
    """
    size = shape[axis]
    if size is None:
        return None
    place = len(shape) + axis
    if operation.kind == "GatherV2":
        return _gathered(operation, len(shape), place, size)
    # Nothing is stored for sizes that do not matter. Along the axis alone a step in memory moves.
    sizes = [2**10 if known is None else known for known in shape]
    entries = np.arange(size).reshape([-1 if one == place else 1 for one in range(len(shape))])
    try:
        view = _VIEWS[operation.kind](operation, np.broadcast_to(entries, sizes))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    moving = [one for one, stride in enumerate(view.strides) if stride and view.shape[one] > 1]
    if len(moving) > 1 or not view.size:
        return None
    if not moving:
        return view[(slice(0, 1),) * view.ndim].reshape(-1), None
    index = tuple(slice(None) if one == moving[0] else 0 for one in range(view.ndim))
    return view[index], moving[0] - view.ndim


def _gathered(
    operation: Operation, rank: int, place: int, size: int
) -> tuple[np.ndarray, int | None] | None:
    indexes, axis = constant(operation.inputs[1]), constant(operation.inputs[2])
    index_rank = operation.inputs[1].shape.rank
    if axis is None or operation.attribute("batch_dims") or index_rank is None:
        return None
    axis = int(axis) % rank
    if axis != place:
        shift = index_rank - 1 if axis < place else 0
        return np.arange(size), place + shift - (rank + index_rank - 1)
    if indexes is None or indexes.ndim > 1:
        return None
    return np.atleast_1d(indexes) % size, place - rank if indexes.ndim else None


def _known(tensor: Any) -> np.ndarray:
    """The value of a constant.

    Raises:
        TypeError: if it is not known.
    """
    value = constant(tensor)
    if value is None:
        raise TypeError("a tensor without a known value")
    return value


def _strided(operation: Operation, view: np.ndarray) -> np.ndarray:
    begins, ends, strides = (_known(tensor) for tensor in operation.inputs[1:4])
    index: list[Any] = []
    for number, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):

        def marked(name: str, number: int = number) -> bool:
            return bool(operation.attribute(name) >> number & 1)

        if marked("ellipsis_mask"):
            index.append(Ellipsis)
        elif marked("new_axis_mask"):
            index.append(np.newaxis)
        elif marked("shrink_axis_mask"):
            index.append(int(begin))
        else:
            first = None if marked("begin_mask") else int(begin)
            index.append(slice(first, None if marked("end_mask") else int(end), int(stride)))
    return view[tuple(index)]


def _sliced(operation: Operation, view: np.ndarray) -> np.ndarray:
    begins, sizes = (_known(tensor) for tensor in operation.inputs[1:3])
    return view[
        tuple(
            slice(int(begin), None if size < 0 else int(begin + size))
            for begin, size in zip(begins, sizes, strict=True)
        )
    ]


def _squeezed(operation: Operation, view: np.ndarray) -> np.ndarray:
    axes = tuple(operation.attribute("squeeze_dims")) or tuple(
        axis for axis, size in enumerate(view.shape) if size == 1
    )
    return np.squeeze(view, axes)


def _unpacked(operation: Operation, view: np.ndarray) -> np.ndarray:
    axis = operation.attribute("axis") % view.ndim
    return view[(slice(None),) * axis + (operation.number,)]


def _split(operation: Operation, view: np.ndarray) -> np.ndarray:
    axis = int(_known(operation.inputs[0]))
    return np.split(view, operation.attribute("num_split"), axis)[operation.number]


def _split_unevenly(operation: Operation, view: np.ndarray) -> np.ndarray:
    sizes, axis = _known(operation.inputs[1]), int(_known(operation.inputs[2]))
    if (sizes < 0).any():
        sizes = np.where(sizes < 0, view.shape[axis] - sizes[sizes >= 0].sum(), sizes)
    return np.split(view, np.cumsum(sizes)[:-1], axis)[operation.number]


_VIEWS: Mapping[str, Callable[[Operation, np.ndarray], np.ndarray]] = {
    "Transpose": lambda operation, view: view.transpose(_known(operation.inputs[1])),
    "ReverseV2": lambda operation, view: np.flip(
        view, tuple(map(int, _known(operation.inputs[1])))
    ),
    "ExpandDims": lambda operation, view: np.expand_dims(view, int(_known(operation.inputs[1]))),
    "Squeeze": _squeezed,
    "StridedSlice": _strided,
    "Slice": _sliced,
    "Split": _split,
    "SplitV": _split_unevenly,
    "Unpack": _unpacked,
}
