"""Storing the outputs of a teacher."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_kd import _backends
from keras_kd._checks import check_choice, check_integer, problem
from keras_kd._distributions import JOINED, UNKNOWN
from keras_kd._limits import watched_batch
from keras_kd._logits import (
    OTHER_AXIS,
    Logits,
    could_be_probabilities,
    noting,
    recognise_logits,
    said_of_probabilities,
    suspicions,
)
from keras_kd.taps import Tapped
from keras_kd.teachers.base import Teacher
from keras_kd.teachers.inputs import Inputs
from keras_kd.teachers.stored.augmentation import Augmentation, marks
from keras_kd.teachers.stored.codecs import DTYPES, Dense, TopK
from keras_kd.teachers.stored.contents import Contents, Description, StoredOutput
from keras_kd.teachers.stored.examples import (
    Batch,
    Division,
    batches_of,
    names_of,
    number_of_examples,
    to_numpy,
)
from keras_kd.teachers.stored.identity import Keys, of_teacher
from keras_kd.teachers.stored.sink import Sink

LOGITS = "logits"
_MARKS = "marks of the augmented examples"
_USUAL_TEMPERATURES = (4.0,)


class About(NamedTuple):
    """What an output is beside its logits; see `StoredOutput`."""

    activation: str | None
    puts_out_logits: bool
    shares: tuple[float, ...] | None
    known: tuple[tuple[bool, ...], ...] | None
    classes: int | None = None


class Selection:
    """What of a teacher is stored, and how.

    Args:
        outputs: `"logits"`, the name of a layer, or a list of these.
        top_k: how many logits of a row are kept; `None`: all.
        dtype: how numbers are stored.
        temperatures: with `top_k`, those at which the mass of the other logits is kept; one number,
            several, or `None` for that of `SoftTargets()`.

    Raises:
        TypeError: if `outputs` are no names.
        ValueError: if there is none or one twice, the dtype is unknown, or there are temperatures
            without `top_k`.
    """

    def __init__(
        self,
        outputs: str | Sequence[str],
        top_k: int | None,
        dtype: str,
        temperatures: float | Sequence[float] | None,
    ) -> None:
        names = [outputs] if isinstance(outputs, str) else outputs
        if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
            raise problem(
                f"outputs={outputs!r:.100}",
                "'logits', the name of a layer, or a list of these",
                "pass for example outputs=['logits', 'block3']",
                kind=TypeError,
            )
        if not names or len(set(names)) < len(names):
            raise problem(
                f"outputs={outputs!r}", "at least one name, and each once", "correct them"
            )
        self.has_outputs = LOGITS in names
        self.layers = [name for name in names if name != LOGITS]
        if top_k is not None and not self.has_outputs:
            raise problem(
                f"top_k={top_k} for outputs={list(names)}",
                "'logits' among the outputs: features are stored whole",
                "leave out top_k, or add 'logits'",
            )
        if temperatures is not None and top_k is None:
            raise problem(
                f"temperatures={temperatures} without top_k",
                "no temperature: with all logits stored, any can be applied later",
                "leave it out, or pass top_k=16, for example",
            )
        self._top_k = top_k
        self._dtype = check_choice("dtype", dtype, DTYPES)
        self._temperatures = _USUAL_TEMPERATURES if temperatures is None else temperatures

    def feature(self, name: str, shape: Sequence[int]) -> Dense:
        """How the features of a layer are stored."""
        return Dense(name, tuple(shape), self._dtype)

    def output(self, name: str, shape: Sequence[int], about: About) -> StoredOutput:
        """How an output is stored.

        Raises:
            ValueError: if its logits cannot be, or not its `top_k` largest.
        """
        if about.activation == OTHER_AXIS:
            raise problem(
                f"an output from a {OTHER_AXIS}",
                "the classes on the last axis",
                "put keras.layers.Permute and a softmax over the last axis at the model's end",
            )
        if self._top_k is None:
            return StoredOutput(Dense(name, tuple(shape), self._dtype), *about)
        kinds = [
            *(["several teachers, each with its own"] if about.shares is not None else []),
            *(["a sigmoid"] if about.activation == "sigmoid" else []),
            *([f"a softmax for every {about.classes} of them"] if about.classes else []),
        ]
        if kinds:
            kind = kinds[0]
            raise problem(
                f"top_k={self._top_k} for logits of {kind}",
                "one distribution over the classes",
                "leave out top_k; dtype='uint8' stores them in few bytes",
            )
        given = self._temperatures
        temperatures = tuple(given) if isinstance(given, Sequence) else (given,)
        codec = TopK(name, tuple(shape), self._top_k, self._dtype, temperatures)
        return StoredOutput(codec, *about)


class TeacherRun:
    """A teacher that runs batch by batch, in one compiled forward pass.

    Args:
        teacher: the teacher.
        inputs: which part of the inputs it sees.
        selection: what of it is stored.
        augmentation: makes its inputs from the examples; `None`: the examples themselves.

    Raises:
        ValueError: if the teacher has no such layers, or needs the outputs of a student.
    """

    def __init__(
        self,
        teacher: Teacher,
        inputs: Inputs,
        selection: Selection,
        augmentation: Augmentation | None = None,
    ) -> None:
        if teacher.brings_outputs:
            raise problem(
                f"the stored teacher {teacher.name!r} to store",
                "a teacher that computes its outputs",
                "use the store that there is",
            )
        self.teacher = teacher
        self.inputs = inputs
        self._selection = selection
        self.augmentation = augmentation
        self._function = _backends.compiled(self._forward)
        # What a trace has seen, for what is stored of it.
        self._structure: Any = None
        self._names: Any = None
        self._about: list[About] = []
        self._origins: dict[str, str] = {}
        teacher.tap(selection.layers)

    def contents(self, x: Any, keys: np.ndarray) -> Contents:
        """How the teacher's outputs for such a batch are stored.

        Args:
            x: the inputs, a structure of arrays.
            keys: int64 array of shape `(batch,)`.

        Raises:
            ValueError: if it cannot be stored.
        """
        results = self._outputs(x, keys, 0)
        selection = self._selection
        features = {
            name: selection.feature(name, results[name].shape[1:]) for name in selection.layers
        }
        if not selection.has_outputs:
            return Contents(None, features)
        outputs = []
        for name, about in zip(keras.tree.flatten(self._names), self._about, strict=True):
            outputs.append(selection.output(name, results[name].shape[1:], about))
            if about.activation is None:
                self._check_logits(results[name], self._origins[name])
        return Contents(keras.tree.pack_sequence_as(self._names, outputs), features)

    def __call__(self, x: Any, keys: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """The teacher's outputs for a batch.

        Args:
            x: the inputs, a structure of arrays.
            keys: int64 array of shape `(batch,)`.

        Returns:
            By the name of each codec an array of shape `(batch * versions, ...)`, and the marks of
            the augmented examples, of shape `(batch * versions,)`, or `None`.
        """
        versions = 1 if self.augmentation is None else self.augmentation.versions
        each = [self._outputs(x, keys, version) for version in range(versions)]
        tensors = {
            name: np.stack([one[name] for one in each], axis=1).reshape(-1, *values.shape[1:])
            for name, values in each[0].items()
        }
        return tensors, tensors.pop(_MARKS, None)

    def _check_logits(self, values: np.ndarray, origin: str) -> None:
        """Warn of probabilities whose logits were not seen.

        Numbers from 0 to 1 of unknown origin may be any, and no loss is known yet.
        """
        seen = Logits(values, None, origin=origin)
        if not could_be_probabilities(seen):
            return
        rows, entries = suspicions(values, seen)
        if origin == JOINED or any(rows) or (origin != UNKNOWN and any(entries)):
            kind = "joined" if origin == JOINED else "rows" if any(rows) else "entries"
            warnings.warn(said_of_probabilities("teacher", self.teacher.name, kind), stacklevel=4)

    def _outputs(self, x: Any, keys: np.ndarray, version: int) -> dict[str, np.ndarray]:
        if not _backends.is_tensorflow():
            return self._ask_arrays(x, keys, version)
        import tensorflow as tf

        self._structure = x
        tensors = [tf.convert_to_tensor(part) for part in keras.tree.flatten(x)]
        if self.augmentation is not None:
            tensors.append(tf.constant(self.augmentation.seeds(keys, version)))
        # One trace for batches of all sizes.
        specs = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in tensors]
        with watched_batch(self.teacher.name, len(keys)):
            results = self._function.get_concrete_function(*specs)(*tensors)
            return {name: values.numpy() for name, values in results.items()}

    def _ask_arrays(self, x: Any, keys: np.ndarray, version: int) -> dict[str, np.ndarray]:
        """The same on JAX and PyTorch, where examples are augmented before they are tensors."""
        marked: dict[str, Any] = {}
        if self.augmentation is not None:
            x = self.augmentation(x, self.augmentation.seeds(keys, version))
            marked = {_MARKS: marks(self.inputs.of_student(x))}
        self._structure = x
        with watched_batch(self.teacher.name, len(keys)):
            results = self._function(*map(ops.convert_to_tensor, keras.tree.flatten(x)))
            found = {name: ops.convert_to_numpy(each) for name, each in results.items()}
        return {**found, **marked}

    def _forward(self, *tensors: Any) -> dict[str, Any]:
        parts = list(tensors)
        # Elsewhere the examples come augmented.
        augmentation = self.augmentation if _backends.is_tensorflow() else None
        seeds = None if augmentation is None else parts.pop()
        x = keras.tree.pack_sequence_as(self._structure, parts)
        if augmentation is not None:
            x = augmentation(x, seeds)
        with noting() as remember:
            results = self.teacher(self.inputs.of_teacher(x), Tapped(None, {}))
            remember(results.outputs)
        named = {name: results.features[name] for name in self._selection.layers}
        if self._selection.has_outputs:
            named |= self._logits(results.outputs)
        if augmentation is not None:
            named[_MARKS] = marks(self.inputs.of_student(x))
        return {name: ops.cast(tensor, "float32") for name, tensor in named.items()}

    def _logits(self, outputs: Any) -> dict[str, Any]:
        """The logits behind each output, those of the members of a mean, examples first."""
        self._names = _named(outputs, LOGITS)
        self._about = []
        logits = {}
        pairs = zip(keras.tree.flatten(self._names), keras.tree.flatten(outputs), strict=True)
        for name, output in pairs:
            seen = recognise_logits(output)
            activated = seen.activation is not None and seen.logits is not output
            shares = known = None
            if seen.members is not None:
                shares = tuple(np.asarray(seen.shares).tolist())
                known = None if seen.known is None else tuple(map(tuple, seen.known.tolist()))
            self._about.append(About(seen.activation, not activated, shares, known, seen.classes))
            self._origins[name] = seen.origin
            several = seen.members is not None
            logits[name] = ops.moveaxis(seen.members, 0, 1) if several else seen.logits
        return logits


def _named(outputs: Any, name: str) -> Any:
    """The structure of the outputs, with a name in place of each."""
    if isinstance(outputs, dict):
        return {key: _named(part, f"{name}/{key}") for key, part in outputs.items()}
    if isinstance(outputs, list | tuple):
        return type(outputs)(
            [_named(part, f"{name}/{number}") for number, part in enumerate(outputs)]
        )
    return name


def fill_store(
    run: TeacherRun, dataset: Any, path: str | os.PathLike, division: Division, batch_size: int
) -> None:
    """Store the outputs of a teacher for all examples; see `StoredTeacher.create`.

    Args:
        run: the teacher.
        dataset: arrays, a `tf.data.Dataset`, a `PyDataset` or an iterable of batches.
        path: the store.
        division: what of the inputs is the key.
        batch_size: how many examples of arrays are passed to the teacher at once.

    Raises:
        OSError: if the disk is full.
        ValueError: if the outputs cannot be stored, or there is another store at `path`.
    """
    check_integer("batch_size", batch_size, at_least=1, fix="use 256, for example")
    total = number_of_examples(dataset)
    batches = _divided(dataset, batch_size, division)
    first = next(batches, None)
    if first is None:
        raise problem("a dataset without examples", "at least one", "check the data")
    key, augmentation = division.key, run.augmentation
    kind = "position" if key is None else Keys.of(first.key).kind
    integers = _integers(first, kind, 0)
    if augmentation is not None:
        augmentation.check_repeatable(first.x, integers)
    description = Description(
        contents=run.contents(first.x, integers),
        teacher=run.teacher.name,
        digest=of_teacher(run.teacher),
        key_kind=kind,
        key_name=key,
        teacher_inputs=names_of(run.inputs.teacher_inputs),
        versions=1 if augmentation is None else augmentation.versions,
        seed=None if augmentation is None else augmentation.seed,
    )
    with Sink(path, description, total) as sink:
        _fill(sink, chain([first], batches), run)


def _divided(dataset: Any, batch_size: int, division: Division) -> Iterator[Batch]:
    for batch in batches_of(dataset, batch_size):
        divided = division(batch)
        key = None if divided.key is None else np.asarray(divided.key)
        yield Batch(to_numpy(divided.x), key=key)


def _integers(batch: Batch, kind: str, position: int) -> np.ndarray:
    """The keys as numbers; positions where there are none."""
    if batch.key is None:
        return position + np.arange(batch.count)
    return Keys(kind).to_integers(batch.key)


def _fill(sink: Sink, batches: Iterator[Batch], run: TeacherRun) -> None:
    for batch in batches:
        # The student's inputs identify the examples.
        own = keras.tree.flatten(run.inputs.of_student(batch.x))
        if not sink.skip(len(own[0]), own, batch.key):
            keys = _integers(batch, sink.description.key_kind, sink.position)
            tensors, marked = run(batch.x, keys)
            sink.add(tensors, own, batch.key, marked)
        elif sink.complete:
            # Students' batches are compared with it example by example.
            return
    sink.finish()


def augmentation_of(
    function: Callable[[Any, Any], Any] | None, versions: int, seed: int
) -> Augmentation | None:
    """The augmentation of a function; `None` where there is none.

    Raises:
        ValueError: if there are several versions without a function.
    """
    if function is not None:
        return Augmentation(function, versions, seed)
    if versions != 1:
        raise problem(
            f"versions={versions!r} without augment",
            "one version of examples that are not augmented",
            "pass augment, a function of an example and a seed",
        )
    return None
