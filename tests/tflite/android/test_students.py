import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import android


def _colored(images):
    return np.repeat(images, 3, axis=-1)


@pytest.mark.parametrize("kind", ["sequential", "functional", "subclassed", "tf_keras"])
def test_grey_images_give_what_they_gave(make_student, kind):
    student, images = make_student(kind)
    before = _array(student(images))
    color = android.with_color_input(student)
    assert color.input_shape == (None, 8, 8, 3)
    np.testing.assert_allclose(_array(color(_colored(images))), before, atol=1e-5)
    np.testing.assert_array_equal(_array(student(images)), before)


def _array(output):
    return np.asarray(output["scores"] if isinstance(output, dict) else output)


def test_grey_is_the_mean_of_the_channels(student, images):
    color = np.random.default_rng(1).random((8, 8, 8, 3), np.float32)
    expected = student(color.mean(axis=-1, keepdims=True))
    np.testing.assert_allclose(android.with_color_input(student)(color), expected, atol=1e-5)


def test_the_convolution_does_not_train(student):
    color = android.with_color_input(student)
    layer = color.get_layer("mean_of_channels")
    assert layer.trainable_variables == []
    np.testing.assert_array_equal(layer.kernel, np.full((1, 1, 3, 1), np.float32(1 / 3)))
    assert len(color.trainable_variables) == len(student.trainable_variables)
    assert color.trainable_variables[0] is student.trainable_variables[0]


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("kind", ["functional", "subclassed", "tf_keras"])
def test_names_stay_and_one_operator_is_added(make_student, kind):
    student, _ = make_student(kind)
    model, color = tflite.convert(student), tflite.convert(android.with_color_input(student))
    assert color.inputs[0].name == model.inputs[0].name
    assert color.outputs[0].name == model.outputs[0].name
    assert sum(color.operators.values()) == sum(model.operators.values()) + 1


def test_images_without_channels():
    student = keras.Sequential([keras.Input((8, 8), name="image"), keras.layers.Flatten()])
    color = np.random.default_rng(1).random((4, 8, 8, 3), np.float32)
    expected = color.mean(axis=-1).reshape(4, -1)
    np.testing.assert_allclose(android.with_color_input(student)(color), expected, atol=1e-6)


@pytest.mark.slow
def test_quantization_aware_students(make_student):
    student, images = make_student("quantization-aware")
    scores = android.with_softmax(android.with_color_input(student))
    with pytest.raises(ValueError, match=r"CONV_2D.*representative_data"):
        tflite.convert(scores, "int8")
    model = tflite.convert(scores, "int8", _colored(images))
    assert model.flatbuffer.float_operators() == []
    assert model.inputs[0].shape == (1, 8, 8, 3)
    assert model.outputs[0].name == "scores"
    expected = np.asarray(scores(_colored(images)))
    np.testing.assert_allclose(model.predict(_colored(images)), expected, atol=0.02)


def test_mixed_precision_is_left_behind(make_student):
    student, images = make_student("mixed precision")
    color = android.with_softmax(android.with_color_input(student))
    assert color(_colored(images)).dtype == "float32"
    model = tflite.convert(color)
    expected = np.asarray(keras.ops.softmax(keras.ops.cast(student(images), "float32")))
    np.testing.assert_allclose(model.predict(_colored(images)), expected, atol=0.02)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("kind", ["sequential", "tf_keras"])
def test_softmax(make_student, kind):
    student, images = make_student(kind)
    scores = android.with_softmax(student)
    np.testing.assert_allclose(
        scores(images), keras.ops.softmax(np.asarray(student(images))), atol=1e-6
    )
    model = tflite.convert(scores)
    assert model.operators["SOFTMAX"] == 1
    assert model.outputs[0].name == "scores"
    assert model.inputs[0].name == tflite.convert(student).inputs[0].name


def test_softmax_of_a_sequence_of_any_length():
    student = keras.Sequential(
        [keras.Input((None, 4)), keras.layers.GlobalMaxPooling1D(), keras.layers.Dense(3)]
    )
    x = np.random.default_rng(0).random((2, 7, 4), np.float32)
    np.testing.assert_allclose(android.with_softmax(student)(x).numpy().sum(axis=1), 1, atol=1e-6)


def test_students_that_take_no_grey_images(make_student, color_student):
    several, _ = make_student("several inputs and outputs")
    with pytest.raises(ValueError, match="2 inputs"):
        android.with_color_input(several)
    with pytest.raises(ValueError, match=r"\[1, 8, 8, 3\].*convert a student of color images"):
        android.with_color_input(color_student)
    open_sizes = keras.Sequential([keras.Input((None, None, 1)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match=r"\[1, any, any, 1\].*both known"):
        android.with_color_input(open_sizes)
    image = keras.Input((8, 8, 1))
    double = keras.Model(image, [keras.layers.Flatten(name=name)(image) for name in "ab"])
    with pytest.raises(ValueError, match="outputs a, b"):
        android.with_color_input(double)
    with pytest.raises(ValueError, match=r"keras\.Model or a tf_keras\.Model"):
        android.with_color_input("student.keras")


def test_streams_get_no_layers_from_outside():
    steps = keras.Input((1, 3), batch_size=1)
    student = keras.Model(steps, keras.layers.GRU(4, stateful=True)(steps))
    with pytest.raises(ValueError, match=r"stateful=True.*where it is built"):
        android.with_softmax(student)


def test_students_that_need_no_softmax(student):
    with pytest.raises(ValueError, match=r"probabilities already.*second softmax"):
        android.with_softmax(student)
    single = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"\(None, 1\).*activation='sigmoid'"):
        android.with_softmax(single)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_normalization_by_channel(library, color_student):
    from keras_kd.compression import to_tf_keras

    student = color_student if library == "keras" else to_tf_keras(color_student)
    mean, std = (1, 2, 3), (4.0, 5.0, 6.0)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("float32")
    model = android.with_normalization(student, mean, std)
    expected = student.predict((pixels - np.array(mean)) / np.array(std), verbose=0)
    np.testing.assert_allclose(model.predict(pixels, verbose=0), expected, atol=1e-6)
    assert model.count_params() == student.count_params()
    [image], [scores] = (tensors for tensors in _ends(tflite.convert(model)))
    assert (image, scores) == ("image", "scores")


def _ends(model):
    return [[tensor.name for tensor in tensors] for tensors in (model.inputs, model.outputs)]


@pytest.mark.parametrize(
    ("mean", "std", "error", "message"),
    [
        ((1, 2), 1, ValueError, r"mean=\(1, 2\).*one for each of three channels"),
        (0, (1, 0, 1), ValueError, "std=0.*above 0"),
        ("0", 1, TypeError, "mean='0'"),
    ],
)
def test_normalizations_that_are_none(color_student, mean, std, error, message):
    with pytest.raises(error, match=message):
        android.with_normalization(color_student, mean, std)


def test_normalization_of_grey_images_needs_no_layer(student):
    with pytest.raises(ValueError, match=r"one mean and one std suffice: pass them to Metadata"):
        android.with_normalization(student, 0, 255)
