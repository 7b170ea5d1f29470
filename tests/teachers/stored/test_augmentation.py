"""Augmented examples get the outputs of the same augmentation."""

from itertools import groupby

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.losses import SoftTargets
from keras_kd.teachers import StoredTeacher
from keras_kd.teachers.joined import STUDENT_INPUTS, TEACHER_OUTPUTS
from keras_kd.teachers.stored.augmentation import Augmentation, Visits, marks, seeds

VALUES = "logits:values"


def noise(x, seed):
    return x + tf.random.stateless_normal(tf.shape(x), seed)


def other_noise(x, seed):
    return x + 1.1 * tf.random.stateless_normal(tf.shape(x), seed)


def random_noise(x, seed):
    return x + tf.random.normal(tf.shape(x))


@pytest.fixture
def stored(teacher, examples, tmp_path):
    return StoredTeacher.create(
        teacher, examples, tmp_path / "s", augment=noise, versions=3, seed=5, dtype="float32"
    )


def test_seeds_are_what_is_documented():
    def split_mix(state):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    # The first numbers of SplitMix64 with the seed 0 (Vigna, splitmix64.c).
    assert split_mix(0) == 0xE220A8397B1DCDAF
    keys, versions = np.array([0, 1, -7, 2**62]), np.array([0, 3, 1, 2])
    expected = [
        split_mix(split_mix(split_mix(9) ^ (int(key) % 2**64)) ^ int(version))
        for key, version in zip(keys, versions, strict=True)
    ]
    result = seeds(9, keys, versions)
    assert result.dtype == np.int32
    assert result.view("<u8")[:, 0].tolist() == expected


def test_seeds_differ():
    keys = np.repeat(np.arange(1000), 4)
    result = seeds(0, keys, np.tile(np.arange(4), 1000))
    assert len({tuple(row) for row in result.tolist()}) == 4000
    assert not np.array_equal(result, seeds(1, keys, np.tile(np.arange(4), 1000)))


def test_the_function_is_called_for_each_example():
    def cut(x, seed):
        start = tf.random.stateless_uniform((), seed, 0, 3, "int32")
        return {"image": x["image"][start : start + 2], "word": x["word"]}

    augmentation = Augmentation(cut, 2, 1)
    x = {"image": np.arange(20.0).reshape(4, 5), "word": np.array([b"a", b"b", b"c", b"d"])}
    own = augmentation.seeds(np.arange(4), 1)
    result = augmentation(x, own)
    assert result["image"].shape == (4, 2)
    assert result["word"].numpy().tolist() == [b"a", b"b", b"c", b"d"]
    for row in range(4):
        one = {name: part[row : row + 1] for name, part in x.items()}
        alone = augmentation(one, own[row : row + 1])
        np.testing.assert_array_equal(alone["image"][0], result["image"][row])


def test_batches_of_many_sizes_take_two_traces():
    traces = []

    def function(x, seed):
        traces.append(x.shape)
        return x

    augmentation = Augmentation(function)
    for size in (4, 3, 5, 4):
        augmentation(np.zeros((size, 2)), np.zeros((size, 2), "int32"))
    assert traces == [(2,)]


def test_marks_tell_augmentations_apart():
    x = tf.random.stateless_uniform((6, 32, 32, 3), (0, 1))
    own = marks(x).numpy()
    assert own.shape == (6,)
    assert np.abs(own).max() < 1
    changes = [tf.reverse(x, [2]), tf.roll(x, 1, 1), 1 - x, x[::-1]]
    assert min(np.median(np.abs(marks(change) - own)) for change in changes) > 1e-3
    np.testing.assert_allclose(marks(x + 1e-6), own, atol=1e-5)
    np.testing.assert_array_equal(marks({"a": tf.constant(["x", "y"])}), [0, 0])


