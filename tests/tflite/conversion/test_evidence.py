import keras
import numpy as np
import pytest

from keras_kd import tflite


def _sounds():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(32, 1000)) * 10.0 ** -rng.integers(0, 6, (32, 1))).astype("float32")


def _student(*layers):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((1000,)), *layers, keras.layers.Flatten()])


def _spectrogram(**options):
    return keras.layers.MelSpectrogram(
        fft_length=128,
        sequence_stride=64,
        num_mel_bins=8,
        sampling_rate=8000,
        name="mel",
        **options,
    )


@pytest.mark.slow
def test_a_spectrogram_that_depends_on_the_batch_is_the_cause():
    message = r"depend on the other examples of the batch.*layer 'mel' \(MelSpectrogram\)"
    with pytest.raises(ValueError, match=message + ".*power_to_db=False"):
        tflite.convert(_student(_spectrogram()), verification_data=_sounds())


def test_the_way_out_works():
    logarithm = keras.layers.Lambda(lambda x: keras.ops.log(x + 1e-6))
    student = _student(_spectrogram(power_to_db=False), logarithm)
    model = tflite.convert(student, verification_data=_sounds())
    assert model.verification.largest_difference < 0.01


def test_other_layers_that_depend_on_the_batch():
    student = _student(keras.layers.Lambda(lambda x: x - keras.ops.mean(x, axis=0)))
    with pytest.raises(ValueError, match=r"of the batch, by up to.*computes something over the"):
        tflite.convert(student, verification_data=_sounds())
