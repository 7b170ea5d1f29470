"""From a Keras 3 teacher to a file on a device, through every room, as a user goes."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd
from keras_kd.compression import prune, quantize_aware, strip, summary

from _models import cross_entropy

SHAPE, CLASSES, SPARSITY = (8, 8, 1), 3, 0.6


@pytest.fixture(scope="module")
def data():
    """Images whose class is where they are bright."""
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, 96)
    x = random.random((96, *SHAPE)).astype("float32") / 2
    x[np.arange(96), :, 2 * y + 1] += 0.5
    return x, y


def build(body, name):
    keras.utils.set_random_seed(1)
    image = keras.Input(SHAPE, name="image")
    return keras.Model(image, body(image), name=name)


def head(x):
    x = layers.Flatten()(x)
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    return layers.Dense(CLASSES, name="logits")(x)


def plain(image):
    x = layers.Conv2D(6, 3, use_bias=False, name="conv")(image)
    return head(layers.ReLU()(layers.BatchNormalization()(x)))


def rescaled(image):
    x = layers.Rescaling(2.0, offset=-1.0, name="rescaling")(image)
    return head(layers.Conv2D(6, 3, activation="relu", name="conv")(x))


def residual(image):
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(image)
    branch = layers.Conv2D(6, 3, padding="same", name="branch")(x)
    return head(layers.ReLU()(layers.Add(name="add")([x, branch])))


def depthwise(image):
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(image)
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    return head(layers.ReLU(6.0)(layers.BatchNormalization()(x)))


def separable(image):
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(image)
    return head(layers.SeparableConv2D(8, 3, activation="relu", name="separable")(x))


@pytest.fixture(scope="module")
def teacher(data):
    model = build(plain, "wise_teacher")
    model.compile(keras.optimizers.Adam(0.01), cross_entropy(), metrics=["accuracy"])
    model.fit(*data, epochs=12, batch_size=16, verbose=0)
    return model


def taught(teacher, student, data, losses=None, callbacks=(), epochs=4):
    distiller = keras_kd.Distiller(teacher, student, losses)
    distiller.compile(
        keras.optimizers.Adam(0.01),
        cross_entropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="right")],
    )
    history = distiller.fit(*data, epochs=epochs, batch_size=16, verbose=0, callbacks=callbacks)
    return distiller.student, history.history


def outputs(model, x):
    return keras.tree.map_structure(
        lambda tensor: np.asarray(tensor, "float32"), model(x, training=False)
    )


def assert_close(predicted, expected, share):
    """Equal up to a share of the range of what is expected."""
    assert np.abs(predicted - expected).max() <= share * np.ptp(expected)


def zeros_in_file(model):
    """The share of zeros in each stored int8 weight that is no bias, read from the bytes."""
    from ai_edge_litert import schema_py_generated as schema

    content = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model.content, 0))
    shares = []
    for tensor in content.subgraphs[0].tensors:
        stored = content.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.INT8 and stored is not None and len(tensor.shape) > 1:
            shares.append(float(np.mean(np.asarray(stored) == 0)))
    return shares


@pytest.fixture(scope="module")
def path(teacher, data):
    """One student, pruned, quantized while it is taught, and converted."""
    pruned, history = taught(teacher, prune(build(plain, "student"), SPARSITY), data)
    aware, _ = taught(teacher, quantize_aware(pruned, data[0]), data)
    return pruned, history, aware, keras_kd.tflite.convert(aware, "int8")


class TestOnePath:
    def test_the_sparsity_asked_for_is_measured_after_teaching(self, path):
        pruned, history, _, _ = path
        assert summary(pruned).sparsities == pytest.approx(
            {"conv": SPARSITY, "hidden": SPARSITY, "logits": SPARSITY}, abs=0.02
        )
        assert {"loss", "student_loss", "distillation_loss", "total_loss", "right"} <= {*history}

    def test_zeros_survive_quantization_aware_training_down_to_the_bytes(self, path):
        *_, aware, model = path
        assert summary(strip(aware)).sparsity == pytest.approx(SPARSITY, abs=0.02)
        shares = zeros_in_file(model)
        assert len(shares) == 3
        assert min(shares) >= SPARSITY - 0.02

    @pytest.mark.parametrize("target", ["android", "microcontroller"])
    def test_the_file_predicts_what_the_student_predicts(self, path, data, target):
        _, _, aware, model = path
        if target == "microcontroller":
            model = keras_kd.tflite.convert(aware, "int8", target=target)
            assert [str(tensor.dtype) for tensor in model.inputs + model.outputs] == ["int8"] * 2
        x, y = data
        expected = outputs(aware, x)
        assert_close(model.predict(x), expected, share=0.03)
        assert np.mean(model.predict(x).argmax(-1) == y) > 0.9

    def test_a_stripped_student_is_plain_keras_and_can_be_taught_again(self, path, teacher, data):
        pruned, *_ = path
        plain_again = strip(pruned)
        assert isinstance(plain_again, keras.Model)
        assert {"image", "conv", "hidden", "logits"} <= {layer.name for layer in plain_again.layers}
        np.testing.assert_allclose(
            outputs(plain_again, data[0]), outputs(pruned, data[0]), atol=1e-5
        )
        _, history = taught(teacher, plain_again, data, epochs=3)
        assert history["right"][-1] > 0.9

    def test_the_bytes_of_a_pruned_student_compress_better(self, path):
        pruned, *_ = path
        dense = keras_kd.tflite.convert(build(plain, "student"))
        sparse = keras_kd.tflite.convert(strip(pruned))
        assert sparse.compressed_size < 0.8 * dense.compressed_size


@pytest.mark.slow
@pytest.mark.parametrize("body", [rescaled, residual, depthwise, separable])
def test_students_of_other_layers(body, teacher, data):
    x, _ = data
    pruned, _ = taught(teacher, prune(build(body, "student"), SPARSITY), data, epochs=2)
    assert summary(pruned).sparsity == pytest.approx(SPARSITY, abs=0.02)
    np.testing.assert_allclose(outputs(strip(pruned), x), outputs(pruned, x), atol=1e-5)

    aware, _ = taught(teacher, quantize_aware(pruned, x), data, epochs=2)
    assert summary(strip(aware)).sparsity >= SPARSITY - 0.02
    for target in ("android", "microcontroller"):
        # TF-MOT leaves Rescaling in float; the data are for such layers.
        model = keras_kd.tflite.convert(aware, "int8", x, target=target)
        assert_close(model.predict(x), outputs(aware, x), share=0.05)


def test_features_by_layer_name_teach_a_pruned_student(teacher, data):
    features = keras.distillation.FeatureDistillation(
        loss="mse", teacher_layer_name="hidden", student_layer_name="hidden"
    )
    losses = [keras_kd.losses.SoftTargets(2.0), features]
    seen = Seen()
    pruned, history = taught(
        teacher, prune(build(plain, "student"), SPARSITY), data, losses, callbacks=[seen]
    )
    assert summary(pruned).sparsity == pytest.approx(SPARSITY, abs=0.02)
    assert seen.epochs == [0, 1, 2, 3]
    assert history["distillation_loss"][-1] < history["distillation_loss"][0]


class Seen(keras.callbacks.Callback):
    """Remembers its epochs."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(epoch)


