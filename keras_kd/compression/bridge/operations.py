"""Operations between layers: `x + y`, `x[:, 0]`, `keras.ops.matmul(x, y)`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import keras

from keras_kd._backends import mask_of
from keras_kd.compression.bridge.serialized import (
    arguments_from_text,
    arguments_to_text,
    from_text,
    to_text,
)


class Operation:
    """One call of a Keras 3 operation, in the form of a layer of its tensors only.

    What else the operation was given, such as the 2 in `2 * x`, is part of it.
    """

    # The Keras 3 layer that computes the same, if there is one; of the same name.
    equivalent: keras.layers.Layer | None = None
    trainable = False
    weights: tuple[Any, ...] = ()
    variables: tuple[Any, ...] = ()

    def __init__(self, operation: str, arguments: str, name: str) -> None:
        self.operation = operation
        self.arguments = arguments
        self.name = name
        self._operation = from_text(operation)

    @classmethod
    def of(cls, node: Any) -> Operation:
        """The operation of a node in a graph of Keras 3."""
        arguments = arguments_to_text(
            (node.arguments.args, node.arguments.kwargs), keras.backend.is_keras_tensor
        )
        made = cls(to_text(node.operation), arguments, node.operation.name)
        made.equivalent = _equivalent(node)
        return made

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Operation:
        """The operation with this config."""
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        return {"operation": self.operation, "arguments": self.arguments, "name": self.name}

    @property
    def kind(self) -> type[keras.Operation]:
        """The class of the operation."""
        return type(self._operation)

    def constants(self) -> list[Any]:
        """What the operation was given besides tensors, without what is None."""
        arguments = arguments_from_text(self.arguments, defaultdict(lambda: None))
        return [leaf for leaf in keras.tree.flatten(arguments) if leaf is not None]

    def __call__(self, tensors: Any) -> Any:
        """Compute with one tensor or a list of them, symbolic or not."""
        tensors = list(tensors) if isinstance(tensors, Sequence) else [tensors]
        args, kwargs = arguments_from_text(self.arguments, tensors)
        return self._operation(*args, **kwargs)

    call = __call__


_MERGES = ("Add", "Maximum", "Minimum", "Multiply", "Subtract")
_ACTIVATIONS = ("Gelu", "Relu", "Relu6", "Sigmoid", "Silu", "Softmax", "Tanh")


def _equivalent(node: Any) -> keras.layers.Layer | None:
    """The layer that computes what an operation does, where that is certain.

    TF-MOT can quantize it, for example.
    """
    operation, kind = node.operation, type(node.operation).__name__
    if not type(operation).__module__.startswith("keras."):
        return None
    leaves = keras.tree.flatten([node.arguments.args, node.arguments.kwargs])
    alike = all(
        keras.backend.is_keras_tensor(leaf)
        and mask_of(leaf) is None
        and (len(leaf.shape), leaf.dtype) == (len(leaves[0].shape), leaves[0].dtype)
        for leaf in leaves
    )
    if not alike or not keras.backend.is_float_dtype(leaves[0].dtype):
        return None
    options = {"name": operation.name, "dtype": leaves[0].dtype}
    rank = len(leaves[0].shape)
    if kind in _MERGES and len(leaves) == 2:
        return getattr(keras.layers, kind)(**options)
    if kind == "Concatenate" and operation.axis % rank > 0:
        return keras.layers.Concatenate(axis=operation.axis, **options)
    if kind in _ACTIVATIONS and len(leaves) == 1:
        default = type(operation)(name=operation.name)
        if default.get_config() == operation.get_config():
            return keras.layers.Activation(kind.lower(), **options)
    return None
