"""A teacher that is asked once, so that its students need not ask it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd._checks import check_integer, problem
from keras_kd.teachers.convert import as_teacher
from keras_kd.teachers.inputs import ModelInputs
from keras_kd.teachers.stored import fingerprint
from keras_kd.teachers.stored.asking import LOGITS, Asked, Selection
from keras_kd.teachers.stored.augmentation import Augmentation
from keras_kd.teachers.stored.description import Description
from keras_kd.teachers.stored.examples import (
    Division,
    batches_of,
    names_of,
    number_of_examples,
    to_numpy,
)
from keras_kd.teachers.stored.keys import Keys
from keras_kd.teachers.stored.sink import Sink
from keras_kd.teachers.stored.teacher import StoredTeacher


def store(
    teacher: Any,
    dataset: Any,
    path: str | os.PathLike,
    outputs: str | Sequence[str] = LOGITS,
    top_k: int | None = None,
    dtype: str = "float16",
    *,
    temperatures: float | Sequence[float] | None = None,
    key: str | None = None,
    teacher_inputs: ModelInputs = None,
    augment: Callable[[Any, Any], Any] | None = None,
    versions: int = 1,
    seed: int = 0,
    batch_size: int = 256,
) -> StoredTeacher:
    """Ask a teacher about every example once, and write down what it says.

    If this is interrupted, by whatever, the same call goes on where it stopped. If it was complete,
    it returns at once.

    Args:
        teacher: what a `keras_kd.Distiller` takes as one. The members of an `Ensemble` are stored,
            so that it is exact at any temperature.
        dataset: arrays `(x, y)` or `(x,)`; a `tf.data.Dataset` of batches, a
            `keras.utils.PyDataset`, or an iterable of batches, as `fit` takes them. The examples
            come in the same order if the call is repeated. Labels and weights are left alone.
        path: the directory of the store; it is made.
        outputs: `"logits"`, what the teacher puts out (from behind a softmax or sigmoid; all
            outputs where it has several); or the name of a layer, as losses name it; or a list of
            these.
        top_k: how many of the largest logits are kept, with the exact mass of all others together,
            for `SoftTargets` and `SoftCrossEntropy`; `None`: all.
        dtype: `"float16"`; `"float32"`, which is exact; or `"uint8"`, 255 steps per row.
        temperatures: with `top_k`, those of the losses that will be used, one or several; `None`:
            4, which is that of `SoftTargets()`.
        key: the entry of dict inputs by which an example is known in any order, an integer or a
            string; neither teacher nor student sees it. `None`: its position.
        teacher_inputs: what the teacher sees, see `keras_kd.Distiller`.
        augment: a function `(x, seed)` of the inputs of one example and of an int32 seed of shape
            `(2,)` for the stateless operations of TensorFlow. The teacher sees what it returns, and
            `StoredTeacher.join` calls it again with the same seeds for the student.
        versions: how many augmented versions of each example are stored.
        seed: from which the seeds of all versions are made.
        batch_size: how many examples of arrays the teacher gets at once.

    Returns:
        The stored teacher, for a Distiller.

    Raises:
        OSError: if the disk is full; what was stored before stays.
        TypeError: if an argument is of a type that it cannot have.
        ValueError: if the teacher has no such layer, says something that cannot be stored, or the
            store at `path` is another one.

    Example:
        ```python
        stored = keras_kd.teachers.store(teacher, (x, y), "teacher.store")
        distiller = keras_kd.Distiller(stored, student)
        distiller.compile("adam", loss)
        distiller.fit(stored.join((x, y), batch_size=64), epochs=10)
        ```

    References:
        Beyer et al.: Knowledge distillation: A good teacher is patient and consistent, CVPR 2022.
        Shen, Xing: A Fast Knowledge Distillation Framework for Visual Recognition, ECCV 2022.
    """
    check_integer("batch_size", batch_size, at_least=1, fix="use 256, for example")
    division = Division(key, teacher_inputs)
    augmentation = _augmentation(augment, versions, seed)
    asked = Asked(
        as_teacher(teacher),
        division.inputs,
        Selection(outputs, top_k, dtype, temperatures),
        augmentation,
    )
    total = number_of_examples(dataset)
    batches = _divided(dataset, batch_size, division)
    first = next(batches, None)
    if first is None:
        raise ValueError(problem("a dataset without examples", "at least one", "check the data"))
    kind = "position" if key is None else Keys.of(first.key).kind
    if augmentation is not None:
        augmentation.check_repeatable(first.x, first.integers(Keys(kind), 0))
    description = Description(
        contents=asked.contents(first.x, first.integers(Keys(kind), 0)),
        teacher=asked.teacher.name,
        digest=fingerprint.of_teacher(asked.teacher),
        key_kind=kind,
        key_name=key,
        teacher_inputs=names_of(teacher_inputs),
        versions=versions,
        seed=None if augmentation is None else seed,
    )
    with Sink(path, description, total) as sink:
        _fill(sink, chain([first], batches), asked)
    return StoredTeacher(path, augment=augment)


class _Batch(NamedTuple):
    """Some successive examples.

    Attributes:
        key: one per example, or `None`.
        x: what student and teacher see, a structure of arrays.
        of_student: the leaves of what the student sees, which are what tells the examples apart.
    """

    key: Any
    x: Any
    of_student: list[np.ndarray]

    @property
    def count(self) -> int:
        return len(self.of_student[0])

    def integers(self, keys: Keys, position: int) -> np.ndarray:
        """The keys as numbers; positions where there are none."""
        if self.key is None:
            return position + np.arange(self.count)
        return keys.to_integers(self.key)


def _divided(dataset: Any, batch_size: int, division: Division) -> Iterator[_Batch]:
    for batch in batches_of(dataset, batch_size):
        key, x = division(keras.utils.unpack_x_y_sample_weight(batch)[0])
        x = to_numpy(x)
        key = None if key is None else np.asarray(key)
        yield _Batch(key, x, keras.tree.flatten(division.inputs.of_student(x)))


def _fill(sink: Sink, batches: Iterator[_Batch], asked: Asked) -> None:
    keys = Keys(sink.description.key_kind)
    for batch in batches:
        if not sink.skip(batch.count, batch.of_student, batch.key):
            tensors, marks = asked(batch.x, batch.integers(keys, sink.position))
            sink.add(tensors, batch.of_student, batch.key, marks)
        elif sink.complete:
            # Students' batches are compared with it example by example.
            return
    sink.finish()


def _augmentation(
    function: Callable[[Any, Any], Any] | None, versions: int, seed: int
) -> Augmentation | None:
    if function is not None:
        return Augmentation(function, versions, seed)
    if versions != 1:
        raise ValueError(
            problem(
                f"versions={versions!r} without augment",
                "one version of examples that are not augmented",
                "pass augment, a function of an example and a seed",
            )
        )
    return None
