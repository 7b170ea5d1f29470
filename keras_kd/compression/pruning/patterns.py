"""Patterns of zeros: single weights, blocks, or m of n."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from keras import ops

from keras_kd._checks import check_choice, problem


@dataclass(frozen=True)
class Pattern(ABC):
    """Which weights a sparsity makes zero."""

    needs_axes: ClassVar[bool] = True

    @abstractmethod
    def mask(self, magnitudes: Any, sparsity: Any) -> Any:
        """Where weights stay.

        Args:
            magnitudes: absolute values of a kernel, in the shape (positions, inputs, outputs).
            sparsity: share of zeros, a number or a scalar tensor.

        Returns:
            Booleans in the shape of `magnitudes`.
        """

    def fits(self, positions: int, inputs: int, outputs: int) -> bool:
        """Whether a kernel of these sizes can have a zero at all."""
        return positions * inputs * outputs > 1

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the pattern of again."""
        return {"name": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Single(Pattern):
    """The smallest weights of a kernel, wherever they are."""

    needs_axes: ClassVar[bool] = False

    def mask(self, magnitudes: Any, sparsity: Any) -> Any:
        """See `Pattern.mask`; any shape will do. At least one weight stays."""
        flat: Any = ops.reshape(magnitudes, [-1])
        return ops.reshape(_largest(flat, _kept(flat.shape[0], sparsity)), magnitudes.shape)


@dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks of weights become zero together. At the edges of a kernel they are cut.

    In convolutions there are blocks at each position of the kernel.

    Args:
        size: (inputs, outputs) of a block.
        pooling: `"AVG"` to compare blocks by their mean magnitude, `"MAX"` by their largest.

    Raises:
        ValueError: if `size` is not two integers above 0, or `pooling` is unknown.

    Example:
        >>> pruned = prune(student, 0.8, pattern=Blocks((4, 1)))
    """

    size: tuple[int, int]
    pooling: str = "AVG"

    def __post_init__(self) -> None:
        meaning = "the inputs and outputs of a block"
        object.__setattr__(
            self, "size", _check_pair("Blocks", self.size, meaning, "Blocks((4, 1))")
        )
        check_choice("pooling", self.pooling, ("AVG", "MAX"))

    def fits(self, positions: int, inputs: int, outputs: int) -> bool:
        """See `Pattern.fits`."""
        return positions * math.prod(self._counts((inputs, outputs))) > 1

    def _counts(self, sides: Sequence[int]) -> list[int]:
        return [-(-side // size) for side, size in zip(sides, self.size, strict=True)]

    def mask(self, magnitudes: Any, sparsity: Any) -> Any:
        """See `Pattern.mask`. At least one block stays."""
        positions, *sides = magnitudes.shape
        counts = self._counts(sides)
        grid = [positions, counts[0], self.size[0], counts[1], self.size[1]]

        def in_blocks(values: Any) -> Any:
            missing = [
                [0, count * size - side]
                for count, size, side in zip(counts, self.size, sides, strict=True)
            ]
            return ops.reshape(ops.pad(values, [[0, 0], *missing]), grid)

        pooled: Any
        blocks = in_blocks(magnitudes)
        if self.pooling == "MAX":
            pooled = ops.max(blocks, axis=(2, 4), keepdims=True)
        else:
            cells: Any = ops.sum(in_blocks(ops.ones_like(magnitudes)), axis=(2, 4), keepdims=True)
            pooled = ops.sum(blocks, axis=(2, 4), keepdims=True) / cells
        mask = ops.broadcast_to(Single().mask(pooled, sparsity), grid)
        shape = [positions, counts[0] * self.size[0], counts[1] * self.size[1]]
        whole: Any = ops.reshape(mask, shape)
        return whole[:, : sides[0], : sides[1]]


@dataclass(frozen=True)
class MByN(Pattern):
    """Of every `of` consecutive inputs of an output, `zeros` are zero at the end.

    Before the end they are fewer, as the schedule defines. These are consecutive values of the
    file's tensors: TFLite stores the inputs last (of an embedding, one word's values). In the last
    group, which may be shorter, at most as many weights stay as in the others.

    Args:
        zeros: how many of them are zero.
        of: how many weights there are in a group, more than `zeros`.

    Raises:
        ValueError: if they are not two integers above 0, or `zeros` is not the smaller one.

    Example:
        >>> pruned = prune(student, pattern=MByN(2, 4))
    """

    zeros: int
    of: int

    def __post_init__(self) -> None:
        numbers = (self.zeros, self.of)
        _check_pair("MByN", numbers, "the zeros and the weights of a group", "MByN(2, 4)")
        if self.zeros >= self.of:
            raise problem(
                str(self),
                "fewer zeros than weights in a group",
                "MByN(2, 4) makes two of every four zero",
            )

    def fits(self, positions: int, inputs: int, outputs: int) -> bool:
        """See `Pattern.fits`."""
        return inputs > self.of - self.zeros

    def mask(self, magnitudes: Any, sparsity: Any) -> Any:
        """See `Pattern.mask`."""
        positions, inputs, outputs = magnitudes.shape
        groups = -(-inputs // self.of)
        rows = ops.transpose(magnitudes, (0, 2, 1))
        # What fills up the last group is smaller than any weight.
        missing = [[0, 0], [0, 0], [0, groups * self.of - inputs]]
        rows = ops.pad(rows, missing, constant_values=-1)
        rows = ops.reshape(rows, [positions, outputs, groups, self.of])
        share: Any = ops.cast(sparsity, "float32")
        zeros: Any = ops.cast(ops.minimum(ops.round(share * self.of), self.zeros), "int32")
        mask = _largest(rows, self.of - zeros)
        whole: Any = ops.reshape(mask, [positions, outputs, groups * self.of])
        return ops.transpose(whole[..., :inputs], (0, 2, 1))


def from_config(config: Mapping[str, Any]) -> Pattern:
    """The pattern whose `get_config` this is."""
    options = {key: value for key, value in config.items() if key != "name"}
    return {kind.__name__: kind for kind in (Single, Blocks, MByN)}[config["name"]](**options)


def _check_pair(name: str, value: Any, meaning: str, example: str) -> tuple[int, int]:
    """Return `value` as a tuple if it is two integers above 0.

    Raises:
        ValueError: if it is not.
    """
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    if not is_pair or not all(type(number) is int and number > 0 for number in value):
        raise problem(
            f"{name} with {value!r}", f"two integers above 0: {meaning}", f"write {example}"
        )
    return value[0], value[1]


def _kept(size: int, sparsity: Any) -> Any:
    # float32 cannot count the weights of a large kernel.
    share: Any = ops.cast(sparsity, "float64")
    return ops.maximum(ops.cast(ops.round((1.0 - share) * size), "int32"), 1)


def _largest(magnitudes: Any, count: Any) -> Any:
    """Where the `count` largest values along the last axis are; of equal ones, the first.

    TF-MOT keeps all values that are equal to the smallest that stays: a kernel whose weights are
    all equal is never pruned.
    """
    falling: Any = ops.flip(ops.sort(magnitudes, axis=-1), axis=-1)
    smallest: Any = ops.take(falling, ops.reshape(count - 1, [1]), axis=-1)
    above = magnitudes > smallest
    tied: Any = ops.cast(magnitudes == smallest, "int32")
    room = count - ops.sum(ops.cast(above, "int32"), axis=-1, keepdims=True)
    return above | ((tied > 0) & (ops.cumsum(tied, axis=-1) <= room))
