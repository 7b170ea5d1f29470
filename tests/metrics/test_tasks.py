import numpy as np
import pytest

from keras_kd.metrics.tasks import (
    class_numbers,
    decisions,
    labels_by_output,
    labels_for,
    task_of,
)


def test_the_largest_of_several_is_chosen():
    scores = np.array([[0.1, 0.7, 0.2], [3.0, -1.0, 2.0]])
    assert decisions("classification", scores).tolist() == [1, 0]
    assert decisions("classification", np.stack([scores, -scores])).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, [0, 1, 0]), (0.0, [1, 1, 0])])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_number_is_above_the_threshold_or_not(threshold, expected, shape):
    values = np.array([0.3, 0.8, -4.0]).reshape(shape)
    assert decisions("classification", values, threshold).tolist() == expected


def test_each_of_several_labels_is_decided_by_itself():
    assert decisions("multilabel", np.array([[0.6, 0.7, 0.1]])).tolist() == [[1, 1, 0]]
    assert decisions("multilabel", np.array([[0.6, 0.7, -2.0]])).tolist() == [[1, 1, 0]]
    assert decisions("multilabel", np.array([[0.4, 1.7, -2.0]])).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2, 0]),
        np.array([[2.0], [0.0]]),
        np.array([[0, 0, 1], [1, 0, 0]]),
        np.eye(3)[[2, 0]],
    ],
)
def test_forms_of_labels(labels):
    assert class_numbers(labels, (2, 3), "logits").tolist() == [2, 0]


def test_labels_of_every_pixel_and_of_one_number():
    pixels = np.arange(12).reshape(2, 3, 2) % 5
    np.testing.assert_array_equal(class_numbers(pixels, (2, 3, 2, 5), "mask"), pixels)
    np.testing.assert_array_equal(class_numbers(pixels[..., None], (2, 3, 2, 5), "mask"), pixels)
    assert class_numbers(np.array([True, False]), (2, 1), "spam").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([1, 3]), r"labels from 1 to 3 for the output 'logits'.*from 0 to 2"),
        (np.array([-1, 0]), "labels from -1 to 0"),
        (np.array([0.5, 1.0]), "labels from 0.5 to 1.*regression have the shape"),
        (np.zeros((2, 4)), r"shape \(2, 4\) for 2 examples .* of shape \(2, 3\).*one-hot rows"),
    ],
)
def test_what_are_no_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        class_numbers(labels, (2, 3), "logits")


def test_labels_go_by_output():
    assert labels_by_output(None, ["a", "b"], 3) == {}
    assert labels_by_output([0, 1, 2], ["a"], 3)["a"].tolist() == [0, 1, 2]
    assert list(labels_by_output({"b": [0, 1, 2]}, ["a", "b"], 3)) == ["b"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], r"labels of type list for a model with 2 outputs.*pass \{'a': ...\}"),
        ({"c": [0, 1, 2]}, r"labels for the outputs \['c'\].*\['a', 'b'\]"),
        (
            {"a": [0, 1]},
            r"labels for the output 'a' of shape \(2,\).* for 3 examples.*as many labels",
        ),
        ({"a": ["cat", "dog", "cat"]}, r"'a' of shape \(3,\) and type <U3"),
        ({"a": [0, np.nan, 1]}, r"'a' with NaN or infinite.*numpy.isfinite"),
    ],
)
def test_what_cannot_be_paired(labels, message):
    with pytest.raises(ValueError, match=message):
        labels_by_output(labels, ["a", "b"], 3)


RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(8, 3))
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
NUMBERS = np.arange(8) % 3
BITS = np.arange(8) % 2
TAGS = np.array([[1, 1, 0], [0, 0, 0]] * 4)


@pytest.mark.parametrize(
    ("outputs", "labels", "input_shape", "task"),
    [
        (LOGITS, NUMBERS, (9,), "classification"),
        (LOGITS, NUMBERS.astype(float)[:, None], (9,), "classification"),
        (LOGITS, np.eye(3)[NUMBERS], (9,), "classification"),
        (SOFTMAX, SOFTMAX[::-1], (9,), "classification"),
        (LOGITS[:, :1], BITS, (9,), "classification"),
        (LOGITS[:, 0], BITS.astype(bool), (9,), "classification"),
        (LOGITS.argmax(-1), NUMBERS, (9,), "classification"),
        (LOGITS.reshape(8, 1, 3), NUMBERS[:, None], (9,), "classification"),
        (LOGITS, TAGS, (9,), "multilabel"),
        (LOGITS, TAGS.astype(float), (3,), "multilabel"),
        (LOGITS[:, :1], NUMBERS, (9,), "regression"),
        (LOGITS[:, 0], LOGITS[:, :1], (9,), "regression"),
        (LOGITS, LOGITS, (9,), "regression"),
        (LOGITS, SOFTMAX, (9,), "regression"),
        (LOGITS[:, :1], LOGITS[:, 0], (1,), "regression"),
        (LOGITS, BITS, (3,), "reconstruction"),
        (LOGITS.reshape(8, 3, 1), BITS[:, None], (3, 1), "reconstruction"),
        # Ten features and ten classes: what adds up to 1 is no reconstruction.
        (SOFTMAX, BITS, (3,), "classification"),
        (LOGITS, NUMBERS, (3,), "classification"),
        (LOGITS, None, (3,), "reconstruction"),
        (LOGITS, None, (9,), "regression"),
        (SOFTMAX, None, (3,), "classification"),
        (NUMBERS, None, (9,), "classification"),
        (LOGITS[:, :1], None, (1,), "regression"),
    ],
)
def test_which_task_it_is(outputs, labels, input_shape, task):
    assert task_of(outputs, labels, [(7, 7), input_shape]) == task


def test_labels_that_fit_no_task():
    with pytest.raises(ValueError, match=r"shape \(8, 2\) for outputs of shape \(8, 3\)"):
        task_of(LOGITS, np.zeros((8, 2)))


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("multilabel", LOGITS, "only 0 and 1"),
        ("multilabel", BITS, r"shaped \(8, 3\)"),
        ("regression", BITS, r"shaped \(8, 3\)"),
        ("ranking", LOGITS, "at least 0"),
        ("ranking", NUMBERS + 1, "from 0 to 2"),
        ("reconstruction", NUMBERS, "1 for each anomaly"),
        ("detection", BITS, "one of 'classification'"),
    ],
)
def test_labels_that_do_not_fit_the_task(task, labels, message):
    with pytest.raises(ValueError, match=message):
        labels_for(task, labels, LOGITS, "output")


def test_the_one_relevant_item_of_each_query():
    labels = labels_for("ranking", NUMBERS, LOGITS, "output")
    np.testing.assert_array_equal(labels, np.eye(3)[NUMBERS])
