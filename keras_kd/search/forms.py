"""Smaller students: forms of the teacher with its own weights, or a user's family of models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

import keras
import numpy as np

from keras_kd._checks import check_integer, check_number, one_line, problem
from keras_kd._keras import check_model
from keras_kd.compression import strip
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.translation import make_layer, record_of
from keras_kd.compression.bridge.weights import named_weights
from keras_kd.compression.layers import row_of
from keras_kd.compression.pruning.blocks import rebuilt, removable_count, without_last_blocks
from keras_kd.compression.pruning.channels import Channels, channels_of
from keras_kd.compression.pruning.importance import group_scores

_POOLING = {3: keras.layers.AveragePooling1D, 4: keras.layers.AveragePooling2D}
# Fewer pixels than this along a side are a small input already.
_SMALLEST_SIDE = 16
# Statistics of the whole teacher are wrong for a narrow form, and a few steps must replace them.
_MOST_MOMENTUM = 0.9
# A layer of one filter passes on almost nothing.
_MINIMUM = 2


@dataclass(frozen=True)
class Form:
    """A smaller form of a teacher, which begins with the teacher's own weights.

    Args:
        width: the share of the filters and units that each layer keeps, in the middle of the model.
        tilt: how many times the share is larger in the last layers than in the first: early layers
            take the arena, late ones the flash. 1 keeps the same share everywhere.
        fewer_blocks: how many blocks are left out, nearest to the output first: blocks that repeat
            the one before, or residual blocks.
        pool: the input is averaged over this many values along each axis (images, sequences). Where
            the shapes of later weights change with it (Flatten before Dense), these begin anew.

    Moving averages of batch normalizations have a momentum of at most 0.9 in a form: they have to
    follow in a few steps.

    Raises:
        TypeError: if a value is of another type.
        ValueError: if a value is out of range.
    """

    width: float = 1.0
    tilt: float = 1.0
    fewer_blocks: int = 0
    pool: int = 1

    def __post_init__(self) -> None:
        check_number("width", self.width, above=0, at_most=1, fix="0.5 keeps half of the filters")
        check_number("tilt", self.tilt, above=0, fix="1 keeps the same share in every layer")
        check_integer("fewer_blocks", self.fewer_blocks, at_least=0, fix="0 keeps all blocks")
        check_integer("pool", self.pool, at_least=1, fix="1 keeps the input")

    @property
    def name(self) -> str:
        """A short name: "width 0.50 tilt 3"."""
        parts = [f"width {self.width:.2f}"]
        parts += [f"tilt {self.tilt:.3g}"] if self.tilt != 1 else []
        parts += [f"-{self.fewer_blocks} blocks"] if self.fewer_blocks else []
        parts += [f"pool {self.pool}"] if self.pool > 1 else []
        return " ".join(parts)

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
        plain = _narrowed(plain, self.width, self.tilt)
        plain = _pooled(plain, self.pool) if self.pool > 1 else plain
        for layer in plain.layers:
            # The layers of a teacher that a Distiller has used are frozen.
            layer.trainable = True
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = min(layer.momentum, _MOST_MOMENTUM)
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
        """What distinguishes it, in types that JSON knows."""
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

    def code(self) -> str:
        """See `Proposal`."""
        return f"student = keras_kd.search.{self.form!r}.of(teacher)"


@dataclass(frozen=True)
class OfUser:
    """A member of a user's family: `make` is a function of `keras_tuner.HyperParameters`."""

    make: Callable[[Any], Any]
    values: Mapping[str, Any]
    seed: int

    @property
    def name(self) -> str:
        """See `Proposal`."""
        return ", ".join(f"{key}={_short(value)}" for key, value in self.values.items()) or "model"

    def build(self) -> keras.Model:
        """See `Proposal`."""
        keras.utils.set_random_seed(self.seed)
        hyperparameters = tuner().HyperParameters()
        hyperparameters.values = dict(self.values)
        return checked(self.make(hyperparameters))

    def settings(self) -> dict[str, Any]:
        """See `Proposal`."""
        return dict(self.values)

    def code(self) -> str:
        """See `Proposal`."""
        called = getattr(self.make, "__name__", "build_student")
        return "\n".join(
            [
                "import keras_tuner",
                "",
                f"keras.utils.set_random_seed({self.seed})",
                "hyperparameters = keras_tuner.HyperParameters()",
                f"hyperparameters.values = {dict(self.values)!r}",
                f"student = {called}(hyperparameters)",
            ]
        )


