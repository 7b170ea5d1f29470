import dataclasses

import numpy as np
import pytest

from keras_kd.tflite.android import Metadata, ScoreCalibration, normalization

NAMES = ["a", "b", "c"]


def test_values_are_stored_in_one_form():
    metadata = Metadata(NAMES, mean=127, std=[1, 2, 3])
    assert metadata.class_names == ("a", "b", "c")
    assert metadata.mean == (127.0,)
    assert metadata.std == (1.0, 2.0, 3.0)
    assert dataclasses.replace(metadata) == metadata


def test_by_default_pixels_stay_as_they_are():
    assert (Metadata(NAMES).mean, Metadata(NAMES).std) == ((0.0,), (1.0,))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255), (-123.7, 131.3), (5, 6)])
def test_normalization_brings_pixels_to_the_range(low, high):
    mean, std = normalization(low, high)
    pixels = np.array([0, 100, 255])
    expected = pixels / 255 * (high - low) + low
    np.testing.assert_allclose((pixels - mean) / std, expected, atol=1e-9)


def test_usual_normalizations():
    assert [str(number) for number in normalization(0, 1)] == ["0.0", "255.0"]
    assert normalization(-1, 1) == (127.5, 127.5)
    assert normalization(0, 255) == (0, 1)


@pytest.mark.parametrize(
    ("low", "high", "error", "message"),
    [
        (1, 0, ValueError, "high=0.*above 1"),
        (0, 0, ValueError, "high=0"),
        (0, float("inf"), ValueError, "high=inf"),
        ("0", 1, TypeError, "low='0'"),
    ],
)
def test_ranges_that_are_none(low, high, error, message):
    with pytest.raises(error, match=message):
        normalization(low, high)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_kind": "sound"}, ValueError, "input_kind='sound'.*'audio'"),
        ({"input_kind": "audio"}, ValueError, "'audio' with sample_rate=None.*sample_rate=16000"),
        ({"input_kind": "numbers", "sample_rate": 8000}, ValueError, "spectrograms"),
        ({"sample_rate": 0}, ValueError, "sample_rate=0.*at least 1"),
        ({"name": None}, TypeError, "name=None"),
        ({"version": 1.0}, TypeError, "version=1.0.*pass version='1.0'"),
        ({"author": "\x1b[2J"}, ValueError, "author=.*control characters"),
        ({"license": "\ud800"}, ValueError, "license=.*control characters"),
        ({"mean": (1.0, 2.0)}, ValueError, r"mean=\(1.0, 2.0\).*one for each of three channels"),
        ({"mean": "127"}, TypeError, "mean='127'"),
        ({"std": 0}, ValueError, "std=0.*above 0"),
        ({"std": (1, -1, 1)}, ValueError, "std=-1"),
        ({"std": float("inf")}, ValueError, "std=inf"),
        ({"score_calibration": [(1, 2, 3)]}, TypeError, "score_calibration of type list"),
        (
            {"score_calibration": ScoreCalibration([(1, 2, 3)])},
            ValueError,
            "calibration of 1 classes.*as many as there are class names, 3",
        ),
    ],
)
def test_what_cannot_be_metadata(options, error, message):
    with pytest.raises(error, match=message):
        Metadata(**{"class_names": NAMES, **options})
