import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.data import mix

from _models import cross_entropy


def numbered(labeled=10, unlabeled=23):
    """Inputs that say which example they are; those without labels count from 100."""
    x = np.arange(labeled, dtype="float32")[:, np.newaxis]
    return (x, np.arange(labeled) % 3), np.arange(100, 100 + unlabeled, dtype="float32")[:, None]


def epochs(dataset, count=1):
    return [[(x.numpy(), y.numpy()) for x, y in dataset] for _ in range(count)]


def test_every_batch_has_as_many_labels():
    labeled, unlabeled = numbered()
    dataset = mix(labeled, unlabeled, batch_size=8, labeled_share=0.25, seed=0)
    assert isinstance(dataset, tf.data.Dataset)
    assert dataset.element_spec[0].shape == (8, 1)
    assert dataset.element_spec[1].shape == (8,)
    for x, y in epochs(dataset)[0]:
        np.testing.assert_array_equal(y[:2], x[:2, 0] % 3)
        np.testing.assert_array_equal(y[2:], [-1] * 6)
        assert (x[2:] >= 100).all()


@pytest.mark.parametrize(("labeled", "unlabeled"), [(10, 23), (23, 10), (4, 4), (1, 9)])
def test_an_epoch_goes_once_through_what_takes_longer(labeled, unlabeled):
    first, second = numbered(labeled, unlabeled)
    dataset = mix(first, second, batch_size=4, seed=0)
    longer = max(labeled, unlabeled)
    assert len(dataset) == -(-longer // 2)
    seen = np.concatenate([x[:, 0] for x, _ in epochs(dataset)[0]])
    with_label, without = seen[seen < 100], seen[seen >= 100]
    larger = with_label if labeled >= unlabeled else without
    assert len(set(larger[:longer])) == longer
    assert len(set(with_label)) == labeled
    assert len(set(without)) == unlabeled


def test_the_set_that_takes_longer_depends_on_the_share():
    labeled, unlabeled = numbered(10, 12)
    assert len(mix(labeled, unlabeled, batch_size=4, labeled_share=0.25)) == 10
    assert len(mix(labeled, unlabeled, batch_size=4, labeled_share=0.75)) == 12


@pytest.mark.parametrize(("share", "expected"), [(0.001, 1), (0.5, 4), (0.6, 5), (1.0, 7)])
def test_there_is_at_least_one_of_each_kind(share, expected):
    ((batch, *_),) = epochs(mix(*numbered(), batch_size=8, labeled_share=share))
    assert (batch[1] >= 0).sum() == expected


def test_the_seed_decides_and_each_epoch_has_its_own_order():
    def orders(seed):
        keras.utils.set_random_seed(7)
        dataset = mix(*numbered(), batch_size=4, seed=seed)
        return [np.concatenate([x[:, 0] for x, _ in epoch]) for epoch in epochs(dataset, 3)]

    first, again, other = orders(0), orders(0), orders(1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])
    assert not np.array_equal(orders(None)[0], first[0])


def test_the_smaller_set_is_repeated_in_new_orders():
    ((*batches,),) = epochs(mix(*numbered(6, 36), batch_size=12, seed=0))
    rounds = [tuple(x[:6, 0]) for x, _ in batches]
    assert all(set(one) == set(range(6)) for one in rounds)
    assert len(set(rounds)) > 1


def test_floating_labels_that_are_missing_are_nan():
    (x, y), unlabeled = numbered()
    one_hot = np.eye(3, dtype="float32")[y]
    dataset = mix((x, one_hot), unlabeled, batch_size=6, seed=0)
    assert dataset.element_spec[1] == tf.TensorSpec((6, 3), tf.float32)
    for inputs, labels in epochs(dataset)[0]:
        np.testing.assert_array_equal(labels[:3].argmax(axis=1), inputs[:3, 0] % 3)
        assert np.isnan(labels[3:]).all()


