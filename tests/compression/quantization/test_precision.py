"""Bits, ranges and structure of kernels, and which layers are quantized."""

import importlib.util

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

from keras_kd import tflite
from keras_kd.compression import cluster, quantize_aware, strip, summary

from _models import outputs

needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None, reason="tflite-micro is not installed"
)


def small_cnn():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), name="image"),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="normalization"),
            layers.ReLU(name="relu"),
            layers.Flatten(),
            layers.Dense(10, name="logits"),
        ]
    )


IMAGES = np.random.default_rng(0).normal(size=(64, 6, 6, 2)).astype("float32")


def kernels_in(model):
    """The kernels in a .tflite file as integers, by their shape."""
    found = {}
    for tensor in model.flatbuffer._model.subgraphs[0].tensors:
        data = model.flatbuffer._model.buffers[tensor.buffer].data
        if data is None or len(tensor.shape) not in (2, 4):
            continue
        integers = np.frombuffer(bytes(data), np.int8)
        if len(data) < np.prod(tensor.shape):
            # Two integers of four bits in each byte, the lower one first.
            integers = np.stack([integers << 4 >> 4, integers >> 4], -1).astype(np.int8)
        found[tuple(tensor.shape)] = integers.reshape(-1)[: np.prod(tensor.shape)].reshape(
            tensor.shape
        )
    return found


CONV, LOGITS = (8, 3, 3, 2), (10, 128)


def fit(student, steps=4):
    student.compile(tf_keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    targets = np.random.default_rng(1).normal(size=(len(IMAGES), 10))
    student.fit(IMAGES, targets, epochs=steps, batch_size=32, verbose=0)
    return student


@pytest.mark.parametrize(
    ("sparse", "wrapped"),
    [
        pytest.param(False, True, id="clustered", marks=pytest.mark.slow),
        pytest.param(False, False, id="clustered and stripped", marks=pytest.mark.slow),
        pytest.param(True, True, id="sparse and clustered"),
        pytest.param(True, False, id="sparse and clustered, stripped", marks=pytest.mark.slow),
    ],
)
def test_clusters_survive_training_stripping_and_conversion(sparse, wrapped):
    student = small_cnn()
    if sparse:
        for name in ("conv", "logits"):
            kernel = student.get_layer(name).kernel
            kernel.assign(np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel))
    clustered = cluster(student, 8)
    aware = quantize_aware(clustered if wrapped else strip(clustered), IMAGES)
    before = strip(clustered).get_layer("logits").kernel.numpy()
    keeps = ("zeros", "clusters") if sparse else ("clusters",)
    assert summary(aware)["conv"].quantization.keeps == keeps

    stripped = strip(fit(aware))
    after = stripped.get_layer("logits").kernel.numpy()
    assert len(np.unique(after)) == len(np.unique(before)) == 8
    assert not np.array_equal(np.unique(after), np.unique(before))
    assert len(np.unique(stripped.get_layer("conv").kernel)) <= 8
    assert summary(stripped).sparsities == summary(strip(clustered)).sparsities

    kernels = kernels_in(tflite.convert(aware, "int8"))
    assert len(np.unique(kernels[LOGITS])) <= 8
    # A range for each channel makes other integers of the same values.
    assert max(len(np.unique(channel)) for channel in kernels[CONV]) <= 8
    if sparse:
        assert np.mean(kernels[LOGITS] == 0) >= 0.5
        assert np.mean(kernels[CONV] == 0) >= 0.5


def test_structure_is_lost_where_it_is_not_preserved():
    student = small_cnn()
    kernel = student.get_layer("logits").kernel
    kernel.assign(np.where(kernel > 0, 0, kernel))
    stripped = strip(fit(quantize_aware(student, IMAGES, preserve_sparsity=False)))
    assert np.mean(stripped.get_layer("logits").kernel == 0) < 0.01


@pytest.mark.slow
def test_layers_in_float_keep_their_structure_too():
    series = keras.Input((5, 3))
    x = layers.Bidirectional(layers.LSTM(4), name="both")(series)
    student = keras.Model(series, layers.Dense(2)(x))
    zeros = {}
    for weight in student.get_layer("both").weights:
        if "kernel" in weight.name:
            weight.assign(np.where(weight.numpy() > 0.1, 0, weight))
            zeros[weight.path] = weight.numpy() == 0
    x = np.random.default_rng(0).normal(size=(32, 5, 3)).astype("float32")
    aware = quantize_aware(student, x)
    row = summary(aware)["both"].quantization
    assert row.is_float
    assert row.keeps == ("zeros",)
    aware.compile(tf_keras.optimizers.Adam(0.01), "mse")
    aware.fit(x, np.zeros((32, 2)), verbose=0)
    stripped = strip(aware).get_layer("both")
    for weight, before in zip(stripped.weights, student.get_layer("both").weights, strict=True):
        if "kernel" in weight.name:
            np.testing.assert_array_equal(weight.numpy() == 0, before.numpy() == 0)
            assert np.abs(weight.numpy() - before.numpy()).max() > 1e-3