def test_every_version_comes_once_before_any_repeats():
    visits = Visits(5, 3)
    assert visits.next_versions(np.array([1, 1, 4])).tolist() == [0, 1, 0]
    assert visits.next_versions(np.array([4, 1, 0, 1])).tolist() == [1, 2, 0, 0]
    counts = [visits.next_versions(np.arange(5)) for _ in range(300)]
    for first in range(0, 300, 3):
        np.testing.assert_array_equal(np.sort(counts[first : first + 3], axis=0)[:, 2], [0, 1, 2])


def epoch(batches):
    """The student's inputs and the teacher's outputs of an epoch, by the example's label."""
    x, outputs, y = zip(
        *((j[STUDENT_INPUTS], j[TEACHER_OUTPUTS][VALUES], y) for j, y in batches), strict=True
    )
    order = np.argsort(np.concatenate(y))
    return np.concatenate(x)[order], np.concatenate(outputs)[order]


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, **options):
        super().__init__(**options)
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return self.x[6 * number :][:6], self.y[6 * number :][:6]


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("form", ["arrays", "tf.data", "PyDataset", "generator"])
def test_outputs_are_those_of_the_same_augmentation(form, stored, teacher, examples):
    x, numbers = examples[0], np.arange(20)
    if form == "arrays":
        batches = stored.join((x, numbers), batch_size=7)
    elif form == "tf.data":
        batches = stored.join(tf.data.Dataset.from_tensor_slices((x, numbers)).batch(7))
    elif form == "PyDataset":
        batches = stored.join(Batches(x, numbers, workers=2))
    else:
        batches = stored.join(
            (x[i : i + 6], numbers[i : i + 6]) for _ in range(4) for i in range(0, 20, 6)
        )
        batches = list(batches)
    seen = []
    for number in range(4):
        if form == "PyDataset":
            batches.on_epoch_begin()
            inputs, outputs = epoch(batches[place] for place in range(4))
            batches.on_epoch_end()
        elif form == "generator":
            inputs, outputs = epoch(batches[4 * number : 4 * number + 4])
        else:
            inputs, outputs = epoch(batches)
        np.testing.assert_allclose(outputs, teacher.predict(inputs, verbose=0), atol=1e-5)
        np.testing.assert_allclose(
            outputs, stored.read(numbers, version=number % 3)["logits"], atol=1e-6
        )
        own = stored.seeds(numbers, version=number % 3)
        np.testing.assert_allclose(
            inputs, np.stack([noise(*pair) for pair in zip(x, own, strict=True)]), atol=1e-6
        )
        seen.append(inputs)
    np.testing.assert_array_equal(seen[3], seen[0])
    assert all(np.abs(seen[0] - other).min(axis=1).max() > 0 for other in seen[1:3])


def test_keys_and_the_part_of_the_teacher(teacher, examples, tmp_path):
    x, y = examples

    def both(x, seed):
        return {"small": x["small"], "large": noise(x["large"], seed)}

    inputs = {"small": x[:, :2], "large": x, "key": np.array([f"n{i}" for i in range(20)])}
    stored = StoredTeacher.create(
        teacher,
        (inputs, y),
        tmp_path / "s",
        key="key",
        teacher_inputs="large",
        augment=both,
        versions=2,
        dtype="float32",
    )
    joined, _ = next(iter(stored.join((inputs, y), 20, shuffle=False)))
    np.testing.assert_array_equal(joined[STUDENT_INPUTS], x[:, :2])
    changed = np.stack([noise(*pair) for pair in zip(x, stored.seeds(inputs["key"]), strict=True)])
    np.testing.assert_allclose(
        joined[TEACHER_OUTPUTS][VALUES], teacher.predict(changed, verbose=0), atol=1e-5
    )


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("function", [other_noise, random_noise, lambda x, seed: x])
def test_another_function_is_refused(function, stored, examples):
    other = StoredTeacher(stored.path, augment=function)
    with pytest.raises(tf.errors.InvalidArgumentError, match="augment changed differently"):
        next(iter(other.join(examples)))
    with pytest.raises(ValueError, match=r"augment changed differently.*stateless"):
        next(other.join(iter([examples])))


