import warnings

import numpy as np
import pytest

from keras_kd._representative import representative_examples, usual_range
from keras_kd.tflite.tensors import TensorInfo

IMAGE = (TensorInfo("image", (1, 4, 4, 1), np.dtype("float32")),)
X = np.random.default_rng(0).random((50, 4, 4, 1), np.float32)


def examples(x, limits, inputs=IMAGE):
    return representative_examples(x, inputs, input_range=limits)


@pytest.mark.parametrize(
    ("x", "limits"),
    [
        (X, (0, 1)),
        (X, {"image": (0, 1)}),
        (X, (-1, 1)),
        (X * 2 - 1, (-1, 1)),
        (X * 255, (0, 255)),
        # Dark images, and a value in a thousand outside.
        (X / 8, (0, 1)),
        (np.where(np.arange(800).reshape(X.shape) == 7, 3, X).astype("float32"), (0, 1)),
    ],
)
def test_data_in_the_range(x, limits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples(x, limits)


@pytest.mark.parametrize(
    ("x", "limits", "message"),
    [
        # Most pixels of a digit are 0 on either scale.
        (np.where(X > 0.9, X * 255, 0), (0, 1), r"from 0 to 25\d.*input_range=\(0.0, 1.0\)"),
        (X, (0, 255), r"from 0.* to 0.99.*input_range=\(0.0, 255.0\)"),
        (X / 255, (-1, 1), r"to 0.0039"),
        (X - 100, (0, 1), r"from -99\."),
    ],
)
def test_another_scale_is_refused(x, limits, message):
    with pytest.raises(ValueError, match=message):
        examples(x.astype("float32"), limits)


def test_what_lies_outside_is_warned_of():
    with pytest.warns(UserWarning, match=r"input_range=\(0.0, 1.0\).*\d\d\.\d% of the.*outside"):
        examples(X * 2 - 1, (0, 1))


def test_integers_have_no_range():
    words = (TensorInfo("words", (1, 3), np.dtype("int32")),)
    examples(np.full((4, 3), 1000, "int32"), (0, 1), words)


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        ((1, 0), ValueError, r"input_range=\(1, 0\).*from low to high"),
        (1, TypeError, "input_range=1.*two numbers"),
        (("a", "b"), TypeError, "a finite number"),
        ({"picture": (0, 1)}, ValueError, r"\['picture'\].*\['image'\]"),
    ],
)
def test_ranges_that_are_none(limits, error, message):
    with pytest.raises(error, match=message):
        examples(X, limits)


@pytest.mark.parametrize(
    ("smallest", "largest", "is_rescaled", "expected"),
    [
        (0.0, 0.9, False, (0, 1)),
        (0.03, 1.0, False, (0, 1)),
        (0.0, 200.0, False, (0, 255)),
        (-0.9, 0.8, False, (-1, 1)),
        # Dark pixels of a student that rescales them, and of none that does.
        (0.0, 60.0, True, (0, 255)),
        (0.0, 60.0, False, None),
        # Measurements: half of the steps and more would never be used.
        (0.0, 0.4, False, None),
        (-0.2, 0.3, False, None),
        (-3.0, 2.0, False, None),
        (0.0, 300.0, True, None),
    ],
)
def test_ranges_that_pixels_usually_have(smallest, largest, is_rescaled, expected):
    values = np.array([[smallest, (smallest + largest) / 2], [largest, largest]], "float32")
    assert usual_range(values, is_rescaled) == expected
