"""The kernels of a layer: the weights that pruning and clustering change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_kd.compression import layers
from keras_kd.compression.bridge.weights import named_weights, weight_name
from keras_kd.compression.layers import row_of

# With these methods, the protocol of TF-MOT, a user's own class lists its weights: the
# weights themselves, or pairs of attribute and weight.
PRUNABLE = "get_prunable_weights"
CLUSTERABLE = "get_clusterable_weights"


@dataclass(frozen=True)
class Axes:
    """The axes of a kernel by their role in the matrix products that the kernel is made of.

    There is one matrix of inputs and outputs at each of its positions.
    """

    positions: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def as_matrices(self, kernel: Any) -> Any:
        """`kernel` in the shape (positions, inputs, outputs)."""
        return ops.reshape(ops.transpose(kernel, self._order), self.sizes(kernel.shape))

    def as_kernel(self, matrices: Any, shape: Sequence[int]) -> Any:
        """The inverse of `as_matrices`, for a kernel of `shape`."""
        turned = ops.reshape(matrices, [shape[axis] for axis in self._order])
        return ops.transpose(turned, sorted(range(len(shape)), key=self._order.__getitem__))

    def sizes(self, shape: Sequence[int]) -> list[int]:
        """How many positions, inputs and outputs a kernel of `shape` has."""
        roles = (self.positions, self.inputs, self.outputs)
        return [math.prod(shape[axis] for axis in role) for role in roles]

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.positions, *self.inputs, *self.outputs)


@dataclass(frozen=True)
class Kernel:
    """A weight to compress.

    Attributes:
        name: unique in the layer (see `named_weights`).
        part: the layer itself, one inside it, or its cell, that has the weight.
        attribute: what the part calls it.
        weight: the part's own variable.
        row: its row in the table of layers; None for a weight listed by a user's own class.
    """

    name: str
    part: Any
    attribute: str
    weight: Any
    row: layers.KernelRow | None

    @property
    def variable(self) -> Any:
        """TensorFlow's own variable, which Keras 3 wraps."""
        return self.weight.value if isinstance(self.weight, keras.Variable) else self.weight

    @property
    def axes(self) -> Axes | None:
        """The roles of its axes; None where it is not known how it is multiplied."""
        rank = len(self.weight.shape)
        if self.row is None:
            return Axes((), (0,), (1,)) if rank == 2 else None
        if self.row.by_equation:
            return _axes_of_equation(self.part.equation)
        reads, writes = (
            tuple(axis % rank for axis in axes) for axes in (self.row.reads, self.row.writes)
        )
        positions = tuple(axis for axis in range(rank) if axis not in (*reads, *writes))
        return Axes(positions, reads, writes)

    @property
    def channel_axis(self) -> int | None:
        """The axis of the output channels of a convolution's kernel; None for other weights.

        Kernels have the same axes whether images have their channels first or last.
        """
        row = row_of(type(self.part))
        if self.row is None or row is None or row.size != "filters":
            return None
        return self.row.writes[0]


def kernels(layer: Any, listed_by: str = PRUNABLE) -> list[Kernel]:
    """The kernels of a built layer of either Keras; none where there is nothing to compress.

    They are those of the layer itself, of the layers inside it (also inside a custom layer) and of
    its cells. Parts that are frozen in a layer that trains are left out, and so are depthwise
    kernels beside others. A class without a row in the table of layers that has the method
    `listed_by` lists all that can be compressed in it.
    """
    # A layer that tf_keras does not have is kept inside one of the bridge's.
    plain = getattr(layer, "keras_layer", layer)
    # Operations have no weights, and neither has a layer that was not called yet.
    if not getattr(layer, "weights", ()):
        return []
    found = list({id(kernel.weight): kernel for kernel in _found(plain, listed_by)}.values())
    return [kernel for kernel in found if _is_mixing(kernel)] or found


def is_depthwise(layer: Any, listed_by: str = PRUNABLE) -> bool:
    """Whether the layer has depthwise kernels only: few weights, all of them important.

    Compressing them costs accuracy, so it is done only on request.
    """
    found = kernels(layer, listed_by)
    return bool(found) and not any(map(_is_mixing, found))


def _is_mixing(kernel: Kernel) -> bool:
    return kernel.row is None or bool(kernel.row.writes)


def _found(plain: Any, listed_by: str) -> Iterator[Kernel]:
    names = {id(weight): name for name, weight in named_weights(plain).items()}
    seen: set[int] = set()
    for part in plain._flatten_layers():
        if id(part) in seen or (plain.trainable and not part.trainable):
            continue
        seen.add(id(part))
        row = row_of(type(part))
        if row is not None:
            known = [(weight, weight_name(weight)) for weight in part.weights if row.kernels]
            for weight, attribute in known:
                kernel = row.kernel(attribute)
                if kernel is not None:
                    yield Kernel(names[id(weight)], part, attribute, weight, kernel)
        # Of the class: TF-MOT gives the method to each layer that it wraps.
        elif hasattr(type(part), listed_by):
            seen.update(id(inside) for inside in part._flatten_layers())
            for listed in getattr(part, listed_by)():
                attribute, weight = (
                    listed if isinstance(listed, tuple) else (weight_name(listed), listed)
                )
                if id(weight) in names:
                    yield Kernel(names[id(weight)], part, attribute, weight, None)


def _axes_of_equation(equation: str) -> Axes:
    """The roles of the axes of the second operand of `equation`."""
    operands, output = equation.replace(" ", "").split("->")
    inputs, letters = operands.split(",")

    def axes(in_inputs: bool, in_output: bool) -> tuple[int, ...]:
        return tuple(
            axis
            for axis, letter in enumerate(letters)
            if (letter in inputs, letter in output) == (in_inputs, in_output)
        )

    return Axes(axes(True, True), axes(True, False), axes(False, True))
