"""Datasets as arrays: every example once, in an order that shuffling does not change."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import data

X = np.arange(21, dtype="float32").reshape(7, 3)
Y = np.arange(7)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, number):
        part = slice(3 * number, 3 * number + 3)
        return X[part], Y[part]


def pipeline(x=X, y=Y):
    return tf.data.Dataset.from_tensor_slices((x, y))


DATASETS = {
    "tf.data": lambda: pipeline().batch(3),
    "shuffled": lambda: pipeline().shuffle(7).batch(2),
    "PyDataset": Batches,
    "generator": lambda: ((X[[place]], Y[[place]]) for place in range(7)),
}


@pytest.mark.parametrize("form", DATASETS)
def test_every_example_once_with_its_label(form):
    x, y = data.to_arrays(DATASETS[form]())
    np.testing.assert_array_equal(np.sort(y), Y)
    np.testing.assert_array_equal(x, X[y])
    assert x.dtype == "float32"


def test_the_order_is_that_of_the_dataset_or_of_the_contents():
    np.testing.assert_array_equal(data.to_arrays(DATASETS["tf.data"]())[1], Y)
    first, second = (
        data.to_arrays(DATASETS[form](), sort=True) for form in ("tf.data", "shuffled")
    )
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(first[0], X[first[1]])


def test_structures_stay():
    x = {"image": X, "numbers": (X[:, :1], X[:, 1:])}
    received, labels = data.to_arrays(pipeline(x, {"digit": Y}).shuffle(7).batch(4), sort=True)
    y = labels["digit"]
    np.testing.assert_array_equal(received["image"], X[y])
    np.testing.assert_array_equal(received["numbers"][1], X[y, 1:])


@pytest.mark.parametrize(
    ("dataset", "kind", "message"),
    [
        ((X, Y), TypeError, "dataset of type tuple.*arrays need no reading"),
        (None, TypeError, "dataset of type NoneType"),
        (pipeline(), ValueError, r"pass dataset.batch\(256\)"),
        (pipeline().batch(2).repeat(), ValueError, "without an end.*take"),
        (pipeline().batch(2).take(0), ValueError, "without an example"),
        (tf.data.Dataset.from_tensor_slices(X).batch(2), ValueError, r"without labels.*\.map\("),
        (pipeline(y=(Y, Y)).batch(2).map(lambda x, y: (x, *y)), ValueError, "sample weights"),
    ],
    ids=["arrays", "None", "not batched", "endless", "empty", "no labels", "weights"],
)
def test_what_is_refused(dataset, kind, message):
    with pytest.raises(kind, match=rf"Received .*{message}"):
        data.to_arrays(dataset)


def test_the_advice_for_weights_and_labels_works():
    weighted = pipeline(y=(Y, Y)).batch(2).map(lambda x, y: (x, *y))
    named = tf.data.Dataset.from_tensor_slices({"image": X, "label": Y}).batch(2)
    for dataset in (
        weighted.map(lambda x, y, weight: (x, y)),
        named.map(lambda each: (each["image"], each["label"])),
    ):
        x, y = data.to_arrays(dataset)
        np.testing.assert_array_equal(x, X[y])


def test_what_the_memory_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr("keras_kd.data.in_memory.free_bytes", lambda: 100)
    endless = ((X, Y) for _ in iter(int, 1))
    with pytest.raises(ValueError, match=r"free memory.*dataset.take\(1000\)"):
        data.to_arrays(endless)
