"""Smaller students: forms of the teacher that begin with its own weights."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import keras
import numpy as np

from keras_kd._checks import check_flag, check_integer, check_number, one_line, problem
from keras_kd._keras import check_model
from keras_kd.compression import strip
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.translation import make_layer, record_of, set_weights
from keras_kd.compression.layers import row_of
from keras_kd.compression.pruning.blocks import rebuilt, removable_count, without_last_blocks
from keras_kd.compression.pruning.channels import STAYS, Channels, channels_of
from keras_kd.compression.pruning.importance import group_scores
from keras_kd.search.maps import can_average, with_smaller_maps

# Statistics of the whole teacher are wrong for a narrow form, and a few steps must replace them.
_MOST_MOMENTUM = 0.9
_DROPOUTS = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
# A layer of one filter passes on almost nothing.
_MINIMUM = 2


@dataclass(frozen=True)
class Form:
    """A smaller form of a teacher, which begins with the teacher's own weights, or with new ones.

    Args:
        width: the share of the filters and units that each layer keeps, in the middle of the model.
        tilt: how many times the share is larger in the last layers than in the first: early layers
            take the arena, late ones the flash. 1 keeps the same share everywhere.
        fewer_blocks: how many blocks are left out, nearest to the output first: blocks that repeat
            the one before, or residual blocks.
        pool: the input is averaged over this many values along each axis (images, sequences).
        strided: convolutions stride in place of the pooling layers right behind them, which takes
            less memory and time, and no kernel for the pooling.
        shrunk: the convolution before the only Flatten strides by 2, so that the layer behind it
            has a quarter of the weights.
        level: no layer keeps more filters than the layer of median width: a last layer that is much
            wider than the others takes most of the flash.
        seed: None begins with the teacher's weights; a number with new ones, drawn from this seed
            (Keras' global one is set to it). Layers that do not train keep theirs.

    A Dense layer behind a map that becomes smaller begins with its kernel summed over the
    positions that one position represents.

    Moving averages of batch normalizations have a momentum of at most 0.9 in a form: they have to
    follow in a few steps. The rates of dropout are multiplied by the share of the weights that is
    left: a small form overfits less.

    Raises:
        TypeError: if a value is of another type.
        ValueError: if a value is out of range.
    """

    width: float = 1.0
    tilt: float = 1.0
    fewer_blocks: int = 0
    pool: int = 1
    strided: bool = False
    shrunk: bool = False
    level: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        check_number("width", self.width, above=0, at_most=1, fix="0.5 keeps half of the filters")
        check_number("tilt", self.tilt, above=0, fix="1 keeps the same share in every layer")
        check_integer("fewer_blocks", self.fewer_blocks, at_least=0, fix="0 keeps all blocks")
        check_integer("pool", self.pool, at_least=1, fix="1 keeps the input")
        check_flag("strided", self.strided)
        check_flag("shrunk", self.shrunk)
        check_flag("level", self.level)
        if self.seed is not None:
            check_integer(
                "seed", self.seed, at_least=0, fix="None begins with the teacher's weights"
            )

    @property
    def name(self) -> str:
        """A short name: "width 0.50 tilt 3"."""
        parts = [f"width {self.width:.2f}"]
        parts += [f"tilt {self.tilt:.3g}"] if self.tilt != 1 else []
        parts += [f"-{self.fewer_blocks} blocks"] if self.fewer_blocks else []
        parts += [f"pool {self.pool}"] if self.pool > 1 else []
        parts += ["strided"] if self.strided else []
        parts += ["shrunk"] if self.shrunk else []
        parts += ["level"] if self.level else []
        parts += [] if self.seed is None else ["new weights"]
        return " ".join(parts)

    @property
    def structure(self) -> Form:
        """What it has in common with the forms that differ in their numbers of filters only."""
        return replace(self, width=1.0, tilt=1.0, level=False)

    def of(self, teacher: Any) -> keras.Model:
        """Build the student.

        Args:
            teacher: a Sequential or Functional model of either Keras; it is not changed.

        Returns:
            A functional Keras 3 model, not compiled.

        Raises:
            ValueError: if the teacher has no such form.
        """
        check_model("teacher", teacher)
        plain = strip(teacher)
        if self.fewer_blocks:
            graph = graphs.read(plain)
            most = removable_count(graph)
            if self.fewer_blocks > most:
                raise problem(
                    f"fewer_blocks={self.fewer_blocks}",
                    f"at most {most}, the blocks of {teacher.name!r} that can be left out",
                    f"pass {most}",
                )
            plain = rebuilt(without_last_blocks(graph, self.fewer_blocks))
        if self.pool > 1 or self.strided or self.shrunk:
            plain = with_smaller_maps(plain, self.pool, strided=self.strided, shrunk=self.shrunk)
        plain = _narrowed(plain, self)
        left = plain.count_params() / max(1, teacher.count_params())
        for layer in plain.layers:
            # The layers of a teacher that a Distiller has used are frozen.
            layer.trainable = True
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = min(layer.momentum, _MOST_MOMENTUM)
            if isinstance(layer, _DROPOUTS):
                layer.rate *= min(1.0, left)
        if self.seed is not None:
            plain = _renewed(plain, self.seed)
        return plain


class Proposal(Protocol):
    """A student that can be built.

    Attributes:
        name: what it is called; proposals of one name are the same.
    """

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def build(self) -> keras.Model:
        """The untrained student."""
        ...

    def settings(self) -> dict[str, Any]:
        """What distinguishes it, as JSON types."""
        ...

    def code(self) -> str:
        """Python code that builds it, as the variable `student`."""
        ...


@dataclass(frozen=True)
class OfTeacher:
    """A form of the teacher."""

    teacher: Any
    form: Form

    @property
    def name(self) -> str:
        """See `Proposal`."""
        return self.form.name

    def build(self) -> keras.Model:
        """See `Proposal`."""
        return self.form.of(self.teacher)

    def settings(self) -> dict[str, Any]:
        """See `Proposal`."""
        return asdict(self.form)

    def renewed(self, seed: int) -> OfTeacher:
        """The same form with new weights."""
        return OfTeacher(self.teacher, replace(self.form, seed=seed))

    def code(self) -> str:
        """See `Proposal`."""
        return f"student = keras_kd.search.{self.form!r}.of(teacher)"


class Ladder:
    """The forms of a teacher along the width, from the whole teacher down to almost nothing."""

    # Each step has 0.94 of the filters of the one before, so about 0.88 of the weights.
    WIDTHS = tuple(round(0.94**step, 3) for step in range(54))

    def __init__(self, teacher: Any) -> None:
        self.teacher = teacher
        self._channels: dict[Form, Channels | None] = {}

    def form(self, arm: Form, step: int) -> OfTeacher:
        """The form on a step of an arm, whose own width is not used."""
        values = {**asdict(arm), "width": self.WIDTHS[step]}
        return OfTeacher(self.teacher, Form(**values))

    @cached_property
    def arms(self) -> list[Form]:
        """The ways to make the teacher smaller beside its width, simple ones first.

        Raises:
            ValueError: if no layer of the teacher can be made narrower.
        """
        graph = readable(self.teacher)
        channels = channels_of(graph)
        check_narrowable(self.teacher, channels)
        widths = [len(groups) for groups in channels.blocks().values()]
        profiles = [(1.0, False)]
        profiles += [(1.0, True)] if max(widths) > _median_width(channels) else []
        profiles += [(1 / 3, False), (3.0, False)] if len(widths) > 1 else []
        blocks = range(min(2, removable_count(graph)) + 1)
        arms = [
            Form(1.0, tilt, count, pool, strided, shrunk, level)
            for pool in ([1, 2] if can_average(graph) else [1])
            for count in blocks
            for tilt, level in profiles
            for strided in (True, False)
            for shrunk in (True, False)
        ]
        possible = [arm for arm in arms if self.channels(arm) is not None]
        can_stride = any(arm.strided for arm in possible)
        can_shrink = any(arm.shrunk for arm in possible)
        # Strides and a small last map save the most for the least, so they count as simple.
        return sorted(
            possible,
            key=lambda arm: (
                (not arm.strided and can_stride)
                + (not arm.shrunk and can_shrink)
                + (arm.tilt != 1 or arm.level)
                + (arm.fewer_blocks > 0)
                + (arm.pool > 1)
            ),
        )

    def channels(self, arm: Form) -> Channels | None:
        """The channels of the widest form of an arm; None where there is no such form."""
        structure = arm.structure
        if structure not in self._channels:
            try:
                self._channels[structure] = channels_of(graphs.read(structure.of(self.teacher)))
            except (ValueError, TypeError):
                self._channels[structure] = None
        return self._channels[structure]


def readable(teacher: Any) -> graphs.Graph:
    """The graph of a teacher in Keras 3.

    Raises:
        ValueError: if it is a subclassed model, whose layers cannot be made narrower.
    """
    try:
        return graphs.read(strip(teacher))
    except ValueError as error:
        # Its message names the fault of the model, and how to make one whose layers are known.
        message = one_line(error).rstrip(".")
        raise ValueError(
            f"{message}; or pass student=build, a function of keras_tuner.HyperParameters."
        ) from error


def check_narrowable(teacher: Any, channels: Channels) -> None:
    """Refuse a teacher of which no layer can be made narrower.

    Raises:
        ValueError: naming the layers that keep all their channels.
    """
    if channels.blocks():
        return
    fixed = fixed_layers(channels)
    raise problem(
        f"the teacher {teacher.name!r}, in which no layer can be made narrower: "
        f"{', '.join(fixed) or 'it has no layer with weights'}",
        "hidden Dense or convolution layers followed by layers that treat each channel separately",
        "pass student=build, a function of keras_tuner.HyperParameters that returns a model",
    )


def fixed_layers(channels: Channels) -> list[str]:
    """The layers that keep all their channels, such as "'lstm' (LSTM)"; most weights first."""
    graph = channels.graph
    names = graph.names()
    narrowed = set().union(*channels.blocks())
    cuts = (*channels.reads, *channels.carries)
    narrowed |= {id(cut.layer) for cut in cuts if np.any(cut.groups != STAYS)}
    fixed = [
        layer
        for layer in graph.layers()
        if id(layer) not in narrowed
        and ((row := row_of(type(layer))) is None or row.kernels or row.parts or layer.weights)
    ]
    fixed.sort(key=lambda layer: -sum(math.prod(weight.shape) for weight in layer.weights))
    return [f"{names[id(layer)]!r} ({type(layer).__name__})" for layer in fixed]


def _renewed(student: keras.Model, seed: int) -> keras.Model:
    """A copy with new weights in the layers that train."""
    keras.utils.set_random_seed(seed)
    # Records hold functions in layers as they are; the config of a Lambda cannot be read back.
    copy = keras.models.clone_model(
        student, clone_function=lambda layer: make_layer(record_of(layer))
    )
    for old, new in zip(student.layers, copy.layers, strict=True):
        if not old.trainable_weights:
            set_weights(new, record_of(old))
    return copy


def _narrowed(student: keras.Model, form: Form) -> keras.Model:
    channels = channels_of(graphs.read(student))
    scores = group_scores(channels, "l1")
    removed: set[int] = set()
    for groups, kept in kept_filters(channels, form):
        removed.update(sorted(groups, key=scores.__getitem__, reverse=True)[kept:])
    return channels.without(removed, record_of)


def kept_filters(channels: Channels, form: Form) -> Iterator[tuple[Sequence[int], int]]:
    """The groups of channels that become fewer together, and how many of each a form keeps."""
    position = _positions(channels)
    most = _median_width(channels) if form.level else math.inf
    for writers, groups in channels.blocks().items():
        share = min(1.0, form.width * form.tilt ** position[writers])
        kept = math.ceil(min(len(groups), most) * share - 1e-9)
        yield groups, max(min(_MINIMUM, len(groups)), kept)


def _median_width(channels: Channels) -> int:
    """The median of how many filters the layers have; of two, the smaller one."""
    return statistics.median_low(len(groups) for groups in channels.blocks().values())


def _positions(channels: Channels) -> dict[frozenset[int], float]:
    """Where layers that become narrower together stand: -0.5 the first of them, 0.5 the last."""
    place = {id(layer): number for number, layer in enumerate(channels.graph.layers())}
    order = sorted(channels.blocks(), key=lambda writers: min(place[key] for key in writers))
    last = max(1, len(order) - 1)
    return {
        writers: number / last - 0.5 if len(order) > 1 else 0.0
        for number, writers in enumerate(order)
    }
