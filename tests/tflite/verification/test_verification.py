import keras
import numpy as np
import pytest

from keras_kd import tflite


def test_a_file_computes_what_its_student_does(float_model, student, images):
    verification = tflite.verify(float_model, student, images)
    assert verification.examples == 64
    assert 0 < verification.mean_difference <= verification.largest_difference < 1e-5
    assert verification.agreement == 1.0


def test_another_student_is_told_apart(float_model, images):
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, name="logits")]
    other = keras.Sequential([keras.Input((8, 8, 1), name="image"), *layers])
    with pytest.raises(ValueError, match=r"outputs .*'output'.*'logits'.*pass the student that"):
        tflite.verify(float_model, other, images)


def test_differences_are_those_of_the_outputs(micro_model, student, images):
    difference = np.abs(micro_model.predict(images) - student.predict(images, verbose=0))
    verification = tflite.verify(micro_model, student, images)
    assert verification.largest_difference == pytest.approx(difference.max(), abs=1e-6)
    assert verification.mean_difference == pytest.approx(difference.mean(), abs=1e-6)


def test_no_example(float_model, student, images):
    with pytest.raises(ValueError, match="x without an example"):
        tflite.verify(float_model, student, images[:0])
