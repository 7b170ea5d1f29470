"""Bit-equality with LiteRT's reference kernels, layer by layer."""

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.compression import to_tf_keras
from keras_kd.tflite import microcontroller

needs_tflm = pytest.mark.skipif(
    not microcontroller.is_installed(), reason="tflite-micro is not installed"
)
layers = keras.layers


def _data(*shape):
    return np.random.default_rng(0).normal(size=(48, *shape)).astype(np.float32)


def _squeeze_and_excite(x):
    scale = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return x * layers.Conv2D(3, 1, activation="sigmoid")(scale)


def _student(layer, *shape):
    keras.utils.set_random_seed(0)
    x = keras.Input(shape, name="x")
    return keras.Model(x, layer(x))


LAYERS = {
    "convolution": (layers.Conv2D(8, 3), (8, 8, 3)),
    "convolution with strides": (layers.Conv2D(8, 3, 2, "same", activation="relu"), (8, 8, 3)),
    "depthwise": (layers.DepthwiseConv2D(3, padding="same"), (8, 8, 3)),
    "separable": (layers.SeparableConv2D(8, 3), (8, 8, 3)),
    "transposed": (layers.Conv2DTranspose(4, 3, 2), (4, 4, 3)),
    "dense": (layers.Dense(64), (96,)),
    "dense with relu": (layers.Dense(64, activation="relu", bias_initializer="normal"), (96,)),
    "dense on a sequence": (layers.Dense(16, activation="tanh"), (9, 24)),
    "softmax": (layers.Dense(10, activation="softmax"), (40,)),
    "average": (layers.GlobalAveragePooling2D(), (8, 8, 3)),
    "attention": (lambda x: layers.MultiHeadAttention(2, 8)(x, x), (10, 16)),
    "squeeze and excite": (_squeeze_and_excite, (8, 8, 3)),
}


@needs_tflm
@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYERS)
def test_every_layer_is_bit_equal_in_int8(kind):
    layer, shape = LAYERS[kind]
    data = _data(*shape)
    model = tflite.convert(_student(layer, *shape), "int8", data, target="microcontroller")
    agreement = microcontroller.check_agreement(model, data)
    assert (agreement.examples, agreement.equal, agreement.largest_difference) == (48, 1, 0)
    assert agreement.allowed_difference == 0
    # LiteRT's optimized kernels are not the measure: they are a step off, and a tanh makes five.
    assert agreement.optimized_equal > 0.9


@needs_tflm
def test_a_student_is_bit_equal(micro_model, images):
    agreement = microcontroller.check_agreement(micro_model, images)
    assert agreement.examples == 64
    assert agreement.equal == 1
    assert agreement.largest_difference == agreement.allowed_difference == 0
    assert agreement.optimized_equal > 0.95
    assert agreement.optimized_difference <= 4
    assert agreement.arena_bytes == microcontroller.run(micro_model, images[:1]).arena_bytes
    assert "100.00% of the values bit-equal to LiteRT's reference kernels" in str(agreement)


@needs_tflm
def test_floats_agree_too(float_model, images):
    agreement = microcontroller.check_agreement(float_model, images)
    assert agreement.largest_difference < 1e-5
    assert agreement.allowed_difference == 1e-4


@needs_tflm
@pytest.mark.slow
def test_state_does_not_leak_from_one_example_into_the_next():
    import tf_keras

    student = tf_keras.Sequential([tf_keras.Input((5, 3)), tf_keras.layers.LSTM(4)])
    model = tflite.convert(student)
    data = np.random.default_rng(0).random((8, 5, 3), np.float32)
    assert microcontroller.check_agreement(model, data).largest_difference < 1e-5
    # The same example, first and after another.
    outputs = microcontroller.run(model, data[[1, 0, 1]]).outputs["output"]
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


@needs_tflm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "allowed"), [(layers.Dense(16), 0), (layers.Activation("silu"), 4)]
)
def test_int16_is_bit_equal_but_for_multiplications(layer, allowed):
    data = _data(400)
    model = tflite.convert(_student(layer, 400), "int16x8", data, target="microcontroller")
    agreement = microcontroller.check_agreement(model, data)
    assert agreement.allowed_difference == allowed
    assert agreement.largest_difference <= min(1, allowed)
    # If this fails, TFLM's MUL is bit-equal now, and needs no exception.
    assert (agreement.equal == 1) == (allowed == 0)


