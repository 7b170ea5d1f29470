"""Structured pruning: removal of whole filters, which makes the student smaller."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras

from keras_kd._checks import check_choice, check_integer, check_number, problem
from keras_kd._keras import check_model
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.translation import record_of
from keras_kd.compression.families import check_state
from keras_kd.compression.pruning.channels import Channels, channels_of
from keras_kd.compression.pruning.importance import Importance, group_scores
from keras_kd.compression.selection import Selection, select
from keras_kd.compression.stripping import strip

# Layers that can only become narrower together, and the groups of channels that they write.
Blocks = Mapping[frozenset[int], list[int]]


def remove_filters(
    student: Any,
    share: float = 0.5,
    *,
    importance: Importance = "l1",
    scope: str = "layer",
    layers: Selection = None,
    skip: Selection = None,
    minimum: int = 1,
    multiple_of: int = 1,
) -> keras.Model:
    """Make a smaller student by removing the filters and units that matter least.

    The channels are removed from the shapes: a student with half of its filters has about a quarter
    of its multiplications. This is what makes a student faster on a CPU; the zeros of `prune` do
    not. Train the result with the teacher: it recovers most of what was lost. Then prune, cluster
    or quantize it like any other student.

    A filter of a convolution or a unit of a Dense layer is removed with everything that
    belongs to its channel: the entries of normalizations, depthwise convolutions and PReLU behind
    it, the filters of other layers it is added to or multiplied with (residual connections, gates),
    and the weights of all layers that read it, through pooling, Flatten, Concatenate and so on. The
    outputs are those of the student in which these readers are given 0 in place of the channel.

    Inputs and outputs keep their channels, and so do tensors read or written by layers whose
    treatment of single channels is not known (recurrent, attention and custom layers, layer
    normalization, softmax over hidden channels, grouped convolutions, operations on tensors).

    Args:
        student: a Sequential or Functional model of either Keras, plain or pruned; it is not
            changed.
        share: the share of filters to remove, between 0 and 1. Rounded so as to remove fewer.
        importance: "l1" or "l2", the norm of each filter's kernel (Li et al.); or
            "batch_normalization", the size of the scale that each channel is multiplied with (Liu
            et al.), where layers without such a scale keep all filters; or a function that takes a
            Keras 3 layer and returns a number for each of its filters, larger for those to keep.
            Channels that are removed together count with their mean. Norms are in units of their
            layer's mean.
        scope: "layer" removes the same share of each layer; "global" ranks the filters of all
            layers together and removes more where they matter less.
        layers: the layers to make narrower: names, types (`keras.layers.Conv2D`), or a function
            that is given a layer and returns a bool. Layers that can only become narrower together
            with these do. None for every layer that can be.
        skip: the layers that keep all their filters, in the same forms.
        minimum: how many filters a layer keeps at least.
        multiple_of: the number of filters kept is rounded up to a multiple of this, such as 8,
            which suits the kernels of some processors.

    Returns:
        A plain functional `keras.Model`, not compiled. `summary(smaller, student)` compares the
        two layer by layer.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an argument is out of range, if there is no filter to remove, or if the
            student is clustered or quantization-aware.

    Example:
        >>> smaller = keras_kd.compression.remove_filters(student, 0.5)
        >>> print(keras_kd.compression.summary(smaller, student))

    Reference:
        Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017.
        Liu, Li, Shen, Huang, Yan, Zhang, "Learning Efficient Convolutional Networks through Network
        Slimming", ICCV 2017. Fang, Ma, Song, Mi, Wang, "DepGraph: Towards Any Structural Pruning",
        CVPR 2023.
    """
    check_model("student", student)
    check_number("share", share, above=0, at_most=1 - 1e-9, fix="0.5 removes every other filter")
    check_choice("scope", scope, ("layer", "global"))
    check_integer("minimum", minimum, at_least=1, fix="a layer needs one filter")
    check_integer("multiple_of", multiple_of, at_least=1, fix="1 does not round")
    channels = channels_of(plain_graph(student))
    scores = group_scores(channels, importance)
    blocks = {
        writers: [group for group in groups if group in scores]
        for writers, groups in _chosen_blocks(channels, layers, skip).items()
    }
    kept = _KEPT[scope](blocks, share, scores)
    removed: set[int] = set()
    for writers, groups in blocks.items():
        count = max(minimum, math.ceil(kept[writers] / multiple_of) * multiple_of)
        ranked = sorted(groups, key=scores.__getitem__, reverse=True)
        removed.update(ranked[count:])
    if not removed:
        raise problem(
            f"share={share}, minimum={minimum} and multiple_of={multiple_of} for layers of "
            f"{sorted(map(len, blocks.values()))} filters with a score, so that none is removed",
            "at least one filter to remove",
            "pass a larger share, a smaller minimum, or another importance",
        )
    return channels.without(removed, record_of)


def plain_graph(student: Any) -> graphs.Graph:
    """The graph of a plain or pruned student in Keras 3.

    Raises:
        ValueError: if the student is clustered or quantization-aware.
    """
    check_state(graphs.read(student), "remove_filters")
    return graphs.read(strip(student))


def _chosen_blocks(channels: Channels, layers: Selection, skip: Selection) -> Blocks:
    """The blocks with a chosen layer and without one to skip."""
    blocks = channels.blocks()
    removable = frozenset().union(*blocks)

    def can_lose_filters(layer: Any) -> bool:
        return id(layer) in removable

    graph, purpose = channels.graph, "made narrower"
    chosen = set(select(graph, layers, skip, can_lose_filters, purpose))
    free = set(select(graph, None, skip, can_lose_filters, purpose))
    names = graph.names()
    return {
        writers: groups
        for writers, groups in blocks.items()
        if chosen & {names[key] for key in writers} and {names[key] for key in writers} <= free
    }


def _kept_of_each(
    blocks: Blocks, share: float, scores: Mapping[int, float]
) -> dict[frozenset[int], int]:
    return {
        writers: len(groups) - _share_of(len(groups), share) for writers, groups in blocks.items()
    }


def _kept_of_all(
    blocks: Blocks, share: float, scores: Mapping[int, float]
) -> dict[frozenset[int], int]:
    ranked = sorted(
        (group for groups in blocks.values() for group in groups), key=scores.__getitem__
    )
    lowest = set(ranked[: _share_of(len(ranked), share)])
    return {writers: len(set(groups) - lowest) for writers, groups in blocks.items()}


_KEPT = {"layer": _kept_of_each, "global": _kept_of_all}


def _share_of(count: int, share: float) -> int:
    # 0.7 of 10 is 7, which floats put just below.
    return math.floor(count * share + 1e-9)
