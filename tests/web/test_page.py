"""Draws digits in a real browser and reads what the student says."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from keras_kd.tflite import TFLiteModel

BROWSE = Path(__file__).with_name("browse.mjs")
MODELS = Path(__file__).parents[2] / "tflite_models"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def circle(x, y, width, height, start=-0.25, turns=1.0):
    """Points on an ellipse, from the top against the clock."""
    angles = 2 * np.pi * (start - np.linspace(0, turns, 24))
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1).tolist()


# Not as the page's own examples: at other places, in other sizes, wide, slanted, by other hands.
DRAWINGS = [
    {"digit": 0, "by": "mouse", "strokes": [circle(0.3, 0.3, 0.13, 0.2)]},
    {"digit": 1, "by": "mouse", "strokes": [[[0.8, 0.1], [0.72, 0.9]]]},
    {
        "digit": 3,
        "by": "mouse",
        "strokes": [
            [
                *circle(0.5, 0.3, 0.2, 0.18, start=-0.4, turns=-0.6),
                *circle(0.5, 0.66, 0.24, 0.19, start=-0.25, turns=-0.65),
            ]
        ],
    },
    {
        "digit": 4,
        "by": "touch",
        "strokes": [[[0.35, 0.15], [0.2, 0.55], [0.75, 0.53]], [[0.6, 0.2], [0.57, 0.9]]],
    },
    {"digit": 7, "by": "mouse", "strokes": [[[0.6, 0.62], [0.8, 0.62], [0.68, 0.9]]]},
    {
        "digit": 8,
        "by": "touch",
        "strokes": [[*circle(0.5, 0.3, 0.14, 0.15), *circle(0.5, 0.62, 0.18, 0.17)[::-1]]],
    },
]


@pytest.fixture(scope="module")
def report(node, packages, chromium, address, tmp_path_factory):
    screenshots = os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots")
    done = subprocess.run(
        [node, str(BROWSE), chromium, address, str(screenshots)],
        input=json.dumps(DRAWINGS),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(DRAWINGS)))
def test_reads_what_is_drawn(report, number):
    drawing = report["drawings"][number]
    assert drawing["digit_read"] == str(drawing["digit"])
    assert f" {WORDS[drawing['digit']]}: " in drawing["status"]


@pytest.mark.parametrize(
    ("form", "tolerance"), [("float32", 1e-5), ("int8", 2 / 256), ("pruned_int8", 2 / 256)]
)
def test_scores_are_those_of_python(report, form, tolerance):
    pixels = np.array([drawing["pixels"] for drawing in report["drawings"]], np.float32) / 255
    scores = np.array([drawing["forms"][f"{form}_web"] for drawing in report["drawings"]])
    model = TFLiteModel.load(MODELS / "digits" / f"{form}_web.tflite")
    expected = model.predict(pixels.reshape(-1, 28, 28, 1))
    np.testing.assert_allclose(scores, expected, atol=tolerance)
    np.testing.assert_array_equal(scores.argmax(axis=1), expected.argmax(axis=1))


def test_writes_every_digit_legibly(report):
    assert "".join(report["written"]) == "0123456789"


def test_keys_take_back_and_clear(report):
    keys = report["keys"]
    assert keys["undone"] == keys["one"] != keys["two"]
    assert keys["cleared"] == {"digit": "", "status": "", "scores": [0] * 10}


def test_shows_what_the_card_says(report):
    card = json.loads((MODELS / "cards.json").read_text())["digits/pruned_int8_web.tflite"]
    size, accuracy, time = report["facts"]
    assert size == f"{card['bytes'] / 1000:.1f} kB"
    assert accuracy == f"{100 * card['accuracy']:.2f} %"
    assert time.endswith(" ms")


def test_needs_no_network_and_raises_nothing(report, address):
    assert report["errors"] == []
    assert all(request.startswith(address) for request in report["requests"])


def test_says_what_is_missing(report):
    assert report["alert"].startswith("The student could not be loaded.")
    assert "pruned_int8_web.tflite: 404" in report["alert"]


def test_fits_a_phone(report):
    assert report["widest"] == 390
