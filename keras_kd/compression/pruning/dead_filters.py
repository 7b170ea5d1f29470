"""Filters that cannot change a student's outputs, found by proof and removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_kd._keras import check_model
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.graph import Graph, Slot
from keras_kd.compression.bridge.rebuilding import random_inputs, rebuild
from keras_kd.compression.bridge.translation import LayerRecord, record_of
from keras_kd.compression.layers import KernelRow
from keras_kd.compression.pruning.channels import Channels, Cut, channels_of
from keras_kd.compression.pruning.filters import plain_graph
from keras_kd.compression.pruning.flow import follow, shapes_of

# The same number at every position, up to the order in which a kernel adds.
_TOLERANCE = 1e-6


def remove_dead_filters(student: Any) -> keras.Model:
    """Make a smaller student by removing the filters and units that cannot change its outputs.

    These are filters that no layer reads (all reading weights are zero), and filters whose output
    is constant because their own weights are zero: the constant moves into the biases
    of the layers that read it. The outputs are the same up to rounding; no training is needed.
    Pruning in blocks, with a high sparsity or with a penalty on the scales of normalizations leaves
    such filters behind.

    A filter with a constant output other than 0 stays if a convolution with padding reads it:
    at the border, this convolution reads zeros instead. What cannot be removed by `remove_filters`
    stays as well, and a layer keeps one filter at least.

    Args:
        student: a Sequential or Functional model of either Keras, plain or pruned; it is not
            changed.

    Returns:
        A plain functional `keras.Model`, not compiled, with the student's own shapes if none of its
        filters is dead.

    Raises:
        ValueError: if the student is clustered or quantization-aware.
    """
    check_model("student", student)
    # A copy, because it is run to find the values of constant filters.
    graph = graphs.read(rebuild(plain_graph(student), keras, lambda layer: [record_of(layer)]))
    channels = channels_of(graph)
    constants = _constants(graph)
    removed = _dead_groups(channels, constants)
    biases = {
        id(cut.layer): _moved_to_bias(cut, constants[id(cut.layer)], removed)
        for cut in channels.reads
    }
    written = {id(cut.layer): ~np.isin(cut.groups, list(removed)) for cut in channels.writes}

    def take_apart(layer: Any) -> LayerRecord:
        record = record_of(layer)
        added = biases.get(id(layer))
        if added is None or not added.any():
            return record
        return _with_bias(record, added, written[id(layer)])

    return channels.without(removed, take_apart)


def _dead_groups(channels: Channels, constants: Mapping[int, np.ndarray]) -> set[int]:
    """All that can be removed; what is removed can leave more without a reader."""
    blocks = list(channels.blocks().values())
    harmless = {id(cut.layer): ~np.isnan(constants[id(cut.layer)]) for cut in channels.reads}
    written = {id(cut.layer): cut.groups for cut in channels.writes}
    removed: set[int] = set()
    while True:
        needed: set[int] = set()
        for cut in channels.reads:
            still_there = ~np.isin(written[id(cut.layer)], list(removed))
            read = _by_input_and_output(cut)[:, still_there].any(axis=(1, 2))
            needed.update(cut.groups[read & ~harmless[id(cut.layer)]].tolist())
        dead = set()
        for groups in blocks:
            gone = [group for group in groups if group not in needed]
            if len(gone) == len(groups):
                gone.remove(next(group for group in groups if group not in removed))
            dead.update(gone)
        if dead == removed:
            return removed
        removed = dead


def _constants(graph: Graph) -> dict[int, np.ndarray]:
    """By `id` of each layer that mixes channels, the constant value of each channel that it reads.

    NaN where that depends on the input, or where the layer cannot take it into its bias.
    """
    values = random_inputs(graph, examples=1)
    for _ in graphs.steps(graph, {id(layer): [layer] for layer in graph.layers()}, values):
        pass
    constancy = _Constancy(values)
    follow(graph, shapes_of(graph), constancy)
    return {
        key: known[0] if len(known) == 1 else _common_zeros(known)
        for key, known in constancy.read.items()
    }


def _common_zeros(calls: Sequence[np.ndarray]) -> np.ndarray:
    """A layer that is called several times has one bias for all of them."""
    return np.where(np.all(np.stack(calls) == 0, axis=0), 0.0, np.nan)


class _Constancy:
    """A domain in which each channel is its constant value, or NaN.

    Zeros in the weights prove that a channel does not depend on the input; any single run of the
    model then gives its value.
    """

    def __init__(self, observed: Mapping[Slot, Any]) -> None:
        self.read: dict[int, list[np.ndarray]] = {}
        self._observed = observed

    def opaque(self, operands: Sequence[np.ndarray | None], size: int | None) -> Any:
        return None if size is None else np.full(size, np.nan)

    def carried(self, layer: Any, weight: str, axis: int, channels: np.ndarray) -> np.ndarray:
        if weight not in ("gamma", "kernel", "depthwise_kernel"):
            return channels
        factors = Cut(layer, weight, axis, channels).values().reshape(len(channels), -1)
        return np.where(factors.any(axis=1), channels, 0.0)

    def mixed(self, layer: Any, kernel: KernelRow, channels: np.ndarray) -> np.ndarray:
        foldable = ~np.isnan(channels) if _reads_constants(layer) else channels == 0
        self.read.setdefault(id(layer), []).append(np.where(foldable, channels, np.nan))
        [axis] = kernel.reads
        reads = _by_input_and_output(Cut(layer, kernel.name, axis, channels)).any(axis=2)
        varies = (reads & np.isnan(channels)[:, None]).any(axis=0)
        return np.where(varies, np.nan, 0.0)

    def merged(self, layer: Any, several: Sequence[np.ndarray]) -> np.ndarray:
        stacked = np.stack(several)
        varies = np.isnan(stacked).any(axis=0)
        if type(layer).__name__ == "Multiply":
            varies &= ~(stacked == 0).any(axis=0)
        return np.where(varies, np.nan, 0.0)

    def spread(self, channels: np.ndarray, size: int) -> np.ndarray:
        return np.repeat(channels, size)

    def sized(self, layer: Any, option: str, channels: np.ndarray) -> None:
        pass

    def finished(self, slot: Slot, channels: np.ndarray) -> np.ndarray:
        seen = np.asarray(keras.ops.cast(self._observed[slot], "float64")).reshape(
            -1, len(channels)
        )
        scale = np.maximum(np.abs(seen).max(axis=0), 1.0)
        is_even = np.ptp(seen, axis=0) <= _TOLERANCE * scale
        return np.where(is_even & ~np.isnan(channels), seen[0], np.nan)


def _reads_constants(layer: Any) -> bool:
    """Whether a number that is everywhere in a channel adds the same to every output."""
    if type(layer).__name__ == "Dense":
        return True
    is_convolution = type(layer).__name__ in ("Conv1D", "Conv2D", "Conv3D")
    return is_convolution and (layer.padding == "valid" or set(layer.kernel_size) == {1})


def _by_input_and_output(cut: Cut) -> np.ndarray:
    """The kernel that a layer reads with: (channels read, channels written, positions)."""
    values = cut.values()
    # The other axis of channels is the last one left, whichever of the two comes first.
    return values.reshape(len(values), -1, values.shape[-1]).swapaxes(1, 2)


def _moved_to_bias(cut: Cut, constants: np.ndarray, removed: Collection[int]) -> np.ndarray:
    moved = np.isin(cut.groups, list(removed)) & ~np.isnan(constants)
    weights = _by_input_and_output(cut).astype("float64").sum(axis=2)
    return constants[moved] @ weights[moved]


def _with_bias(record: LayerRecord, added: np.ndarray, written: np.ndarray) -> LayerRecord:
    weights = dict(record.weights)
    if "bias" in weights:
        weights["bias"] = (weights["bias"] + added).astype(weights["bias"].dtype)
        return replace(record, weights=weights)
    # A bias that is new has no entries for the filters that leave.
    weights["bias"] = added[written].astype(weights["kernel"].dtype)
    return replace(record, config={**record.config, "use_bias": True}, weights=weights)
