"""How the files are made, on a tiny setting."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_kd.data import load_sample

SCRIPTS = Path(__file__).parents[2] / "tflite_models"
# A process of its own: deterministic computing stays on for the rest of a process.
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import make, tensorflow
from cards import write_cards
from teaching import DIGITS, Classroom, Setting
from keras_kd.data import load_sample
tensorflow.config.experimental.enable_op_determinism()
make.TARGETS = ("android", "microcontroller")
setting = Setting(128, 1, 1, 1, 1, batch_size=32)
output = Path(sys.argv[2])
room = Classroom(load_sample().first(test=20), DIGITS, setting, output / "cache")
write_cards(list(make.make(DIGITS, room, output)), output)
"""


@pytest.fixture(scope="module")
def teaching(scripts):
    return scripts("teaching")


@pytest.fixture(scope="module")
def images():
    return load_sample().x_test[:32]


def run(output):
    command = [sys.executable, "-c", PROGRAM, str(SCRIPTS), str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return {path.name: path.read_bytes() for path in (output / "digits").glob("*.tflite")}


def test_distortions_are_a_function_of_the_step(teaching, images):
    first, same, other = (
        teaching.moved(images, teaching.DIGITS, tf.constant(step)).numpy() for step in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    assert first.shape == images.shape
    assert 0 <= first.min() <= first.max() <= 1


def test_distorted_digits_stay_in_the_picture(teaching, images):
    moved = teaching.moved(images, teaching.DIGITS, tf.constant(0)).numpy()
    ratio = moved.sum(axis=(1, 2, 3)) / images.sum(axis=(1, 2, 3))
    assert ratio.min() > 0.6
    assert ratio.max() < 1.6


def test_what_is_not_moved_stays_as_it_is_or_is_mirrored(teaching, images):
    still = teaching.Subject("still", "", "", "", "", turn=0, growth=0, shift=0, mirrored=True)
    moved = teaching.moved(images, still, tf.constant(0)).numpy()
    same = np.array([np.allclose(a, b, atol=1e-5) for a, b in zip(moved, images, strict=True)])
    flipped = images[:, :, ::-1]
    mirrored = np.array([np.allclose(a, b, atol=1e-5) for a, b in zip(moved, flipped, strict=True)])
    np.testing.assert_array_equal(same, ~mirrored)
    assert 0 < same.sum() < len(images)


def test_the_student_is_a_tenth_of_the_teacher(teaching):
    teacher, student = teaching.build_teacher(10), teaching.build_student(10)
    assert student.count_params() * 10 < teacher.count_params()


def test_networks_begin_with_the_same_weights(teaching):
    for build in teaching.build_teacher, teaching.build_student:
        one, same = build(10).get_weights(), build(10).get_weights()
        for weight, other in zip(one, same, strict=True):
            np.testing.assert_array_equal(weight, other)


def test_other_settings_are_kept_under_other_names(teaching, tmp_path):
    dataset = load_sample().first(4, 4)
    settings = [teaching.Setting(), teaching.Setting(student_epochs=1)]
    rooms = [
        teaching.Classroom(dataset, subject, setting, tmp_path)
        for subject in (teaching.DIGITS, teaching.CLOTHES)
        for setting in settings
    ]
    assert len({room.kept_as("teacher") for room in rooms}) == 4


@pytest.mark.slow
def test_the_same_seed_makes_the_same_bytes(tmp_path):
    pytest.importorskip("tflite_micro")
    first = run(tmp_path / "first")
    assert len(first) == 6
    assert run(tmp_path / "second") == first
    # From what is kept in the cache, nothing is trained.
    assert run(tmp_path / "first") == first
    cards = json.loads((tmp_path / "first" / "cards.json").read_text())
    assert {card["bytes"] for card in cards.values()} == set(map(len, first.values()))
    assert cards["digits/int8_microcontroller.tflite"]["arena_bytes"] > 1000
