"""A teacher whose outputs are read from a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_kd._checks import check_integer, problem
from keras_kd.taps import Tapped
from keras_kd.teachers.base import Teacher
from keras_kd.teachers.ensemble import as_teacher
from keras_kd.teachers.inputs import ModelInputs
from keras_kd.teachers.stored.augmentation import Augmentation
from keras_kd.teachers.stored.contents import Description
from keras_kd.teachers.stored.database import Records
from keras_kd.teachers.stored.examples import Division
from keras_kd.teachers.stored.identity import Keys, of_teacher
from keras_kd.teachers.stored.lookup import SOURCE, Lookup, source_mark
from keras_kd.teachers.stored.outputs import Predictions, store_outputs
from keras_kd.teachers.stored.pipeline import join
from keras_kd.teachers.stored.storing import (
    LOGITS,
    Selection,
    TeacherRun,
    augmentation_of,
    fill_store,
)


@keras.saving.register_keras_serializable(package="keras_kd")
class StoredTeacher(Teacher):
    """Outputs of a teacher that were stored once, in the place of the teacher itself.

    `create` runs a teacher and stores its outputs, `from_outputs` stores outputs that you have. A
    step then costs what the student costs. `join` puts the outputs beside each example in the input
    pipeline; they are read from the disk as they are needed.

    Args:
        path: the store, a file.
        augment: the function with which the examples were augmented, where they were.
        teacher: the teacher that the store should be of, to make sure that it is; it is not kept.
        partial: whether a store that was not finished will do, for the examples that it has.
        name: for messages; the teacher's own by default.

    Attributes:
        path: the file.
        examples: how many examples there are.
        versions: how many augmented versions of each; 1 without augmentation.

    Raises:
        FileNotFoundError: if there is no store at `path`.
        ValueError: if it is damaged, not finished or of another teacher, or needs `augment`.

    Example:
        ```python
        stored = keras_kd.teachers.StoredTeacher("teacher.store")
        distiller = keras_kd.Distiller(stored, student)
        distiller.compile("adam", loss)
        distiller.fit(stored.join((x, y), batch_size=64), epochs=10)
        ```
    """

    brings_outputs = True

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        augment: Callable[[Any, Any], Any] | None = None,
        teacher: Any = None,
        partial: bool = False,
        name: str | None = None,
    ) -> None:
        self._records = Records(path)
        self.path = self._records.path
        self.partial = partial
        self._description = description = Description.from_json(self._records.description)
        self.name = name or description.teacher
        self.key_name = description.key_name
        self.versions = description.versions
        self.examples = self._records.count // description.versions
        self._check_whole()
        if teacher is not None:
            self._check_digest(teacher)
        self._augmentation = None
        if augment is not None:
            self._check_augmented()
            assert description.seed is not None
            self._augmentation = Augmentation(augment, description.versions, description.seed)

    @classmethod
    def create(
        cls,
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
        """Run a teacher once on every example and store its outputs.

        An interrupted call can be repeated; it resumes where it stopped. If the store is complete,
        the call returns at once.

        Args:
            teacher: what a `keras_kd.Distiller` takes as one. The members of an `Ensemble` are
                stored, so that it is exact at any temperature.
            dataset: arrays `(x, y)` or `(x,)`; a `tf.data.Dataset` of batches, a
                `keras.utils.PyDataset`, or an iterable of batches, as `fit` takes them. The
                examples come in the same order if the call is repeated. Labels and weights are left
                alone.
            path: the store, a file that is made.
            outputs: `"logits"`, the teacher's output (from behind a softmax or sigmoid; all outputs
                where it has several); or the name of a layer, as losses name it; or a list of
                these.
            top_k: how many of the largest logits are kept, with the exact mass of all others
                together, for `SoftTargets` and `SoftCrossEntropy`; `None`: all.
            dtype: `"float16"`; `"float32"`, which is exact; or `"uint8"`, 255 steps per row.
            temperatures: with `top_k`, those of the losses that will be used, one or several;
                `None`: 4, which is that of `SoftTargets()`.
            key: the entry of dict inputs that identifies an example in any order, an integer or a
                string; it is no input of either model. `None`: its position.
            teacher_inputs: the teacher's inputs, see `keras_kd.Distiller`.
            augment: a function `(x, seed)` of the inputs of one example and of an int32 seed of
                shape `(2,)` for the stateless operations of TensorFlow. Its result is the
                teacher's input, and `StoredTeacher.join` calls it again with the same seeds for
                the student.
            versions: how many augmented versions of each example are stored.
            seed: from which the seeds of all versions are made.
            batch_size: how many examples of arrays are passed to the teacher at once.

        Returns:
            The stored teacher, for a Distiller.

        Raises:
            OSError: if the disk is full; what was stored before stays.
            TypeError: if an argument is of a type that it cannot have.
            ValueError: if the teacher has no such layer, its outputs cannot be stored, or there is
                another store at `path`.

        Example:
            ```python
            StoredTeacher = keras_kd.teachers.StoredTeacher
            stored = StoredTeacher.create(teacher, (x, y), "teacher.store")
            distiller = keras_kd.Distiller(stored, student)
            distiller.compile("adam", loss)
            distiller.fit(stored.join((x, y), batch_size=64), epochs=10)
            ```

        References:
            Beyer et al.: Knowledge distillation: A good teacher is patient and consistent, CVPR
            2022.
            Shen, Xing: A Fast Knowledge Distillation Framework for Visual Recognition, ECCV 2022.
        """
        division = Division(key, teacher_inputs)
        run = TeacherRun(
            as_teacher(teacher),
            division.inputs,
            Selection(outputs, top_k, dtype, temperatures),
            augmentation_of(augment, versions, seed),
        )
        fill_store(run, dataset, path, division, batch_size)
        return cls(path, augment=augment)

    @classmethod
    def from_outputs(
        cls,
        outputs: Any,
        path: str | os.PathLike,
        *,
        x: Any = None,
        keys: Any = None,
        key: str = "key",
        top_k: int | None = None,
        dtype: str = "float16",
        temperatures: float | Sequence[float] | None = None,
        activation: str | None = None,
        name: str = "predictions",
        batch_size: int = 256,
    ) -> StoredTeacher:
        """Store outputs of a teacher that were computed elsewhere.

        An interrupted call can be repeated; it resumes where it stopped.

        Args:
            outputs: an array of logits, shaped (examples, ..., classes); a dict of arrays, in which
                `"logits"` is the teacher's output and every other name that of a layer, whose
                features it has; or an iterable of batches of either, or of pairs `(keys, batch)`.
                What can be sliced, such as a memory-mapped array, is read batch by batch.
            path: the store, a file that is made.
            x: the examples that were predicted, in the same order and as students
                will get them: an array, or a structure of arrays. A wrong pairing is then noticed
                later by a fingerprint of each example; without `x`, `StoredTeacher.join` can only
                check keys.
            keys: a key for each example, integers or texts; `None`: its position.
            key: the entry of the student's data that will be the key.
            top_k: as in `create`.
            dtype: as in `create`.
            temperatures: as in `create`.
            activation: `None` for logits; `"softmax"` or `"sigmoid"` where the predictions are
                probabilities. Their logits are stored, see `probabilities.logits_of`; a probability
                of 0 counts as 1.2e-38.
            name: the teacher's name, for messages.
            batch_size: how many examples of arrays are read at once.

        Returns:
            The stored teacher, for a Distiller.

        Raises:
            OSError: if the disk is full; what was written before is valid.
            TypeError: if the outputs are none of these.
            ValueError: if something cannot be stored, the lengths differ, logits look like
                probabilities, or there is another store at `path`.
        """
        store_outputs(
            Predictions(outputs, x, keys, batch_size),
            path,
            lambda names: Selection(names, top_k, dtype, temperatures),
            key=key,
            activation=activation,
            name=name,
        )
        return cls(path)

    def __repr__(self) -> str:
        """The path, and how much is there."""
        return f"<StoredTeacher {str(self.path)!r} of {self.name!r}: {self.examples} examples>"

    def __len__(self) -> int:
        """How many examples there are."""
        return self.examples

    def tap(self, layer_names: Sequence[str]) -> None:
        """Check that the features of these layers are stored.

        Raises:
            ValueError: if they are not.
        """
        stored = self._description.contents.features
        missing = [name for name in layer_names if name not in stored]
        if missing:
            raise problem(
                f"the layer names {missing} for the store {str(self.path)!r}, which has the "
                f"layers {list(stored)}",
                "layers whose features are stored",
                "store them too: StoredTeacher.create(teacher, dataset, path, "
                f"outputs={['logits', *stored, *missing]})",
            )

    def shapes(self, student: Tapped | None) -> Tapped | None:
        """The stored outputs and features."""
        return self._description.contents.shapes()

    def __call__(self, inputs: Any, student: Tapped | None) -> Tapped:
        """The stored outputs.

        Args:
            inputs: what `join` puts beside the examples.
            student: not needed.

        Raises:
            ValueError: if another teacher's store was joined with the examples.
        """
        own = source_mark(self._description)
        sources = [name for name in inputs if name.startswith(SOURCE)]
        if sources and own not in sources:
            raise problem(
                f"examples with outputs {', '.join(sources)}, for a distiller whose teacher has "
                f"outputs {own}",
                "the outputs of its own teacher",
                "join the data with the store that the distiller was made with",
            )
        return self._description.contents.rebuilt(inputs)

    def join(
        self,
        dataset: Any,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        verify: bool = True,
        *,
        key: str | None = None,
    ) -> Any:
        """Put the teacher's outputs beside each example.

        With keys the examples may come in any order, some of them or all, any number of times.
        Without keys they come in the order in which they were stored; shuffle what is returned, or
        pass arrays, which are shuffled here.

        Of augmented examples each visit gets the next version, all of them before one comes again;
        in a `PyDataset` all visits of an epoch get the same.

        Args:
            dataset: what `fit` takes as data: arrays `(x, y)` or `(x,)`, a `tf.data.Dataset` of
                batches, a `keras.utils.PyDataset`, or a generator of batches.
            batch_size: of arrays, 32 by default; a `tf.data.Dataset` gets other batches if it is
                given.
            shuffle: whether arrays come in another order in each epoch.
            seed: makes this order the same in each run.
            verify: whether the fingerprint of each example is compared with the stored one.
            key: the entry of dict inputs that is the key, if it is not the one of `create`.

        Returns:
            A `tf.data.Dataset`, a `PyDataset` or a generator for `fit` of a Distiller. A batch
            raises an error that names its examples, if they have no stored outputs, or their
            inputs differ from those that were stored.

        Raises:
            TypeError: if the dataset is nothing that `fit` takes.
            ValueError: if the examples have no key although the store has, or were augmented and
                the store was opened without `augment`.
        """
        self._check_augment()
        if batch_size is not None and np.ndim(batch_size) > 0:
            raise problem(
                "inputs and labels as two arguments",
                "one, as the elements of a tf.data.Dataset are",
                "put them into a tuple: join((x, y), batch_size=64)",
                kind=TypeError,
            )
        lookup = self._lookup(self._augmentation, verify=verify, key=key)
        if batch_size is not None:
            check_integer("batch_size", batch_size, at_least=1, fix="use 32, for example")
        return join(dataset, lookup, batch_size, shuffle, seed)

    def read(self, keys: Any, version: int = 0) -> dict[str, np.ndarray]:
        """The stored outputs for some examples.

        Args:
            keys: their keys; their positions, where they have none.
            version: which of the augmented versions.

        Returns:
            By `"logits"` (`"logits/name"` of one of several outputs) or the name of a layer an
            array of shape `(examples, ...)`; with `top_k` three arrays `"logits:values"`,
            `"logits:classes"` and `"logits:rest"`, see `codecs.TopK.decode`.

        Raises:
            ValueError: if nothing is stored of a key, there is no such version, or a record is
                damaged.
        """
        number = check_integer("version", version, at_least=0, fix="use 0")
        if number >= self.versions:
            raise problem(f"version={version}", f"one of {self.versions} versions", "use 0")
        keys = np.asarray(keys).reshape(-1)
        arrays = self._lookup().outputs(keys, versions=number)
        plain = {f"{codec.name}:values" for codec in self._description.contents.codecs}
        plain -= {name for name in plain if name.replace(":values", ":classes") in arrays}
        return {
            name.removesuffix(":values") if name in plain else name: values
            for name, values in arrays.items()
        }

    def seeds(self, keys: Any, version: int = 0) -> np.ndarray:
        """The seeds with which some examples were augmented.

        Args:
            keys: as in `read`.
            version: as in `read`.

        Returns:
            int32 array of shape `(examples, 2)`.

        Raises:
            ValueError: if the store was opened without `augment`.
        """
        if self._augmentation is None:
            raise problem(
                "seeds of a store that was opened without augment",
                "a store of augmented examples, opened with their function",
                "open it with StoredTeacher(path, augment=function)",
            )
        keys = Keys(self._description.key_kind).to_integers(np.asarray(keys).reshape(-1))
        return self._augmentation.seeds(keys, version)

    def verify(self) -> None:
        """Read everything and compare all checksums.

        Raises:
            ValueError: naming what is damaged.
        """
        self._records.verify()

    def get_config(self) -> dict[str, Any]:
        """The path; the outputs stay where they are."""
        return {"path": str(self.path), "partial": self.partial, "name": self.name}

    def _lookup(self, *arguments: Any, **options: Any) -> Lookup:
        return Lookup(self._records, self._description, *arguments, **options)

    def _check_whole(self) -> None:
        if self._records.has_keys != self._description.has_keys:
            raise self._records.damaged("keys in only one of its description and its table")
        if self._records.complete or (self.partial and self.examples):
            return
        raise problem(
            f"the store {str(self.path)!r}, which was not finished: it has the first "
            f"{self.examples} examples",
            "a store of all examples",
            "repeat the call of StoredTeacher.create, which resumes there; or pass "
            f"partial=True, and join the examples that it has, x[:{self.examples}]",
        )

    def _check_digest(self, teacher: Any) -> None:
        digest = of_teacher(as_teacher(teacher))
        if digest != self._description.digest:
            raise problem(
                f"a teacher with the weights {digest}, for the store {str(self.path)!r} of "
                f"{self._description.teacher!r} with the weights {self._description.digest}",
                "the teacher whose outputs are stored",
                "store the outputs of this teacher at another path",
            )

    def _check_augmented(self) -> None:
        if self._description.seed is None:
            raise problem(
                f"augment for the store {str(self.path)!r} of examples as they are",
                "no augmentation, as when the outputs were stored",
                "leave it out, or store the outputs with augment",
            )

    def _check_augment(self) -> None:
        if self._description.seed is not None and self._augmentation is None:
            raise problem(
                f"the store {str(self.path)!r} of augmented examples without augment",
                "the function that augmented them",
                "open it with StoredTeacher(path, augment=function)",
            )