class Ladder:
    """The forms of a teacher along the width, from the whole teacher down to almost nothing."""

    # Each step has 0.87 of the filters of the one before, so about 0.76 of the weights.
    WIDTHS = tuple(round(0.87**step, 3) for step in range(24))

    def __init__(self, teacher: Any) -> None:
        self.teacher = teacher

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
        tilts = [1.0, 3.0, 1 / 3] if len(channels.blocks()) > 1 else [1.0]
        blocks = range(min(2, removable_count(graph)) + 1)
        pools = [1, 2] if self._can_pool(graph) else [1]
        arms = [
            Form(tilt=tilt, fewer_blocks=count, pool=pool)
            for pool in pools
            for count in blocks
            for tilt in tilts
        ]
        return sorted(
            arms, key=lambda arm: (arm.tilt != 1) + (arm.fewer_blocks > 0) + (arm.pool > 1)
        )

    def _can_pool(self, graph: graphs.Graph) -> bool:
        shapes = [spec.shape for spec in graph.input_specs]
        if len(shapes) != 1 or len(shapes[0]) not in _POOLING:
            return False
        if any(size is None or size < _SMALLEST_SIDE for size in shapes[0][1:-1]):
            return False
        if not graph.input_specs[0].dtype.startswith("float"):
            return False
        try:
            _pooled(strip(self.teacher), 2)
        except (ValueError, TypeError):
            return False
        return True


def samples(
    make: Callable[[Any], Any], seed: int, most: int, most_tries: int
) -> Iterator[tuple[OfUser, str | None]]:
    """Members of a user's family, each once, drawn at random from the ranges of its parameters.

    Args:
        make: a function of `keras_tuner.HyperParameters` that returns a model.
        seed: of the draws, and of the weights that members begin with.
        most: how many are drawn.
        most_tries: how many draws may give a member that was drawn before.

    Yields:
        The member, and why it cannot be built, or None.
    """
    space = tuner().HyperParameters()
    checked(make(space))
    random = np.random.default_rng(seed)
    seen = set()
    tries = 0
    while len(seen) < most and tries < most_tries:
        tries += 1
        drawn = tuner().HyperParameters()
        drawn.values = {
            each.name: each.random_sample(int(random.integers(2**31))) for each in space.space
        }
        reason = None
        try:
            checked(make(drawn))
        except (ValueError, TypeError) as error:
            reason = one_line(error)
        # Which parameters there are may depend on the values of others: known after a build.
        space.merge(drawn)
        used = {each.name: drawn.values[each.name] for each in drawn.space}
        member = OfUser(make, used, seed % 2**32)
        if member.name not in seen:
            seen.add(member.name)
            yield member, reason