@pytest.mark.parametrize(
    ("dtype", "missing", "expected"),
    [
        ("int32", -1, "int32"),
        ("uint8", -1, "int64"),
        ("uint8", 255, "uint8"),
        ("int8", 999, "int64"),
    ],
)
def test_integer_labels_of_a_type_that_holds_the_missing_one(dtype, missing, expected):
    (x, y), unlabeled = numbered()
    dataset = mix((x, y.astype(dtype)), unlabeled, batch_size=4, missing_label=missing)
    _, labels = next(iter(dataset))
    assert labels.dtype == expected
    np.testing.assert_array_equal(labels[2:], [missing] * 2)


def test_several_inputs_and_outputs_by_name():
    x = {"number": np.arange(6.0), "image": np.zeros((6, 2, 2, 1), "uint8")}
    y = {"class": np.arange(6), "score": np.arange(6.0)}
    others = {"number": np.arange(100.0, 104.0), "image": np.ones((4, 2, 2, 1), "uint8")}
    inputs, labels = next(iter(mix((x, y), others, batch_size=4, seed=0)))
    assert inputs["image"].shape == (4, 2, 2, 1)
    assert inputs["image"].dtype == "uint8"
    np.testing.assert_array_equal(inputs["number"][:2], labels["class"][:2])
    np.testing.assert_array_equal(inputs["image"][:, 0, 0, 0], [0, 0, 1, 1])
    np.testing.assert_array_equal(labels["class"][2:], [-1, -1])
    assert np.isnan(labels["score"][2:]).all()


def test_a_distiller_learns_from_both_parts():
    (x, y), unlabeled = numbered()
    teacher = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    student = keras.models.clone_model(teacher)
    distiller = keras_kd.Distiller(teacher, student, missing_label=-1)
    distiller.compile("sgd", cross_entropy(), metrics=["accuracy"])
    dataset = mix((x / 100, y), unlabeled / 100, batch_size=4, seed=0)
    history = distiller.fit(dataset, epochs=2, verbose=0).history
    assert np.isfinite(history["student_loss"]).all()
    assert min(history["distillation_loss"]) > 0


def test_lengths_that_differ():
    (x, y), unlabeled = numbered()
    with pytest.raises(ValueError, match="labeled arrays of 9 and 10 examples"):
        mix((x, y[:-1]), unlabeled)


def test_empty_sets():
    labeled, unlabeled = numbered()
    with pytest.raises(ValueError, match="unlabeled arrays of 0 examples"):
        mix(labeled, unlabeled[:0])
    with pytest.raises(ValueError, match="labeled arrays of 0 examples"):
        mix((labeled[0][:0], labeled[1][:0]), unlabeled)


@pytest.mark.parametrize(
    "others",
    [np.ones((5, 2), "float32"), np.ones((5, 1)), {"x": np.ones((5, 1), "float32")}],
    ids=["shape", "type", "structure"],
)
def test_unlabeled_inputs_that_are_not_like_the_labeled(others):
    with pytest.raises(ValueError, match="Expected the same names, types and shapes"):
        mix(numbered()[0], others)


def test_labels_that_look_missing():
    (x, y), unlabeled = numbered()
    with pytest.raises(ValueError, match="4 labels that are 0 in `labeled`"):
        mix((x, y), unlabeled, missing_label=0)
    with pytest.raises(ValueError, match="10 labels that are NaN"):
        mix((x, y * np.nan), unlabeled)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"batch_size": 1}, ValueError, "batch_size=1.*at least 2"),
        ({"batch_size": 2.0}, TypeError, "batch_size=2.0"),
        ({"labeled_share": 0.0}, ValueError, "labeled_share=0.0.*above 0"),
        ({"labeled_share": 1.5}, ValueError, "labeled_share=1.5.*at most 1"),
        ({"missing_label": None}, TypeError, "missing_label=None"),
    ],
)
def test_arguments_that_make_no_sense(arguments, kind, message):
    with pytest.raises(kind, match=message):
        mix(*numbered(), **arguments)


def test_what_is_no_pair_of_numbers():
    (x, y), unlabeled = numbered()
    with pytest.raises(TypeError, match=r"labeled of type ndarray.*a pair \(x, y\)"):
        mix(x, unlabeled)
    with pytest.raises(TypeError, match="labels of type bool"):
        mix((x, y == 1), unlabeled)
