"""Types of inputs and outputs: against Keras on the real numbers that the stored ones represent."""

import itertools

import keras
import numpy as np
import pytest

from keras_kd import compression, tflite
from keras_kd.tflite import TFLiteModel, microcontroller
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel
from keras_kd.tflite.conversion.ends import reset_states

L = keras.layers
needs_tflm = pytest.mark.skipif(not microcontroller.is_installed(), reason="needs tflite-micro")
# No example reaches the ends of the range: what is calibrated would be narrower.
BYTES = np.random.default_rng(0).integers(9, 231, (64, 8, 8, 1)).astype("uint8")
CALIBRATION = BYTES.astype("float32")


def student(*body, shape=(8, 8, 1)):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(shape, name="image"),
            *body,
            L.Conv2D(4, 3, activation="relu", name="conv"),
            L.Flatten(),
            L.Dense(5, activation="softmax", name="scores"),
        ]
    )


def beside_itself(of_image):
    """A student in which an operator with one scale reads the pixels and something else."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = L.Flatten()(of_image(image))
    return keras.Model(image, L.Dense(5, activation="softmax", name="scores")(x))


CAMERAS = {
    "pixels of 0 to 1": (lambda: student(), 1 / 255),
    "Rescaling to 0 to 1": (lambda: student(L.Rescaling(1 / 255)), 1.0),
    "Rescaling to -1 to 1": (lambda: student(L.Rescaling(1 / 127.5, -1)), 1.0),
    "Rescaling behind Reshape": (
        lambda: student(L.Reshape((8, 8, 1)), L.Rescaling(1 / 255), shape=(64,)),
        1.0,
    ),
    "padded pixels": (lambda: student(L.ZeroPadding2D()), 1 / 255),
    "pixels beside wider maps": (
        lambda: beside_itself(
            lambda image: L.Concatenate()([image, 3 * L.Conv2D(2, 3, padding="same")(image)])
        ),
        1 / 255,
    ),
    "pixels cut off": (
        lambda: beside_itself(lambda image: image + keras.ops.minimum(image, 0.2)),
        1 / 255,
    ),
}


QUICK = {
    ("pixels of 0 to 1", "android"),
    ("Rescaling to -1 to 1", "microcontroller"),
    ("pixels cut off", "android"),
}


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        pytest.param(
            *case,
            marks=[
                *([] if case in QUICK else [pytest.mark.slow]),
                *([needs_tflm] if case[1] == "microcontroller" else []),
            ],
        )
        for case in itertools.product(CAMERAS, ("android", "microcontroller"))
    ],
)
def test_bytes_of_a_camera_are_exact(kind, target):
    make, scale = CAMERAS[kind]
    camera = make()
    shape = (64, *camera.input_shape[1:])
    model = tflite.convert(
        camera,
        "int8",
        CALIBRATION.reshape(shape) * np.float32(scale),
        target,
        input_type="uint8",
        output_type="uint8",
    )
    [image], [scores] = model.inputs, model.outputs
    assert (image.dtype, image.zero_point) == (np.uint8, 0)
    assert image.scale == pytest.approx(scale, rel=1e-6)
    assert (scores.dtype, scores.zero_point, scores.scale) == (np.uint8, 0, 1 / 256)
    assert not model.verification.float_tensors
    stored = model.run_stored({"image": BYTES.reshape(shape)})["scores"]
    pixels = BYTES.reshape(shape) * np.float32(scale)
    expected = camera.predict(pixels, verbose=0)
    np.testing.assert_allclose(stored / 256, expected, atol=0.02)
    np.testing.assert_array_equal(model.predict(pixels), stored / np.float32(256))
    if target == "microcontroller":
        agreement = microcontroller.check_agreement(model, pixels)
        assert (agreement.equal, agreement.allowed_difference) == (1, 0)


@pytest.mark.parametrize(
    ("form", "input_type", "output_type"),
    [
        ("int8", "uint8", None),
        ("int8", None, "uint8"),
        pytest.param("int8", "int8", "uint8", marks=pytest.mark.slow),
        pytest.param("int8", "float32", "int8", marks=pytest.mark.slow),
        pytest.param("int16x8", "int16", "float32", marks=pytest.mark.slow),
        pytest.param("float32", "float32", "float32", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:.*int16x8")
def test_each_end_has_the_type_asked_for(form, input_type, output_type):
    data = CALIBRATION / 255
    model = tflite.convert(student(), form, data, input_type=input_type, output_type=output_type)
    for tensor, asked in ((model.inputs[0], input_type), (model.outputs[0], output_type)):
        assert tensor.dtype == (asked or "float32")
        assert tensor.is_quantized == ((asked or "float32") != "float32")
    np.testing.assert_allclose(model.predict(data), student().predict(data, verbose=0), atol=0.02)


@needs_tflm
def test_a_microcontroller_with_real_numbers_at_its_ends():
    data = CALIBRATION / 255
    model = tflite.convert(
        student(), "int8", data, "microcontroller", input_type="float32", output_type="uint8"
    )
    assert [tensor.dtype.name for tensor in (*model.inputs, *model.outputs)] == ["float32", "uint8"]


@pytest.mark.parametrize("data", [None, pytest.param(CALIBRATION / 255, marks=pytest.mark.slow)])
def test_quantization_aware_students(data):
    aware = compression.quantize_aware(student(), CALIBRATION / 255, input_range=(0, 1))
    model = tflite.convert(
        aware, "int8", data, input_type="uint8", output_type="uint8", input_range=(0, 1)
    )
    [image], [scores] = model.inputs, model.outputs
    assert (image.dtype, image.zero_point, scores.dtype) == (np.uint8, 0, np.uint8)
    assert image.scale == pytest.approx(1 / 255, rel=1e-6)
    stored = model.run_stored({"image": BYTES})["scores"] / 256
    expected = aware.predict(BYTES / np.float32(255), verbose=0)
    np.testing.assert_allclose(stored, expected, atol=0.02)


def test_a_range_that_was_learnt_otherwise_is_warned_of():
    aware = compression.quantize_aware(student(), CALIBRATION / 255)
    with pytest.warns(UserWarning, match=r"uint8 represent 0 to 0.902.*0 to 1.*to quantize_aware"):
        tflite.convert(aware, "int8", input_type="uint8", input_range=(0, 1))


@pytest.mark.filterwarnings("error:.*uint8 represent.*")
def test_bytes_for_a_range_around_zero_are_half_a_step_off():
    data = CALIBRATION / 127.5 - 1
    model = tflite.convert(student(), "int8", data, input_type="uint8")
    [image] = model.inputs
    assert image.scale == pytest.approx(2 / 255, rel=1e-6)
    ends = image.dequantize(np.array([0, 255], "uint8"))
    assert np.abs(ends - [-1, 1]).max() == pytest.approx(1 / 255, rel=1e-4)


@pytest.mark.slow
def test_each_input_has_a_range_of_its_own():
    image, weather = keras.Input((8, 8, 1), name="image"), keras.Input((3,), name="weather")
    x = L.Concatenate()([L.Flatten()(L.Rescaling(1 / 255)(image)), weather])
    model = tflite.convert(
        keras.Model({"image": image, "weather": weather}, L.Dense(4)(x)),
        "int8",
        {"image": CALIBRATION, "weather": np.random.default_rng(0).normal(0, 9, (64, 3))},
        input_type="uint8",
        input_range={"image": (0, 255)},
    )
    found = {tensor.name: tensor for tensor in model.inputs}
    assert (found["image"].scale, found["image"].zero_point) == (1.0, 0)
    # What nothing is said of reaches as far as the examples.
    assert found["weather"].dtype == np.uint8
    assert found["weather"].zero_point > 50


REFUSED = [
    ({"input_type": "uint4"}, r"input_type='uint4'.*'uint8'"),
    ({"input_type": "uint8", "quantization": "float32"}, r"'uint8' with .*'float32'.*='int8'"),
    ({"output_type": "int16"}, r"output_type='int16' with .*='int16x8'"),
    ({"input_type": "uint8", "quantization": "int16x8"}, r"one of 'float32', 'int16'.*='int8'"),
    ({"output_type": "uint8", "target": "web"}, r"target='web'.*browsers.*leave output_type out"),
    (
        {"input_type": "uint8", "quantization": "float32", "recipe": {"*": "int8"}},
        r"'uint8' with a recipe",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_is_refused_early(options, message):
    with pytest.raises(ValueError, match=message):
        tflite.convert(student(), **{"quantization": "int8", **options})


def test_words_stay_integers():
    words = keras.Input((4,), dtype="int32", name="words")
    classifier = keras.Model(words, L.Dense(2)(L.Flatten()(L.Embedding(9, 3)(words))))
    with pytest.raises(ValueError, match=r"words int32\[1, 4\].*real numbers in an input"):
        tflite.convert(classifier, "int8", np.ones((8, 4), np.int32), input_type="uint8")


def test_the_advice_for_pixels_that_are_integers_works():
    def build(dtype):
        body = [L.Rescaling(1 / 255), L.Conv2D(4, 3), L.Flatten(), L.Dense(3, name="scores")]
        return keras.Sequential([keras.Input((8, 8, 1), name="image", dtype=dtype), *body])

    refused = build("uint8")
    with pytest.raises(ValueError, match=r"image uint8.*without dtype='uint8'.*='uint8'"):
        tflite.convert(refused, "int8", BYTES)
    advised = build("float32")
    advised.set_weights(refused.get_weights())
    model = tflite.convert(advised, "int8", BYTES.astype("float32"), input_type="uint8")
    assert (model.inputs[0].scale, model.inputs[0].zero_point) == (1.0, 0)
    expected = refused.predict(BYTES, verbose=0)
    received = model.predict(BYTES.astype("float32"))
    np.testing.assert_allclose(received, expected, atol=0.03 * np.ptp(expected))


KERNELS = ["xnnpack", "builtin", "reference"]


def _data(count=64):
    return np.random.default_rng(0).normal(size=(count, 5, 3)).astype("float32")


@pytest.mark.parametrize("kernels", KERNELS)
def test_an_lstm_gives_the_same_in_every_call(fused_lstm, kernels):
    changed = FlatBufferModel(fused_lstm.content).changed(reset_states)
    model, data = TFLiteModel(changed.content), _data(6)
    expected = fused_lstm.predict(data, kernels)
    # A stream resets nothing: it is what an app does that just calls the file.
    assert np.abs(fused_lstm.predict_stream(data, kernels) - expected).max() > 0.01
    np.testing.assert_array_equal(model.predict_stream(data, kernels), expected)


@pytest.mark.slow
@pytest.mark.skipif(not microcontroller.is_installed(), reason="needs tflite-micro")
def test_also_on_microcontrollers_and_in_integers():
    import tf_keras

    student, data = tf_keras.Sequential([tf_keras.Input((5, 3)), tf_keras.layers.LSTM(4)]), _data()
    model = tflite.convert(student, "int8", data, "microcontroller")
    assert model.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert not model.stateful
    calls = microcontroller.run(model, data, stream=True).stored_outputs
    alone = microcontroller.run(model, data).stored_outputs
    np.testing.assert_array_equal(calls["output"], alone["output"])
    for kernels in KERNELS:
        np.testing.assert_array_equal(
            model.predict_stream(data, kernels), model.predict(data, kernels)
        )


def test_files_without_state_stay_as_they_are(float_model):
    file = FlatBufferModel(float_model.content)
    assert file.changed(reset_states) is file