def tuner() -> Any:
    """The package `keras_tuner`.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        import keras_tuner
    except ModuleNotFoundError as error:
        raise problem(
            "a family of students without keras-tuner",
            "KerasTuner, whose HyperParameters the function takes",
            "pip install 'keras-kd[tuning]'",
            kind=ModuleNotFoundError,
        ) from error
    return keras_tuner


def checked(model: Any) -> keras.Model:
    """What a user's function returned, if it is a Keras 3 model.

    Raises:
        TypeError: if it is not.
        ValueError: if it is not built.
    """
    if not isinstance(model, keras.Model):
        raise problem(
            f"a student of type {type(model).__name__}",
            "a keras.Model from the function given as student",
            "return the model from the function",
            kind=TypeError,
        )
    graphs.read(model)
    return model


def readable(teacher: Any) -> graphs.Graph:
    """The graph of a teacher in Keras 3.

    Raises:
        ValueError: if it is a subclassed model, whose layers cannot be made narrower.
    """
    try:
        return graphs.read(strip(teacher))
    except ValueError as error:
        raise problem(
            f"the teacher {teacher.name!r}, of which no smaller form can be made "
            f"({one_line(error)[:200]})",
            "a Sequential or Functional teacher, or a family of students",
            "pass student=build, a function of keras_tuner.HyperParameters",
        ) from error


def check_narrowable(teacher: Any, channels: Channels) -> None:
    """Refuse a teacher of which no layer can be made narrower.

    Raises:
        ValueError: naming the layers that keep all their channels.
    """
    if channels.blocks():
        return
    graph = channels.graph
    names = graph.names()
    fixed = [
        f"{names[id(layer)]!r} ({type(layer).__name__})"
        for layer in graph.layers()
        if (row := row_of(type(layer))) is None or row.kernels or row.parts or layer.weights
    ]
    raise problem(
        f"the teacher {teacher.name!r}, in which no layer can be made narrower: "
        f"{', '.join(fixed) or 'it has no layer with weights'}",
        "hidden Dense or convolution layers whose readers treat each channel by itself",
        "pass student=build, a function of keras_tuner.HyperParameters that returns a model",
    )


def _narrowed(student: keras.Model, width: float, tilt: float) -> keras.Model:
    channels = channels_of(graphs.read(student))
    scores = group_scores(channels, "l1")
    blocks = channels.blocks()
    position = _positions(channels)
    removed: set[int] = set()
    for writers, groups in blocks.items():
        share = min(1.0, width * tilt ** position[writers])
        kept = max(min(_MINIMUM, len(groups)), math.ceil(len(groups) * share - 1e-9))
        removed.update(sorted(groups, key=scores.__getitem__, reverse=True)[kept:])
    return channels.without(removed, record_of)


def _positions(channels: Channels) -> dict[frozenset[int], float]:
    """Where layers that become narrower together stand: -0.5 the first of them, 0.5 the last."""
    place = {id(layer): number for number, layer in enumerate(channels.graph.layers())}
    order = sorted(channels.blocks(), key=lambda writers: min(place[key] for key in writers))
    last = max(1, len(order) - 1)
    return {
        writers: number / last - 0.5 if len(order) > 1 else 0.0
        for number, writers in enumerate(order)
    }


def _pooled(student: keras.Model, factor: int) -> keras.Model:
    """The student behind an average over its input."""
    graph = graphs.read(student)
    [spec] = graph.input_specs
    inputs = keras.Input(spec.shape[1:], spec.shape[0], dtype=spec.dtype, name=spec.name)
    pooling = _POOLING[len(spec.shape)](factor, name="smaller_input")
    names = graph.names()
    records = {id(layer): record_of(layer) for layer in graph.layers()}
    made = {}
    for key, record in records.items():
        values = {**vars(record), "name": names[key]}
        made[key] = [make_layer(type(record)(**values))]
    tensors = {spec.slot: pooling(inputs)}
    for _ in graphs.steps(graph, made, tensors):
        pass
    outputs = keras.tree.map_structure(
        lambda leaf: tensors[leaf] if isinstance(leaf, graphs.Slot) else leaf, graph.outputs
    )
    model = keras.Model(inputs, outputs, name=student.name)
    for key, record in records.items():
        for name, weight in named_weights(made[key][0]).items():
            value = record.weights.get(name)
            if value is not None and tuple(weight.shape) == value.shape:
                weight.assign(value)
    return model


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def with_distinct_values(student: keras.Model, seed: int) -> keras.Model:
    """A copy of a student whose weights all differ a little, as after training.

    A file stores equal buffers once, such as biases that are all zero.
    """
    copy = keras.models.clone_model(student)
    copy.set_weights(student.get_weights())
    random = np.random.default_rng(seed)
    for weight in copy.weights:
        value = np.asarray(weight)
        if not np.issubdtype(value.dtype, np.floating):
            continue
        # Variances stay above 0, and nothing becomes so large that outputs lose their meaning.
        scale = 0.05 * (float(np.std(value)) or max(float(np.abs(value).mean()), 0.1))
        noise = random.uniform(0, scale, value.shape)
        weight.assign((value + noise).astype(value.dtype))
    return copy
