"""Operations between layers: `x + y`, `x[:, 0]`, `keras.ops.matmul(x, y)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

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
        return cls(to_text(node.operation), arguments, node.operation.name)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Operation:
        """The operation with this config."""
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        return {"operation": self.operation, "arguments": self.arguments, "name": self.name}

    def __call__(self, tensors: Any) -> Any:
        """Compute with one tensor or a list of them, symbolic or not."""
        tensors = list(tensors) if isinstance(tensors, Sequence) else [tensors]
        args, kwargs = arguments_from_text(self.arguments, tensors)
        return self._operation(*args, **kwargs)

    call = __call__
