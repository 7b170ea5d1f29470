"""Which channels of a graph can go, and what must go with each of them.

Channels that are added, multiplied or carried from layer to layer can only be removed together
(Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023). Each such group has a number;
a weight then has, along each axis of channels, the number of the group that each entry is for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_kd.compression.bridge.graph import Graph, Slot
from keras_kd.compression.bridge.rebuilding import rebuild
from keras_kd.compression.bridge.translation import LayerRecord
from keras_kd.compression.bridge.weights import weight_name
from keras_kd.compression.layers import KernelRow
from keras_kd.compression.pruning.flow import follow, shapes_of

# The group of the channels that must stay: of the inputs, of the outputs, and of what layers read
# or write whose treatment of single channels is unknown.
STAYS = 0


@dataclass(frozen=True)
class Cut:
    """A place where a layer's weight has one entry per channel: `groups` along `axis`."""

    layer: Any
    weight: str
    axis: int
    groups: np.ndarray

    def values(self) -> np.ndarray:
        """The weight with the axis of the channels in front."""
        weights = {weight_name(weight): weight for weight in self.layer.weights}
        return np.moveaxis(np.asarray(weights[self.weight]), self.axis, 0)


@dataclass(frozen=True)
class Size:
    """An option of a layer that is, or ends in, the number of its channels."""

    layer: Any
    option: str
    groups: np.ndarray


@dataclass(frozen=True)
class Channels:
    """The groups of channels of a graph.

    `reads` and `writes` are the two sides of the kernels that mix channels; `carries` are all other
    weights with an entry per channel. `tensors` holds the groups of the channels of each tensor,
    None where they are not known.
    """

    graph: Graph
    reads: Sequence[Cut]
    writes: Sequence[Cut]
    carries: Sequence[Cut]
    sizes: Sequence[Size]
    tensors: Mapping[Slot, np.ndarray | None]

    def blocks(self) -> dict[frozenset[int], list[int]]:
        """The groups that can go, by the layers (their `id`) that write them.

        Each entry is a set of layers that can only become narrower together.
        """
        writers: dict[int, set[int]] = {}
        for cut in self.writes:
            for group in np.unique(cut.groups):
                writers.setdefault(int(group), set()).add(id(cut.layer))
        writers.pop(STAYS, None)
        blocks: dict[frozenset[int], list[int]] = {}
        for group in sorted(writers):
            blocks.setdefault(frozenset(writers[group]), []).append(group)
        return blocks

    def without(
        self, removed: Collection[int], take_apart: Callable[[Any], LayerRecord]
    ) -> keras.Model:
        """The model without some groups of channels.

        Args:
            removed: the groups.
            take_apart: gives the record of each layer as it is before channels are removed.
        """

        def narrowed(layer: Any) -> list[LayerRecord]:
            record = take_apart(layer)
            weights, config = dict(record.weights), dict(record.config)
            for cut in (*self.reads, *self.writes, *self.carries):
                if cut.layer is layer:
                    kept = ~np.isin(cut.groups, list(removed))
                    weights[cut.weight] = np.compress(kept, weights[cut.weight], cut.axis)
            for size in self.sizes:
                if size.layer is layer:
                    count = int(np.sum(~np.isin(size.groups, list(removed))))
                    config[size.option] = _with_size(config[size.option], count)
            return [replace(record, config=config, weights=weights)]

        return rebuild(self.graph, keras, narrowed)


def channels_of(graph: Graph) -> Channels:
    """Find the groups of channels in a Keras 3 graph."""
    coupling = _Coupling()
    found = follow(graph, shapes_of(graph), coupling)
    return Channels(
        graph,
        tensors={
            slot: None if channels is None else coupling.groups(channels)
            for slot, channels in found.items()
        },
        reads=coupling.cuts("reads"),
        writes=coupling.cuts("writes"),
        carries=coupling.cuts("carries"),
        sizes=coupling.sizes(),
    )


class _Coupling:
    """A domain in which each channel is a number; numbers are tied where channels are.

    A layer that is called several times finds the channels of its first call again, and ties them.
    """

    def __init__(self) -> None:
        self._parents = [STAYS]
        self._cuts: dict[tuple[int, str, int], tuple[str, Cut]] = {}
        self._sizes: dict[int, Size] = {}

    def opaque(self, operands: Sequence[np.ndarray | None], size: int | None) -> Any:
        for operand in operands:
            if operand is not None:
                self._tie(operand, np.full_like(operand, STAYS))
        return None if size is None else np.full(size, STAYS)

    def carried(self, layer: Any, weight: str, axis: int, channels: np.ndarray) -> np.ndarray:
        self._cut("carries", layer, weight, axis, channels)
        return channels

    def mixed(self, layer: Any, kernel: KernelRow, channels: np.ndarray) -> np.ndarray:
        [reads], [writes] = kernel.reads, kernel.writes
        self._cut("reads", layer, kernel.name, reads, channels)
        earlier = self._cuts.get((id(layer), kernel.name, writes))
        if earlier is not None:
            return earlier[1].groups
        count = next(
            weight.shape[writes] for weight in layer.weights if weight_name(weight) == kernel.name
        )
        written = self._new(count)
        self._cut("writes", layer, kernel.name, writes, written)
        return written

    def merged(self, layer: Any, several: Sequence[np.ndarray]) -> np.ndarray:
        for other in several[1:]:
            self._tie(several[0], other)
        return several[0]

    def spread(self, channels: np.ndarray, size: int) -> np.ndarray:
        self.opaque([channels], None)
        return self._new(size)

    def sized(self, layer: Any, option: str, channels: np.ndarray) -> None:
        earlier = self._sizes.setdefault(id(layer), Size(layer, option, channels))
        if len(earlier.groups) == len(channels):
            self._tie(earlier.groups, channels)
        else:
            self.opaque([earlier.groups, channels], None)

    def finished(self, slot: Slot, channels: np.ndarray) -> np.ndarray:
        return channels

    def groups(self, channels: np.ndarray) -> np.ndarray:
        """The groups that channels belong to in the end."""
        return np.array([self._root(number) for number in channels.tolist()])

    def cuts(self, kind: str) -> list[Cut]:
        """The cuts of one kind, with the final groups."""
        return [
            replace(cut, groups=self.groups(cut.groups))
            for found, cut in self._cuts.values()
            if found == kind
        ]

    def sizes(self) -> list[Size]:
        """The options that hold a number of channels, with the final groups."""
        return [replace(size, groups=self.groups(size.groups)) for size in self._sizes.values()]

    def _new(self, count: int) -> np.ndarray:
        first = len(self._parents)
        self._parents += range(first, first + count)
        return np.arange(first, first + count)

    def _cut(self, kind: str, layer: Any, weight: str, axis: int, channels: np.ndarray) -> None:
        cut = Cut(layer, weight, axis, channels)
        earlier = self._cuts.setdefault((id(layer), weight, axis), (kind, cut))
        self._tie(earlier[1].groups, channels)

    def _tie(self, some: np.ndarray, others: np.ndarray) -> None:
        for one, other in zip(some.tolist(), others.tolist(), strict=True):
            low, high = sorted((self._root(one), self._root(other)))
            # The lowest number represents its group, so that `STAYS` takes precedence.
            self._parents[high] = low

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = number = self._parents[self._parents[number]]
        return number


def _with_size(value: Any, count: int) -> Any:
    """A number of channels, or a shape that ends in it."""
    return (*value[:-1], count) if isinstance(value, (tuple, list)) else count