def test_a_store_of_augmented_examples_needs_its_function(stored, teacher, examples, tmp_path):
    again = StoredTeacher(stored.path)
    assert (again.versions, len(again)) == (3, 20)
    assert again.read([0], version=2)["logits"].shape == (1, 3)
    with pytest.raises(ValueError, match="augmented examples without augment"):
        again.join(examples)
    with pytest.raises(ValueError, match="seeds of a store that was opened without augment"):
        again.seeds([0])
    with pytest.raises(ValueError, match=r"version=3.*one of 3 versions"):
        again.read([0], version=3)
    plain = StoredTeacher.create(teacher, examples, tmp_path / "p")
    with pytest.raises(ValueError, match=r"augment for the store .* of examples as they are"):
        StoredTeacher(plain.path, augment=noise)
    with pytest.raises(ValueError, match="use_multiprocessing=True for augmented examples"):
        stored.join(Batches(*examples, workers=2, use_multiprocessing=True))


def test_other_seeds_are_another_store(stored, teacher, examples):
    with pytest.raises(ValueError, match="seed"):
        StoredTeacher.create(
            teacher, examples, stored.path, augment=noise, versions=3, seed=6, dtype="float32"
        )


def test_an_interruption_between_versions_costs_nothing(teacher, examples, tmp_path):
    x, y = examples
    arguments = {"augment": noise, "versions": 3, "dtype": "float32"}

    def ends_early():
        yield x[:8], y[:8]
        raise RuntimeError("the end")

    with pytest.raises(RuntimeError, match="the end"):
        StoredTeacher.create(teacher, ends_early(), tmp_path / "s", **arguments)
    assert len(StoredTeacher(tmp_path / "s", partial=True)) == 8
    stored = StoredTeacher.create(teacher, (x, y), tmp_path / "s", **arguments)
    inputs, outputs = epoch(stored.join((x, np.arange(20)), 6))
    np.testing.assert_allclose(outputs, teacher.predict(inputs, verbose=0), atol=1e-5)


def test_a_student_learns_from_augmented_examples(stored, student, examples, hard_loss):
    distiller = keras_kd.Distiller(stored, student, SoftTargets(2.0))
    distiller.compile(keras.optimizers.Adam(0.05), hard_loss, run_eagerly=True)
    history = distiller.fit(stored.join(examples, 5), epochs=6, verbose=0).history
    assert history["distillation_loss"][-1] < history["distillation_loss"][0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None,), TypeError, "augment=None"),
        ((noise, 0), ValueError, "versions=0"),
        ((noise, 1.5), TypeError, "versions=1.5"),
        ((noise, 1, -1), ValueError, "seed=-1"),
    ],
)
def test_arguments_that_cannot_be(arguments, error, message):
    with pytest.raises(error, match=message):
        Augmentation(*arguments)


def test_what_cannot_be_made_again_is_refused_before_it_is_stored(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")

    def changing(example, seed):
        return example + tf.random.normal((4,))

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"augment that gives different results.*stateless"):
        StoredTeacher.create(model, x, tmp_path / "s", augment=changing, versions=2)
    assert not (tmp_path / "s").exists()


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("workers", [1, 2])
def test_versions_come_in_their_turn_however_often_fit_is_called(
    workers, stored, dense_model, examples, hard_loss, monkeypatch
):
    used = []
    seeds_of = Augmentation.seeds

    def noted(self, keys, versions):
        used.append(int(np.unique(versions).item()))
        return seeds_of(self, keys, versions)

    monkeypatch.setattr(Augmentation, "seeds", noted)
    distiller = keras_kd.Distiller(stored, dense_model())
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    joined = stored.join(Batches(*examples, workers=workers))
    for epochs in (1, 1, 1, 3):
        distiller.fit(joined, epochs=epochs, verbose=0)
    # Before the first epoch of each call Keras looks at a batch or two.
    assert [version for version, _ in groupby(used)] == [0, 1, 2, 0, 1, 2]