@pytest.mark.parametrize(
    ("bits", "stored", "values"),
    [
        (4, "INT4", 15),
        pytest.param(2, "INT4", 3, marks=pytest.mark.slow),
        pytest.param(6, "INT8", 63, marks=pytest.mark.slow),
    ],
)
def test_fewer_bits_are_seen_in_the_file(bits, stored, values):
    aware = fit(quantize_aware(small_cnn(), IMAGES, weight_bits=bits))
    model = tflite.convert(aware, "int8")
    assert stored in model.flatbuffer.weight_types()
    kernels = kernels_in(model)
    assert len(np.unique(kernels[LOGITS])) <= values
    assert max(len(np.unique(channel)) for channel in kernels[CONV]) <= values
    difference = np.abs(model.predict(IMAGES) - outputs(aware, IMAGES))
    assert difference.max() < 0.03 * np.ptp(outputs(aware, IMAGES))


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("android", marks=pytest.mark.slow),
        pytest.param("microcontroller", marks=needs_tflm),
    ],
)
def test_kernels_without_four_bits_keep_eight(target):
    """Depthwise ones run in no TFLM, transposed ones the converter refuses."""
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((6, 6, 2), name="image"),
            layers.SeparableConv2D(4, 3, depth_multiplier=2, name="separable"),
            layers.DepthwiseConv2D(3, depth_multiplier=3, name="depthwise"),
            layers.Conv2DTranspose(5, 2, name="transposed"),
            layers.Flatten(),
            layers.Dense(10, name="logits"),
        ]
    )
    aware = quantize_aware(student, IMAGES, weight_bits=4)
    rows = {layer.name: layer.quantization for layer in summary(aware).layers}
    bits = {name: row.weight_bits for name, row in rows.items() if row.weight_bits}
    assert bits == {"separable": 4, "depthwise": 8, "transposed": 8, "logits": 4}
    assert summary(aware)["separable"].note == "8 bits in its depthwise kernel"
    tensors = tflite.convert(aware, "int8", IMAGES, target).flatbuffer.tensors()
    stored = {tensor.shape: tensor.type for tensor in tensors if len(tensor.shape) in (2, 4)}
    kernels = {
        "depthwise of separable": (1, 3, 3, 4),
        "pointwise": (4, 1, 1, 4),
        "depthwise": (1, 3, 3, 12),
        "transposed": (5, 2, 2, 12),
        "logits": (10, 45),
    }
    assert {name: stored[shape] for name, shape in kernels.items()} == {
        "depthwise of separable": "INT8",
        "pointwise": "INT4",
        "depthwise": "INT8",
        "transposed": "INT8",
        "logits": "INT4",
    }


def test_four_bits_of_depthwise_kernels_are_those_of_the_form_int4():
    student = keras.Sequential(
        [
            keras.Input((6, 6, 2), name="image"),
            layers.DepthwiseConv2D(3, depth_multiplier=16, name="depthwise"),
            layers.Flatten(),
            layers.Dense(10, name="logits"),
        ]
    )
    model = tflite.convert(student, "int4")
    types = {tensor.shape: tensor.type for tensor in model.flatbuffer.tensors() if tensor.bytes}
    assert (types[1, 3, 3, 32], types[10, 512]) == ("INT8", "INT4")


