"""Log-mel features: the same numbers in NumPy, in Keras and in files."""

import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import tflite
from keras_kd._model_files import load_model
from keras_kd.sound import LogMel

REFERENCE = runpy.run_path(str(Path(__file__).parents[1] / "reference" / "sound.py"))
log_mel, signals = REFERENCE["log_mel"], REFERENCE["signals"]
FORMS = [
    {"sample_rate": 8000, "window": 0.03, "hop": 0.02, "mels": 32},
    {"sample_rate": 16000, "window": 0.03, "hop": 0.02, "mels": 40, "high": 7600.0},
    {"sample_rate": 16000, "window": 0.064, "hop": 0.032, "mels": 64, "low": 20.0},
    {"sample_rate": 8000, "window": 0.001, "hop": 0.0005, "mels": 2, "low": 0.0, "offset": 1e-3},
    {"sample_rate": 11025, "window": 0.025, "hop": 0.01, "mels": 26},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_numbers_of_the_formula(form):
    front_end = LogMel(**form)
    x = signals(4000, front_end.sample_rate) / 32768
    options = dict(form)
    expected = log_mel(x, options.pop("sample_rate"), **options)
    received = np.asarray(front_end(x.astype("float32")))
    assert received.shape == expected.shape == front_end.compute_output_shape(x.shape)
    # Windows of 2 ms have bands that hold one bin, others dozens.
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)


def test_the_bands_are_those_of_tensorflow():
    front_end = LogMel(16000, mels=40, low=60, high=7600)
    bands = tf.signal.linear_to_mel_weight_matrix(
        40, front_end.fft_length // 2 + 1, 16000, 60.0, 7600.0, dtype=tf.float64
    ).numpy()
    # TensorFlow leaves the constant part out of every band.
    np.testing.assert_allclose(
        front_end.mel_weights[1:], (bands / bands.sum(axis=0))[1:], atol=1e-12
    )


def test_a_full_sine_has_a_power_of_one():
    front_end = LogMel(16000, window=0.032, mels=20)
    # At the frequency of a bin the next ones have a quarter of its power, by the Hann window.
    bin_of_sine = 40
    time = np.arange(front_end.window_samples)
    x = np.sin(2 * np.pi * bin_of_sine * time / front_end.fft_length)[None].astype("float32")
    [[features]] = np.asarray(front_end(x))
    powers = np.zeros(front_end.fft_length // 2 + 1)
    powers[bin_of_sine - 1 : bin_of_sine + 2] = 0.25, 1.0, 0.25
    expected = np.log(powers @ front_end.mel_weights + front_end.offset)
    np.testing.assert_allclose(features, expected, atol=1e-3)


def test_a_clip_does_not_depend_on_its_batch():
    """As it does in Keras' MelSpectrogram, whose decibels are relative to the batch."""
    x = np.random.default_rng(0).normal(size=(4, 2000)).astype("float32")
    x *= np.array([[1.0], [0.1], [0.01], [0.001]], "float32")

    def difference(layer):
        return np.abs(np.asarray(layer(x))[3] - np.asarray(layer(x[3:]))[0]).max()

    assert difference(LogMel(8000)) < 1e-5
    assert difference(keras.layers.MelSpectrogram(256, 128, sampling_rate=8000)) > 1


def test_it_computes_in_float32_in_mixed_precision():
    x = (signals(2000, 8000) / 32768).astype("float32")
    plain = np.asarray(LogMel(8000)(x))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = LogMel(8000)(x)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(np.asarray(mixed), plain)


def test_clips_of_any_length_and_frames():
    front_end = LogMel(8000, window=0.03, hop=0.02)
    model = keras.Sequential([keras.Input((None,)), front_end])
    assert model.output_shape == (None, None, 40)
    for samples, frames in ((240, 1), (399, 1), (400, 2), (8000, 49)):
        assert model(np.zeros((2, samples), "float32")).shape == (2, frames, 40)
        assert front_end.frames(samples) == frames
    assert front_end.frames(239) == 0


@pytest.fixture(scope="module")
def listener():
    """A model of clips that are 800 samples long."""
    return keras.Sequential([keras.Input((800,), name="audio"), LogMel(8000, mels=20)])


def test_a_model_with_it_is_saved_and_loaded(listener, tmp_path):
    path = tmp_path / "listener.keras"
    listener.save(path)
    x = (signals(800, 8000) / 32768).astype("float32")
    for model in (keras.models.load_model(path), load_model(path)):
        np.testing.assert_array_equal(model.predict(x, verbose=0), listener.predict(x, verbose=0))
        assert model.layers[0].get_config() == listener.layers[0].get_config()
        assert not model.weights


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    ("form", "target", "tolerance"),
    [
        ("float32", "android", 1e-4),
        ("float32", "microcontroller", 1e-4),
        # Constants of 11 bits: an error of up to 2^-12 * 2 in each |X|, which is half a unit of the
        # logarithm at worst; constant and square waves of full scale make a fiftieth of it.
        ("float16", "android", 1e-2),
    ],
)
def test_the_numbers_of_files(listener, form, target, tolerance):
    samples = signals(800, 8000)
    x = (samples / 32768).astype("float32")
    model = tflite.convert(listener, form, target=target, verification_data=x)
    expected = log_mel(samples / 32768, 8000, window=0.03, hop=0.02, mels=20)
    np.testing.assert_allclose(model.predict(x), expected, rtol=0, atol=tolerance)
    assert "CONV_2D" in model.operators
    if target == "microcontroller" and tflite.microcontroller.is_installed():
        [on_device] = tflite.microcontroller.run(model, x).stored_outputs.values()
        np.testing.assert_allclose(on_device, expected, rtol=0, atol=tolerance)


def test_integers_are_refused(listener):
    """Eight bits for a spectrum would leave nothing of quiet sounds."""
    x = (signals(800, 8000) / 32768).astype("float32")
    with pytest.raises(ValueError, match="SQUARE"):
        tflite.convert(listener, "int8", x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "sample_rate=0.*at least 1.*16000"),
        ({"window": 0.0}, r"window=0.0.*above 0.*30 ms"),
        ({"hop": -1}, "hop=-1.*above 0.*20 ms"),
        ({"mels": 0}, "mels=0.*at least 1"),
        ({"low": 9000.0}, r"low=9000.0.*at most 8000.*up to 8000 Hz"),
        ({"high": 50.0}, r"high=50.0.*above 60"),
        ({"high": 9000.0}, r"high=9000.0.*at most 8000"),
        ({"offset": 0.0}, r"offset=0.0.*at least 1e-12"),
        ({"window": 1.0}, "window=1 s.*16000 and 320 samples.*4 to 4096 samples"),
        ({"window": 0.0001}, "2 and 320 samples"),
        ({"hop": 1e-6}, "480 and 0 samples"),
        ({"mels": 200}, r"mels=200.*the bands 1, .*hold none.*wider than 31.25 Hz.*fewer mels"),
        ({"mels": 10**9}, r"mels=1000000000.*fewer mels"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        LogMel(**{"sample_rate": 16000, **options})


@pytest.mark.parametrize("shape", [(1, 100), (1, 800, 1), (800,)])
def test_inputs_that_are_no_clips(shape):
    with pytest.raises(ValueError, match=r"shape.*\(batch, samples\) with at least 240 samples"):
        LogMel(8000)(np.zeros(shape, "float32"))