def two_headed(image):
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(image)
    x = layers.Flatten()(x)
    return {
        "kind": layers.Dense(CLASSES, name="kind")(x),
        "place": layers.Dense(2, name="place")(x),
    }


@pytest.mark.slow
def test_several_outputs_keep_their_names_to_the_file(data):
    x, y = data
    teacher, student = build(two_headed, "wise_teacher"), build(two_headed, "student")
    labels = {"kind": y, "place": np.stack([y, 1 - y], 1).astype("float32")}

    def teach(student):
        distiller = keras_kd.Distiller(
            teacher, student, keras_kd.losses.SoftTargets(4.0, outputs="kind")
        )
        distiller.compile("adam", {"kind": cross_entropy(), "place": "mse"})
        distiller.fit(x, labels, epochs=2, batch_size=16, verbose=0)
        return student

    pruned = teach(prune(student, SPARSITY))
    assert summary(pruned).sparsity == pytest.approx(SPARSITY, abs=0.02)
    aware = teach(quantize_aware(pruned, x))
    expected = outputs(aware, x)
    for target in ("android", "microcontroller"):
        predicted = keras_kd.tflite.convert(aware, "int8", target=target).predict(x)
        assert set(predicted) == {"kind", "place"}
        for name in predicted:
            assert_close(predicted[name], expected[name], share=0.05)


def test_a_student_in_mixed_precision_is_taught_and_converted(teacher, data):
    x, _ = data
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = build(plain, "student")
    finally:
        keras.config.set_dtype_policy("float32")
    taught(teacher, student, data, epochs=2)
    model = keras_kd.tflite.convert(student)
    assert str(model.inputs[0].dtype) == "float32"
    assert_close(model.predict(x), outputs(student, x), share=0.02)
