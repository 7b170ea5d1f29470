import dataclasses

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import android


def _refused(model, metadata, message):
    with pytest.raises(ValueError, match=message) as caught:
        android.add_metadata(model, metadata)
    assert "To fix it: " in str(caught.value)


def test_integers_outside_are_refused(color_student, color_images, plain):
    model = tflite.convert(color_student, "int8", color_images, "microcontroller")
    _refused(model, plain, r"'image' is int8.*MediaPipe.*target='android'")


def test_one_channel_is_refused(float_model, plain):
    _refused(float_model, plain, r"image float32\[1, 8, 8, 1\].*with_color_input\(student\)")


def test_other_inputs_are_refused(make_student, plain):
    wide = keras.Sequential([keras.Input((8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    as_image = dataclasses.replace(plain, input_kind="image")
    _refused(tflite.convert(wide), as_image, r"images of shape \(1, height, width, 3\)")
    several, _ = make_student("several inputs and outputs")
    _refused(tflite.convert(several), plain, "2 inputs and 2 outputs.*leave class_names out")


def test_streams_are_refused(plain):
    layers = [keras.layers.LSTM(2, stateful=True, name="memory"), keras.layers.Dense(3)]
    stream = keras.Sequential([keras.Input((1, 4), batch_size=1), *layers])
    _refused(tflite.convert(stream), plain, r"a stream with the states memory_[ch], memory_[ch]\.")


def test_mean_and_std_are_for_images(plain):
    rows = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    _refused(tflite.convert(rows), plain, r"std=\(255.0,\) for an input of numbers.*leave them out")


def test_a_normalization_by_channel_goes_into_the_model(color_student, color_images):
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    named = android.Metadata(["a", "b", "c"], mean=mean, std=std)
    _refused(tflite.convert(color_student), named, r"differs by channel.*with_normalization")
    pixels = np.round(color_images * 255)
    normalized = ((pixels - mean) / std).astype("float32")
    model = tflite.convert(
        android.with_normalization(color_student, mean, std),
        "int8",
        pixels,
        input_type="uint8",
        output_type="uint8",
    )
    assert (model.inputs[0].scale, model.inputs[0].zero_point) == (1.0, 0)
    described = android.add_metadata(model, android.Metadata(["a", "b", "c"]))
    expected = color_student.predict(normalized, verbose=0)
    np.testing.assert_allclose(described.predict(pixels), expected, atol=0.02)


def test_open_sizes_are_refused(plain):
    layers = keras.layers
    student = keras.Sequential(
        [
            keras.Input((None, None, 3), name="image"),
            layers.Conv2D(3, 3),
            layers.GlobalAveragePooling2D(),
            layers.Softmax(),
        ]
    )
    data = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    model = tflite.convert(student, verification_data=data)
    _refused(model, plain, r"\[1, any, any, 3\].*known height and width")


def test_segments_are_classes_of_pixels(plain):
    def maps(**options):
        return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3, **options)])

    model = tflite.convert(maps(activation="softmax"))
    assert android.read_metadata(android.add_metadata(model, plain)) == plain
    calibrated = dataclasses.replace(
        plain, score_calibration=android.ScoreCalibration([(1.0, 1.0, 0.0)] * 3)
    )
    _refused(model, calibrated, r"calibration for the output .*\[1, 6, 6, 3\].*leave")
    logits = maps(kernel_initializer=keras.initializers.RandomNormal(stddev=9))
    _refused(tflite.convert(logits), plain, r"outputs go from -.*with_softmax\(student\)")
    model = tflite.convert(android.with_softmax(logits))
    assert android.read_metadata(android.add_metadata(model, plain)) == plain


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"]])
def test_as_many_names_as_classes(color_model, plain, names):
    wrong = dataclasses.replace(plain, class_names=names)
    _refused(color_model, wrong, rf"{len(names)} class names for the output scores.*here 3")


def test_logits_are_refused_and_with_softmax_helps(color_student, plain):
    logits = keras.Sequential([*color_student.layers[:-1], keras.layers.Dense(3)])
    logits(keras.ops.zeros((1, 8, 8, 3)))
    logits.layers[-1].set_weights(color_student.layers[-1].get_weights())
    wide = [10 * weights for weights in logits.layers[-1].get_weights()]
    logits.layers[-1].set_weights(wide)
    _refused(tflite.convert(logits), plain, r"outputs go from -.*with_softmax\(student\)")
    model = tflite.convert(android.with_softmax(logits))
    assert android.read_metadata(android.add_metadata(model, plain)) == plain


def test_independent_scores_are_accepted(plain):
    sigmoids = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="sigmoid"),
        ]
    )
    assert android.add_metadata(tflite.convert(sigmoids), plain).size > 0


def test_another_range_than_that_of_calibration_is_refused(phone_model, plain):
    for mean, std in [(0.0, 1.0), (0.0, 255.0**2)]:
        wrong = dataclasses.replace(plain, mean=mean, std=std)
        _refused(phone_model, wrong, r"about 0 to .*calibrated.*normalization\(low, high\)")


def test_files_of_bytes_are_accepted_as_they_are(color_student, color_images, plain):
    """The input of a uint8 file is the pixel, whatever mean and std say."""
    model = tflite.TFLiteModel(_as_uint8(color_student, color_images))
    assert model.inputs[0].dtype == "uint8"
    added = android.add_metadata(model, dataclasses.replace(plain, mean=0.0, std=1.0))
    assert android.read_metadata(added).std == (1.0,)


def _as_uint8(student, images):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(student)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter.convert()