@pytest.mark.slow
def test_what_int4_refuses_quantization_aware_training_saves():
    """An input that is small has large weights, beside which 4 bits leave nothing of the others."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(512, 16)).astype("float32") * ([0.02] + 15 * [1])
    y = (x @ generator.normal(size=(16, 6))).argmax(axis=1)
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((16,), name="vector"),
            layers.Dense(24, activation="relu"),
            layers.Dense(24, activation="relu"),
            layers.Dense(6, activation="softmax", name="scores"),
        ]
    )
    student.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    student.fit(x, y, epochs=20, batch_size=64, verbose=0)
    kernel = student.layers[0].kernel.numpy()
    kernel[0] = 8 * np.abs(kernel).max() * np.sign(kernel[0])
    student.layers[0].kernel.assign(kernel)
    advice = r"quantize_aware\(student, x_train, weight_bits=4\).*convert it to 'int8'"
    with pytest.raises(ValueError, match=advice):
        tflite.convert(student, "int4", x)
    aware = quantize_aware(student, x[:500], weight_bits=4)
    aware.compile(tf_keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    aware.fit(x, y, epochs=10, batch_size=32, verbose=0)
    model = tflite.convert(aware, "int8", x)
    assert "INT4" in model.flatbuffer.weight_types()
    assert (model.predict(x).argmax(axis=1) == y).mean() > 0.8


@pytest.mark.slow
def test_activations_of_four_bits_train_and_do_not_convert():
    aware = fit(quantize_aware(small_cnn(), IMAGES, activation_bits=4), steps=1)
    assert len(np.unique(outputs(aware, IMAGES))) <= 16
    with pytest.raises(ValueError, match="which the converter refuses"):
        tflite.convert(aware, "int8")


@pytest.mark.slow
def test_kernels_with_one_range():
    student = small_cnn()
    # Channels of very different size tell the two ways apart.
    kernel = student.get_layer("conv").kernel
    kernel.assign(kernel * 3.0 ** -np.arange(8))
    for per_channel, most in ((True, 127), (False, 0)):
        aware = quantize_aware(student, IMAGES, per_channel=per_channel, skip="normalization")
        assert summary(aware)["conv"].quantization.per_channel is per_channel
        smallest = kernels_in(tflite.convert(aware, "int8", IMAGES))[CONV][-1]
        assert np.abs(smallest).max() == most


def test_batch_normalization_is_folded():
    student = small_cnn()
    for weight in student.get_layer("normalization").weights:
        weight.assign(np.random.default_rng(0).uniform(0.5, 2, weight.shape))
    aware = quantize_aware(student, IMAGES)
    model = tflite.convert(aware, "int8")
    assert set(model.operators) <= {
        "CONV_2D",
        "DEQUANTIZE",
        "FULLY_CONNECTED",
        "QUANTIZE",
        "RESHAPE",
    }
    difference = np.abs(model.predict(IMAGES) - outputs(aware, IMAGES))
    assert difference.max() < 0.02 * np.ptp(outputs(aware, IMAGES))


@pytest.mark.slow
def test_the_range_of_the_input_is_fixed():
    aware = fit(quantize_aware(small_cnn(), IMAGES, input_range=(-2, 6)), steps=1)
    assert summary(aware)["image"].quantization.output_range == (-2, 6)
    for examples in (None, IMAGES):
        [image] = tflite.convert(aware, "int8", examples, "microcontroller").inputs
        assert image.scale == pytest.approx(8 / 255)


def test_what_is_not_chosen_stays_in_float():
    student = small_cnn()
    for options in ({"layers": ["conv", "normalization", "relu"]}, {"skip": keras.layers.Dense}):
        measured = summary(quantize_aware(student, IMAGES, **options))
        assert measured["logits"].note == "float: it was not chosen"
        assert measured["conv"].quantization.weight_bits == 8
    series = keras.Input((4, 2))
    recurrent = keras.Model(series, layers.Dense(1)(layers.LSTM(2, name="lstm")(series)))
    with pytest.raises(ValueError, match=r"'lstm'\] cannot be quantized"):
        quantize_aware(recurrent, layers=["lstm"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight_bits": 16}, ValueError, "weight_bits=16.*2 to 8 bits"),
        ({"weight_bits": 1}, ValueError, "weight_bits=1.*at least 2"),
        ({"activation_bits": 7.5}, TypeError, "activation_bits=7.5.*an integer"),
        ({"input_range": (1, 2)}, ValueError, r"input_range=\(1, 2\).*holds zero"),
        ({"input_range": (0, 0)}, ValueError, r"input_range=\(0, 0\)"),
        ({"input_range": 1}, TypeError, "input_range=1.*two numbers"),
        ({"input_range": {"picture": (0, 1)}}, ValueError, r"\['picture'\].*\['image'\]"),
    ],
)
def test_options_that_make_no_sense(options, error, message):
    with pytest.raises(error, match=message):
        quantize_aware(small_cnn(), **options)


def test_frozen_normalizations_stay_frozen():
    student = small_cnn()
    student.get_layer("normalization").trainable = False
    aware = fit(quantize_aware(student, IMAGES), steps=1)
    stripped = strip(aware).get_layer("normalization")
    assert not stripped.trainable
    for one, other in zip(
        stripped.get_weights(), student.get_layer("normalization").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@keras.saving.register_keras_serializable("keras_kd_tests")
class Doubled(keras.layers.Layer):
    """A layer that TF-MOT cannot know."""

    def call(self, x):
        return 2 * x


def test_layers_of_ones_own_stay_in_float():
    vector = keras.Input((4,))
    x = Doubled(name="doubled")(layers.Dense(4, activation="relu", name="dense")(vector))
    student = keras.Model(vector, layers.Dense(2)(keras.ops.tanh(x) * 0.5))
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    aware = quantize_aware(student, x)
    assert summary(aware)["doubled"].note == "float: TF-MOT does not know Doubled"
    assert summary(aware)["dense"].quantization.weight_bits == 8
    expected = outputs(student, x)
    np.testing.assert_allclose(outputs(aware, x), expected, atol=0.03 * np.ptp(expected))
    np.testing.assert_allclose(outputs(strip(aware), x), expected, atol=1e-5)
    assert tflite.convert(aware, "int8", x).flatbuffer.float_operators() == []


def test_regularization_is_counted_once():
    student = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))]
    )
    [loss] = quantize_aware(student).losses
    assert float(loss) == pytest.approx(float(student.losses[0]))