@needs_tflm
def test_what_tflm_computes_wrongly_is_refused():
    # RELU6 on its own is wrong in TFLM by up to 128 of 256 steps.
    data = _data(8, 8, 3)
    student = _student(layers.ReLU(6.0), 8, 8, 3)
    with pytest.raises(ValueError, match=r"Micro that differ .*RELU6.*at most 0: .*right behind"):
        tflite.convert(student, "int8", data, target="microcontroller")


WRONG = """import numpy as np
    outputs = np.load({path!r})
    outputs.flat[37] += {by}
    return [outputs], 1000"""


@needs_tflm
@pytest.mark.parametrize(("form", "by"), [("int8", 1), ("float", 0.001), ("float", "np.nan")])
def test_one_other_value_is_refused(
    form, by, micro_model, float_model, images, replace_worker, tmp_path
):
    model = micro_model if form == "int8" else float_model
    expected = microcontroller.run(model, images).stored_outputs["output"]
    np.save(tmp_path / "expected.npy", np.clip(expected, None, 100))
    replace_worker(WRONG.format(path=str(tmp_path / "expected.npy"), by=by))
    with pytest.raises(ValueError, match=r"differ from LiteRT's by up to .* in 1 of 64 examples"):
        microcontroller.check_agreement(model, images)


@needs_tflm
@pytest.mark.slow
def test_an_lstm_in_int8_is_a_step_off():
    import tf_keras

    student = tf_keras.Sequential([tf_keras.Input((5, 3)), tf_keras.layers.LSTM(8)])
    data = _data(5, 3)
    model = tflite.convert(student, "int8", data, target="microcontroller")
    agreement = microcontroller.check_agreement(model, data)
    assert agreement.allowed_difference == 4
    # Its cell state has 16 bits.
    assert model.flatbuffer.form == "int8"
    # If it is bit-equal, TFLM's LSTM needs no exception any more.
    assert agreement.largest_difference == 1
    assert agreement.equal > 0.9
    # It is off by as much if bytes or real numbers come out.
    for output_type, step in (("uint8", 1), ("float32", model.outputs[0].scale)):
        model = tflite.convert(
            student, "int8", data, target="microcontroller", output_type=output_type
        )
        agreement = microcontroller.check_agreement(model, data)
        assert agreement.allowed_difference == pytest.approx(4 * step)
        assert agreement.largest_difference == pytest.approx(step, rel=1e-4)


@needs_tflm
@pytest.mark.slow
def test_weights_of_4_bits_are_bit_equal_too():
    from keras_kd import compression

    data = _data(8, 8, 1)
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    student = compression.quantize_aware(student, data, weight_bits=4)
    model = tflite.convert(student, "int8", data, target="microcontroller")
    assert "INT4" in model.flatbuffer.weight_types()
    agreement = microcontroller.check_agreement(model, data)
    assert (agreement.equal, agreement.allowed_difference) == (1, 0)


@needs_tflm
def test_where_both_say_nan_they_agree():
    """A mean over no words: all of them are padding."""
    words = keras.Input((4,), dtype="int32", name="words")
    x = keras.layers.Embedding(5, 3, mask_zero=True)(words)
    student = keras.Model(words, keras.layers.GlobalAveragePooling1D()(x))
    model = tflite.convert(to_tf_keras(student))
    padding = np.zeros((2, 4), np.int32)
    assert np.isnan(model.predict(padding)).all()
    assert microcontroller.check_agreement(model, padding).equal == 1


@needs_tflm
def test_an_operator_without_a_reference_kernel():
    student = keras.Sequential([keras.Input((12,)), layers.Dense(8, activation="elu")])
    model = tflite.convert(student, target="microcontroller")
    agreement = microcontroller.check_agreement(model)
    assert agreement.kernels == "builtin"
    assert agreement.largest_difference < 1e-5
    assert "bit-equal to LiteRT's builtin kernels" in str(agreement)


@needs_tflm
def test_a_reference_kernel_that_is_listed_in_an_older_version():
    tf = pytest.importorskip("tensorflow")
    student = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(8, 3),
            layers.Lambda(lambda x: tf.nn.depth_to_space(x, 2)),
        ]
    )
    data = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")
    model = tflite.convert(student, "int8", data, "microcontroller")
    agreement = microcontroller.check_agreement(model, data)
    assert (agreement.kernels, agreement.equal) == ("reference", 1)
