import numpy as np
import pytest

from keras_kd.tflite.verification.labels import choices, class_numbers, labels_by_output


def test_the_largest_of_several_is_chosen():
    scores = np.array([[0.1, 0.7, 0.2], [3.0, -1.0, 2.0]])
    assert choices(scores, 0.5).tolist() == [1, 0]
    assert choices(np.stack([scores, -scores]), 0.5).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, [0, 1, 0]), (0.0, [1, 1, 0])])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_number_is_above_the_threshold_or_not(threshold, expected, shape):
    assert choices(np.array([0.3, 0.8, -4.0]).reshape(shape), threshold).tolist() == expected


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
        (np.array([0.5, 1.0]), "labels from 0.5 to 1.*leave labels out"),
        (np.array([np.nan, 1.0]), "labels from nan"),
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
        ([0, 1, 2], r"labels of type list for a file with 2 outputs.*pass labels=\{'a': ...\}"),
        ({"c": [0, 1, 2]}, r"labels for the outputs \['c'\].*\['a', 'b'\]"),
        ({"a": [0, 1]}, r"labels of shape \(2,\).*'a' and 3 examples.*as many labels"),
        ({"a": ["cat", "dog", "cat"]}, r"labels of shape \(3,\) and type <U3"),
    ],
)
def test_what_cannot_be_paired(labels, message):
    with pytest.raises(ValueError, match=message):
        labels_by_output(labels, ["a", "b"], 3)
