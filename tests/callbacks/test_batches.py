"""The order of training data as a function of the number of a batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.callbacks.batches import batches_of

X = np.arange(10, dtype="float32")[:, np.newaxis]
Y = np.arange(10)


def labels(batches, first, count, seed=3):
    """The labels of some batches."""
    dataset = batches.dataset(first, seed).take(count)
    return [batch[1].numpy().tolist() for batch in dataset]


def joined(batches):
    return [label for batch in batches for label in batch]


def seeded():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(10, seed=1).batch(4)


def changed():
    tf.random.set_seed(5)
    pairs = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(10)
    return pairs.map(lambda x, y: (x + tf.random.normal((1,)), y)).batch(4)


class Numbered(keras.utils.PyDataset):
    def __init__(self, **options):
        super().__init__(**options)
        self.epoch = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        places = slice(index * 4, index * 4 + 4)
        return X[places], Y[places] + 100 * self.epoch

    def on_epoch_end(self):
        self.epoch += 1


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize(
    "make",
    [
        lambda: batches_of(X, Y, None, 4, True),
        lambda: batches_of(X, Y, None, 4, "batch"),
        lambda: batches_of(X, Y, None, 4, False),
        lambda: batches_of(seeded(), None, None, None, True),
        lambda: batches_of(changed(), None, None, None, True),
        lambda: batches_of(seeded().repeat(), None, None, None, True),
        lambda: batches_of(Numbered(), None, None, None, True),
        lambda: batches_of(Numbered(workers=2), None, None, None, False),
    ],
)
def test_batches_from_any_number_on_are_those_of_the_whole(make):
    batches = make()
    whole = labels(batches, 0, 9)
    if batches.per_epoch is not None:
        assert batches.per_epoch == 3
        assert [len(part) for part in whole[:3]].count(2) == 1
    for first in (1, 3, 5, 7):
        again = make()
        assert again.identity == batches.identity
        assert again.sample().element_spec == again.dataset(0, 3).element_spec
        assert labels(again, first, 9 - first) == whole[first:]


def test_arrays_have_another_order_in_each_epoch_and_with_each_seed():
    orders = [joined(labels(batches_of(X, Y, None, 4, True), 3 * e, 3)) for e in range(4)]
    orders.append(joined(labels(batches_of(X, Y, None, 4, True), 0, 3, seed=4)))
    assert all(sorted(order) == Y.tolist() for order in orders)
    assert len({tuple(order) for order in orders}) == 5
    plain = batches_of(X, Y, None, 4, False)
    assert joined(labels(plain, 0, 3)) == Y.tolist()


def test_inputs_and_labels_stay_together():
    x = {"a": X, "b": [X + 1.0, tf.constant(X)]}
    batch = next(iter(batches_of(x, [Y, Y + 1], Y.astype("float64"), 4, True).dataset(0, 1)))
    inputs, (first, second), weight = batch
    np.testing.assert_array_equal(inputs["a"][:, 0], tf.cast(first, "float32"))
    np.testing.assert_array_equal(inputs["b"][0], inputs["a"] + 1.0)
    np.testing.assert_array_equal(second, first + 1)
    assert weight.dtype == tf.float32


def test_all_batches_of_a_py_dataset_come_in_each_epoch_in_another_order():
    batches = batches_of(Numbered(), None, None, None, True)
    found = labels(batches, 0, 12)
    for epoch in range(4):
        seen = sorted(joined(found[3 * epoch : 3 * epoch + 3]))
        assert seen == [100 * epoch + label for label in range(10)]
    assert len({tuple(part[0] % 100 for part in found[3 * e : 3 * e + 3]) for e in range(4)}) > 1


class AtRandom(Numbered):
    def __getitem__(self, index):
        return X[:4] + np.random.normal(), Y[:4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(10).batch(4),
            r"a ShuffleDataset, without a seed.*set_random_seed",
        ),
        (
            lambda: (
                tf.data.Dataset.from_tensor_slices((X, Y))
                .map(lambda x, y: (x + tf.random.normal((1,)), y))
                .batch(4)
            ),
            r"RandomStandardNormal in a MapDataset, without a seed",
        ),
        (
            lambda: (
                tf.data.Dataset.from_tensor_slices((X, Y))
                .map(lambda x, y: (x + tf.random.normal((1,), seed=1), y), tf.data.AUTOTUNE)
                .batch(4)
            ),
            r"RandomStandardNormal in a ParallelMapDataset, whose order is not fixed",
        ),
        (
            lambda: tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: y > 2).batch(4),
            r"of unknown length.*assert_cardinality",
        ),
        (AtRandom, r"batch 0 differs each time it is read.*default_rng"),
    ],
)
def test_what_differs_after_a_restart_is_refused(make, message, monkeypatch):
    # As in a program that sets no seed.
    from tensorflow.python.eager import context

    monkeypatch.setattr(context.context(), "_seed", None)
    with pytest.raises(ValueError, match=message):
        batches_of(make(), None, None, None, True)


def test_layers_that_draw_in_a_pipeline_are_refused():
    flip = keras.layers.RandomFlip(seed=1)
    images = tf.data.Dataset.from_tensors(np.zeros((2, 4, 4, 1), "float32"))
    with pytest.raises(ValueError, match=r"changes a variable.*into the student"):
        batches_of(images.map(lambda x: flip(x, training=True)), None, None, None, True)


def test_arrays_of_several_lengths_are_refused():
    with pytest.raises(ValueError, match=r"arrays with \[9, 10\] examples"):
        batches_of(X, Y[:9], None, 4, True)
