"""The picture made of strokes, against what the digits of MNIST are."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from keras_kd.data import load_sample

SCRIPT = """
import { picture } from "%s";
import { readFileSync } from "node:fs";
const drawings = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(drawings.map((strokes) => [...picture(strokes)])));
"""
DIGIT = Path(__file__).parents[2] / "examples" / "web" / "digit.js"
SEVEN = np.array([[0.1, 0.1], [0.7, 0.1], [0.4, 0.95]])
DASH = np.array([[0.2, 0.4], [0.6, 0.4]])


@pytest.fixture
def pictures(node):
    """Pictures of drawings, shaped (drawings, 28, 28)."""

    def draw(*drawings):
        strokes = [
            [[{"x": x, "y": y} for x, y in stroke] for stroke in drawing] for drawing in drawings
        ]
        done = subprocess.run(
            [node, "--input-type=module", "--eval", SCRIPT % DIGIT.as_uri()],
            input=json.dumps(strokes),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return np.array(json.loads(done.stdout)).reshape(-1, 28, 28)

    return draw


def centre_of_mass(image):
    places = np.indices(image.shape)
    return (places * image).sum(axis=(1, 2)) / image.sum()


def test_is_scaled_and_centred_as_in_mnist(pictures):
    (image,) = pictures([SEVEN])
    rows, columns = image.any(axis=1).sum(), image.any(axis=0).sum()
    assert 20 <= max(rows, columns) <= 21
    np.testing.assert_allclose(centre_of_mass(image), [14, 14], atol=0.02)
    # So is the mean digit of MNIST.
    digits = load_sample().x_train[:500, ..., 0]
    mean = np.mean([centre_of_mass(digit) for digit in digits], axis=0)
    np.testing.assert_allclose(mean, [14, 14], atol=0.1)


def test_strokes_are_as_wide_as_in_mnist(pictures):
    (image,) = pictures([SEVEN[1:]])
    sample = load_sample()
    ones = sample.x_train[sample.y_train == 1][..., 0]
    width = np.median(ones[:, 14].sum(axis=1))
    assert image[14].sum() == pytest.approx(width, rel=0.15)


def test_place_and_size_on_the_pad_do_not_matter(pictures):
    one, other = pictures([SEVEN], [SEVEN * 0.3 + [0.6, 0.05]])
    np.testing.assert_allclose(one, other, atol=1 / 255)


def test_two_strokes_are_one_digit(pictures):
    both, one = pictures([SEVEN, DASH], [SEVEN])
    assert both.sum() > one.sum()


def test_has_the_levels_of_grey_of_mnist(pictures):
    (image,) = pictures([SEVEN])
    levels = 255 * image.astype("float32")
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert (image.min(), image.max()) == (0, 1)


def test_a_dot_stays_small_and_an_empty_pad_is_empty(pictures):
    dot, nothing = pictures([[[0.9, 0.9]]], [])
    assert 4 <= (dot > 0).sum() <= 16
    np.testing.assert_allclose(centre_of_mass(dot), [14, 14], atol=0.1)
    assert not nothing.any()
