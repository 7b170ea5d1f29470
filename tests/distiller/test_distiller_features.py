"""Hidden features: one pass, adapters that train and are saved beside the student."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.losses import (
    FlowOfSolution,
    Hint,
    OutputDifference,
    SoftTargets,
    VariationalInformation,
)

FLAVOURS = ["keras", "tf_keras"]


def build_image_model(channels, seed, name, strides=1):
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(channels, 3, strides, "same", activation="relu", name="first"),
            layers.BatchNormalization(momentum=0.5, name="normalization"),
            layers.Conv2D(channels + 2, 3, padding="same", name="second"),
            layers.GlobalAveragePooling2D(name="pooling"),
            layers.Dense(3, name="logits"),
        ],
        name=name,
    )


@pytest.fixture
def image_teacher():
    return build_image_model(6, 1, "teacher")


@pytest.fixture
def image_student():
    return build_image_model(3, 2, "student", strides=2)


@pytest.fixture
def images():
    random = np.random.default_rng(3)
    return random.normal(size=(20, 8, 8, 1)).astype("float32"), random.integers(0, 3, 20)


def in_flavour(student, flavour):
    return student if flavour == "keras" else keras_kd.compression.to_tf_keras(student)


def losses():
    return [
        SoftTargets(),
        Hint(["first", "second"], ["first", "second"]),
        VariationalInformation("second", "second"),
        FlowOfSolution(["first", "second"], ["first", "second"]),
        OutputDifference("pooling"),
    ]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_adapters_and_what_losses_learn_train_and_stay_out_of_the_student(
    image_teacher, image_student, images, hard_loss, flavour
):
    student = in_flavour(image_student, flavour)
    own = len(student.trainable_variables)
    distiller = keras_kd.Distiller(image_teacher, student, losses())
    distiller.compile("sgd", hard_loss)
    bridging = distiller._objective.bridge_weights
    # Hint: 2, VariationalInformation: 2, FlowOfSolution: 2, OutputDifference: 2.
    assert len(bridging) == 8
    assert len(distiller.trainable_variables) == own + 8
    assert len(student.trainable_variables) == own
    before = [weight.numpy() for weight in bridging]
    distiller.fit(*images, batch_size=10, verbose=0)
    assert all(
        np.abs(weight.numpy() - old).max() > 0 for weight, old in zip(bridging, before, strict=True)
    )
    assert {layer.name for layer in student.layers} == {
        layer.name for layer in in_flavour(image_student, flavour).layers
    }


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_one_forward_pass_of_each_model(image_teacher, image_student, images, hard_loss, flavour):
    student = in_flavour(image_student, flavour)
    distiller = keras_kd.Distiller(image_teacher, student, losses())
    distiller.compile("sgd", hard_loss)
    x, y = images
    layer = student.get_layer("normalization")
    batch = student.get_layer("first")(x)
    expected = 0.5 * np.mean(batch, axis=(0, 1, 2))
    distiller.train_on_batch(x, y)
    np.testing.assert_allclose(layer.moving_mean.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert not image_teacher.get_layer("normalization").moving_mean.numpy().any()
    distiller.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(layer.moving_mean.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_that_of_the_features(image_teacher, image_student, images, hard_loss):
    loss = Hint("second", "second", adapter=keras.layers.Dense(8))
    student = build_image_model(3, 2, "student")
    distiller = keras_kd.Distiller(image_teacher, student, loss, student_loss_weight=0.0)
    distiller.compile("sgd", None)
    x, _ = images
    logs = distiller.evaluate(x, batch_size=20, verbose=0, return_dict=True)

    def features(model):
        return keras.Sequential(model.layers[:3])(x, training=False)

    adapted = loss.adapter(features(student))
    expected = np.square(np.asarray(adapted) - np.asarray(features(image_teacher))).mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_saved_distiller_has_its_adapters(image_teacher, image_student, images, tmp_path):
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = keras_kd.Distiller(image_teacher, image_student, losses())
    distiller.compile("adam", hard)
    distiller.fit(*images, batch_size=10, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    expected = distiller.evaluate(*images, verbose=0, return_dict=True)
    assert loaded.evaluate(*images, verbose=0, return_dict=True) == pytest.approx(expected, 1e-5)
    for one, other in zip(distiller.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for model in (distiller, loaded):
        model.fit(*images, batch_size=20, verbose=0)
    np.testing.assert_allclose(
        loaded.bridges[1].weights[0].numpy(), distiller.bridges[1].weights[0].numpy(), rtol=1e-4
    )


def test_the_saved_student_is_the_student_alone(image_teacher, image_student, images, tmp_path):
    distiller = keras_kd.Distiller(image_teacher, image_student, losses())
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(*images, verbose=0)
    distiller.student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert loaded.count_params() == build_image_model(3, 2, "plain").count_params()
    np.testing.assert_allclose(loaded(images[0]), image_student(images[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_weights_files_hold_the_adapters(image_teacher, image_student, images, flavour, tmp_path):
    path = str(tmp_path / "distiller.weights.h5")

    def new_distiller():
        student = in_flavour(image_student, flavour)
        distiller = keras_kd.Distiller(image_teacher, student, Hint("second", "second"))
        distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return distiller

    distiller = new_distiller()
    distiller.fit(*images, verbose=0)
    distiller.save_weights(path)
    other = new_distiller()
    other.load_weights(path)
    one, two = (each._objective.bridges[0].weights[0].numpy() for each in (distiller, other))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("compress", ["prune", "quantize_aware"])
def test_a_compressed_student_is_tapped_by_its_own_names(
    image_teacher, image_student, images, hard_loss, compress
):
    options = {"end_step": 2} if compress == "prune" else {}
    student = getattr(keras_kd.compression, compress)(image_student, **options)
    distiller = keras_kd.Distiller(image_teacher, student, Hint("second", "second"))
    distiller.compile("sgd", hard_loss)
    history = distiller.fit(*images, epochs=2, verbose=0).history
    assert np.isfinite(history["distillation_loss"]).all()
    weights = distiller._objective.bridges[0].weights
    assert [tuple(weight.shape) for weight in weights] == [(5, 8)]
    plain = keras_kd.compression.strip(student)
    assert plain.count_params() == image_student.count_params()


def test_layers_of_nested_models(image_teacher, image_student, images, hard_loss):
    nest = {}
    for name, model in (("teacher", image_teacher), ("student", image_student)):
        model.name = "backbone"
        nest[name] = keras.Sequential([keras.Input((8, 8, 1)), model], name=name)
    loss = Hint("backbone/second", "backbone/second")
    distiller = keras_kd.Distiller(nest["teacher"], nest["student"], loss)
    distiller.compile("sgd", hard_loss)
    distiller.fit(*images, verbose=0)
    assert [tuple(weight.shape) for weight in distiller.bridges[0].weights] == [(5, 8)]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_features_in_half_precision(images, hard_loss, policy):
    teacher = build_image_model(6, 1, "teacher")
    keras.config.set_dtype_policy(policy)
    try:
        student = build_image_model(3, 2, "student")
    finally:
        keras.config.set_dtype_policy("float32")
    distiller = keras_kd.Distiller(teacher, student, Hint("second", "second"))
    distiller.compile("sgd", hard_loss)
    history = distiller.fit(*images, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert distiller.bridges[0].weights[0].dtype == "float32"


def test_a_subclassed_student_that_is_not_built_yet(image_teacher, images, hard_loss):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.second = keras.layers.Conv2D(5, 3, name="second")
            self.logits = keras.layers.Dense(3)

        def call(self, inputs):
            return self.logits(keras.ops.mean(self.second(inputs), axis=(1, 2)))

    distiller = keras_kd.Distiller(image_teacher, Subclassed(), Hint("second", "second"))
    distiller.compile("sgd", hard_loss)
    distiller.fit(*images, verbose=0)
    kernel = distiller.bridges[0].weights[0]
    assert tuple(kernel.shape) == (5, 8)
    before = kernel.numpy()
    distiller.fit(*images, verbose=0)
    assert np.abs(kernel.numpy() - before).max() > 0


def test_no_adapter_across_shapes_where_it_is_forbidden(image_teacher, image_student):
    with pytest.raises(ValueError, match=r"8, 8, 8\) from the teacher.*adapter='auto'"):
        keras_kd.Distiller(image_teacher, image_student, Hint("second", "second", adapter=None))


def test_the_step_compiles_with_xla(image_teacher, image_student, images, hard_loss):
    distiller = keras_kd.Distiller(image_teacher, image_student, losses())
    distiller.compile("sgd", hard_loss, jit_compile=True)
    logs = distiller.train_on_batch(*images, return_dict=True)
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert tf.executing_eagerly()


def test_a_tf_keras_student_without_shapes_cannot_have_adapters(image_teacher, images, hard_loss):
    tf_keras = keras_kd._keras.tf_keras()

    class Subclassed(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.second = tf_keras.layers.Conv2D(5, 3, name="second")
            self.logits = tf_keras.layers.Dense(3)

        def call(self, inputs):
            return self.logits(tf.reduce_mean(self.second(inputs), axis=(1, 2)))

    distiller = keras_kd.Distiller(image_teacher, Subclassed(), Hint("second", "second"))
    distiller.compile("sgd", hard_loss)
    with pytest.raises(ValueError, match=r"whose shapes are not known.*tf_keras.Model\(inputs"):
        distiller.fit(*images, verbose=0)
