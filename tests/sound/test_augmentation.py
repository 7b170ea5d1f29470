"""Changed clips: by how much, again from the same seed, and the same for teacher and student."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.sound import ClipAugmentation, LogMel

from _models import cross_entropy

RATE = 8000
CLIP = (0.25 * np.sin(0.3 * np.arange(800))).astype("float32")


def seeds(count):
    return tf.random.stateless_uniform((count, 2), (1, 2), 0, 2**31 - 1, tf.int32)


def changed(augment, clip, count):
    """As many changed forms of a clip."""
    each = tf.function(lambda every: tf.map_fn(lambda seed: augment(clip, seed), every, tf.float32))
    return each(seeds(count)).numpy()


def test_the_same_seed_changes_a_clip_in_the_same_way():
    augment = ClipAugmentation(RATE)
    first, second = seeds(2)
    np.testing.assert_array_equal(augment(CLIP, first), augment(CLIP, first))
    assert np.abs(np.asarray(augment(CLIP, first) - augment(CLIP, second))).max() > 0.01


def test_shifts_move_zeros_in():
    augment = ClipAugmentation(RATE, speed=0, shift=0.01, gain=0, noise=None)
    ones, found = np.ones(800, "float32"), set()
    for moved in changed(augment, ones, 400):
        zeros = np.flatnonzero(moved == 0)
        assert not len(zeros) or zeros[-1] - zeros[0] == len(zeros) - 1
        found.add(len(zeros) * (1 if not len(zeros) or zeros[0] else -1))
        np.testing.assert_array_equal(np.sort(moved)[len(zeros) :], 1)
    # All from 80 samples forth to 80 back, as far as 400 seeds find them.
    assert min(found) <= -75
    assert max(found) >= 75
    assert max(map(abs, found)) <= 80
    assert len(found) > 100


def test_speed_changes_the_pitch_around_the_middle():
    augment = ClipAugmentation(RATE, shift=0, speed=0.2, gain=0, noise=None)
    time = np.arange(8000)
    tone = np.sin(2 * np.pi * 500 * time / RATE).astype("float32")
    spectra = np.abs(np.fft.rfft(changed(augment, tone, 50), axis=1))
    pitches = spectra.argmax(axis=1)  # a second of sound, so that bins are Hertz
    assert 400 <= pitches.min() < 420
    assert 580 < pitches.max() <= 600
    # Faster clips are shorter, and silent on both sides of the middle.
    for pitch, clip in zip(pitches, changed(augment, np.ones(8000, "float32"), 50), strict=True):
        silent = 8000 * max(0, 1 - 500 / pitch)
        assert (clip == 0).sum() == pytest.approx(silent, abs=40)
        assert (clip[0] == 0) == (clip[-1] == 0) == (silent > 2)


def test_gains_are_in_decibels():
    augment = ClipAugmentation(RATE, speed=0, shift=0, gain=6, noise=None)
    decibels = 20 * np.log10(changed(augment, CLIP, 100)[:, 5] / CLIP[5])
    assert -6 <= decibels.min() < -5
    assert 5 < decibels.max() <= 6


def test_noise_has_the_ratio_asked_for():
    clip = np.tile(CLIP, 10)
    for ratio in (0.0, 20.0):
        augment = ClipAugmentation(RATE, speed=0, shift=0, gain=0, noise=(ratio, ratio))
        noise = np.asarray(augment(clip, (1, 2))) - clip
        measured = 10 * np.log10(np.mean(clip**2) / np.mean(noise**2))
        assert measured == pytest.approx(ratio, abs=0.5)
    augment = ClipAugmentation(RATE, speed=0, shift=0, gain=0, noise=(0, 20))
    powers = np.mean((changed(augment, clip, 60) - clip) ** 2, axis=1)
    ratios = 10 * np.log10(np.mean(clip**2) / powers)
    assert -1 < ratios.min() < 3
    assert 17 < ratios.max() < 21


def test_recorded_noise_takes_the_place_of_white():
    recordings = np.stack([np.full(800, 0.5), np.tile([3.0, -3.0], 400)])
    augment = ClipAugmentation(
        RATE, speed=0, shift=0, gain=0, noise=(20, 20), background=recordings
    )
    level = np.sqrt(np.mean(CLIP**2)) / 10
    found = set()
    for noise in changed(augment, CLIP, 20) - CLIP:
        np.testing.assert_allclose(np.abs(noise), level, atol=1e-6)
        found.add(bool(noise[1] > 0))
    assert found == {True, False}


def test_samples_stay_in_their_range_and_silence_is_silent():
    augment = ClipAugmentation(RATE, gain=40, noise=(-20, -20))
    assert np.abs(changed(augment, CLIP, 10)).max() == 1
    np.testing.assert_array_equal(changed(augment, np.zeros(800), 10), 0)


def test_batches_of_an_epoch_follow_from_the_seed():
    x = np.tile(CLIP, (10, 1)) * np.linspace(0.1, 1, 10)[:, None]
    front_end = LogMel(RATE, mels=8)

    def two_epochs(seed):
        batches = ClipAugmentation(RATE).batches(
            x, np.arange(10), 4, seed=seed, front_end=front_end
        )
        return [list(batches.as_numpy_iterator()) for _ in range(2)]

    first, second = two_epochs(3), two_epochs(3)
    assert [len(labels) for _, labels in first[0]] == [4, 4, 2]
    assert first[0][0][0].shape == (4, front_end.frames(800), 8)
    for ours, theirs in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    for epoch in first:
        assert sorted(np.concatenate([labels for _, labels in epoch])) == list(range(10))

    def features_of_clip_0(epoch):
        return next(each for f, y in epoch for each, label in zip(f, y, strict=True) if label == 0)

    assert np.abs(features_of_clip_0(first[0]) - features_of_clip_0(first[1])).max() > 0.01
    other = two_epochs(4)
    assert np.abs(features_of_clip_0(first[0]) - features_of_clip_0(other[0])).max() > 0.01


def test_a_stored_teacher_and_its_student_get_the_same_changed_clips(tmp_path):
    front_end, augment = LogMel(RATE, mels=8), ClipAugmentation(RATE)
    x = np.random.default_rng(0).normal(0, 0.1, (6, 800)).astype("float32")
    y = np.arange(6) % 3

    def changed(clip, seed):
        return front_end(augment(clip, seed)[None])[0]

    def model(name):
        shape = (front_end.frames(800), 8)
        return keras.Sequential(
            [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(3)], name=name
        )

    teacher, path = model("teacher"), tmp_path / "teacher.store"
    keras_kd.teachers.StoredTeacher.create(
        teacher, (x, y), path, augment=changed, versions=2, dtype="float32", batch_size=4
    )
    stored = keras_kd.teachers.StoredTeacher(path, augment=changed)
    keras.utils.set_random_seed(0)
    joined = stored.join((x, y), batch_size=3)
    student = model("student")
    student.set_weights(teacher.get_weights())
    distiller = keras_kd.Distiller(stored, student, student_loss_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy())
    history = distiller.fit(joined, epochs=2, verbose=0).history
    # With the teacher's weights the student gives what was stored, of each version.
    np.testing.assert_allclose(history["distillation_loss"], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"shift": -1}, "shift=-1.*100 ms"),
        ({"speed": 1}, "speed=1.*at most 0.5.*10 %"),
        ({"gain": 100}, "gain=100.*at most 60"),
        ({"noise": (30, 5)}, r"noise=\(30, 5\).*least ratio first.*decibels"),
        ({"noise": 5}, "noise=5.*the least and the greatest"),
        ({"background": np.zeros(800)}, r"background of shape \(800,\)"),
        ({"background": np.full((1, 4), np.nan)}, "finite samples"),
        ({"background": np.zeros((2, 800))}, r"silence in the recordings \[0, 1\]"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        ClipAugmentation(**{"sample_rate": RATE, **options})
