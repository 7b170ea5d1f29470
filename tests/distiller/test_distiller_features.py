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
    SimilarityPreserving,
    SoftTargets,
    VariationalInformation,
)

from _models import cross_entropy, in_flavour

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


def losses():
    return [
        SoftTargets(),
        Hint(["first", "second"], ["first", "second"]),
        VariationalInformation("second", "second"),
        FlowOfSolution(["first", "second"], ["first", "second"]),
        OutputDifference("pooling"),
    ]


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_adapters_and_what_losses_learn_train_and_stay_out_of_the_student(
    image_teacher, image_student, images, hard_loss, flavour
):
    student = in_flavour(image_student, flavour)
    own = len(student.trainable_variables)
    distiller = keras_kd.Distiller(image_teacher, student, losses())
    distiller.compile("sgd", hard_loss, run_eagerly=True)
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
    distiller.compile("sgd", hard_loss, run_eagerly=True)
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
    distiller.compile("sgd", None, run_eagerly=True)
    x, _ = images
    logs = distiller.evaluate(x, batch_size=20, verbose=0, return_dict=True)

    def features(model):
        return keras.Sequential(model.layers[:3])(x, training=False)

    adapted = loss.adapter(features(student))
    expected = np.square(np.asarray(adapted) - np.asarray(features(image_teacher))).mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_saved_distiller_has_its_adapters(image_teacher, image_student, images, tmp_path):
    hard = cross_entropy()
    distiller = keras_kd.Distiller(image_teacher, image_student, losses())
    distiller.compile("adam", hard, run_eagerly=True)
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
    distiller.compile("adam", cross_entropy(), run_eagerly=True)
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
        distiller.compile("sgd", cross_entropy(), run_eagerly=True)
        return distiller

    distiller = new_distiller()
    distiller.fit(*images, verbose=0)
    distiller.save_weights(path)
    other = new_distiller()
    other.load_weights(path)
    one, two = (each._objective.bridges[0].weights[0].numpy() for each in (distiller, other))
    np.testing.assert_array_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("compress", ["prune", "quantize_aware"])
def test_a_compressed_student_is_tapped_by_its_own_names(
    image_teacher, image_student, images, hard_loss, compress
):
    student = getattr(keras_kd.compression, compress)(image_student)
    distiller = keras_kd.Distiller(image_teacher, student, Hint("second", "second"))
    distiller.compile("sgd", hard_loss, run_eagerly=True)
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
    distiller.compile("sgd", hard_loss, run_eagerly=True)
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
    distiller.compile("sgd", hard_loss, run_eagerly=True)
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
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    distiller.fit(*images, verbose=0)
    kernel = distiller.bridges[0].weights[0]
    assert tuple(kernel.shape) == (5, 8)
    before = kernel.numpy()
    distiller.fit(*images, verbose=0)
    assert np.abs(kernel.numpy() - before).max() > 0


def test_no_adapter_across_shapes_where_it_is_forbidden(image_teacher, image_student):
    with pytest.raises(ValueError, match=r"8, 8, 8\) from the teacher.*adapter='auto'"):
        keras_kd.Distiller(image_teacher, image_student, Hint("second", "second", adapter=None))


@pytest.mark.slow
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
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    with pytest.raises(ValueError, match=r"whose shapes are not known.*tf_keras.Model\(inputs"):
        distiller.fit(*images, verbose=0)


@pytest.mark.slow
def test_adapters_are_loaded_without_the_teacher(image_teacher, image_student, images, tmp_path):
    distiller = keras_kd.Distiller(image_teacher, image_student, losses(), save_teacher=False)
    distiller.compile("adam", cross_entropy())
    distiller.fit(*images, batch_size=10, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.teacher = image_teacher
    expected = distiller.evaluate(*images, verbose=0, return_dict=True)
    assert loaded.evaluate(*images, verbose=0, return_dict=True) == pytest.approx(expected, 1e-5)
    loaded.fit(*images, batch_size=10, verbose=0)


def test_a_student_built_by_its_first_step_can_be_saved(image_teacher, images, tmp_path):
    student = keras.Sequential(
        [
            keras.layers.Conv2D(5, 3, name="second"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    distiller = keras_kd.Distiller(image_teacher, student, Hint("second", "second"))
    distiller.compile("adam", cross_entropy(), run_eagerly=True)
    distiller.fit(*images, verbose=0)
    assert distiller.built
    distiller.save_weights(tmp_path / "distiller.weights.h5")
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    expected = distiller.evaluate(*images, verbose=0, return_dict=True)
    assert loaded.evaluate(*images, verbose=0, return_dict=True) == pytest.approx(expected, 1e-5)


def test_a_student_in_double_precision(image_teacher, images, hard_loss):
    keras.config.set_dtype_policy("float64")
    try:
        student = build_image_model(3, 2, "student")
    finally:
        keras.config.set_dtype_policy("float32")
    distiller = keras_kd.Distiller(
        image_teacher,
        student,
        [SoftTargets(lambda step: 4.0 + 0.0 * step), Hint("second", "second")],
        [keras_kd.schedules.warm_up(3), 1.0],
    )
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    assert np.isfinite(distiller.fit(*images, verbose=0).history["loss"]).all()


def test_an_adapter_serves_one_loss(image_teacher, image_student):
    adapter = keras.layers.Dense(8)
    twice = [Hint("second", "second", adapter=adapter) for _ in range(2)]
    with pytest.raises(ValueError, match=r"the adapter 'dense.*in several places.*one layer for"):
        keras_kd.Distiller(image_teacher, image_student, twice)


def test_an_adapter_that_cannot_take_the_features(image_teacher, image_student):
    loss = Hint("second", "second", adapter=keras.layers.Conv1D(8, 1, name="wrong"))
    with pytest.raises(
        ValueError, match=r"the adapter 'wrong' for Hint on features of shape.*Dense"
    ):
        keras_kd.Distiller(image_teacher, image_student, loss)


def test_what_is_exported_is_the_student(image_teacher, image_student, images, hard_loss, tmp_path):
    distiller = keras_kd.Distiller(image_teacher, image_student)
    distiller.export(tmp_path / "student", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "student"))
    np.testing.assert_allclose(
        exported.serve(images[0]), image_student(images[0]), rtol=1e-4, atol=1e-5
    )


@pytest.fixture
def exits():
    """A teacher and a student with two exits and a hidden layer."""

    def build(units, seed, structure):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((5,))
        hidden = keras.layers.Dense(units, activation="tanh", name="hidden")(inputs)
        outputs = [keras.layers.Dense(3, name=name)(hidden) for name in ("first", "second")]
        named = dict(zip(("first", "second"), outputs, strict=True))
        return keras.Model(inputs, named if structure is dict else outputs)

    return build


@pytest.mark.parametrize("structure", [list, dict])
def test_weights_of_examples_count_once_where_there_are_several_outputs(
    exits, examples, hard_loss, structure
):
    x, y = examples
    teacher, student = exits(6, 1, structure), exits(4, 2, structure)
    y = {"first": y, "second": y} if structure is dict else [y, y]
    losses_on_features = [Hint("hidden", "hidden"), SimilarityPreserving("hidden", "hidden")]
    distiller = keras_kd.Distiller(teacher, student, losses_on_features)
    hard = {"first": hard_loss, "second": hard_loss} if structure is dict else [hard_loss] * 2
    distiller.compile("sgd", hard, run_eagerly=True)

    def loss(**options):
        logs = distiller.evaluate(x, y, batch_size=20, verbose=0, return_dict=True, **options)
        return logs["distillation_loss"]

    assert loss(sample_weight=np.ones(20)) == pytest.approx(loss(), rel=1e-5)
    weights = np.r_[np.ones(10), np.zeros(10)]
    adapter = distiller.bridges[0]

    def features(model):
        return keras.Model(model.input, model.get_layer("hidden").output)(x[:10])

    pairs = features(teacher), features(student)
    expected = float(Hint().compute_loss(pairs[0], adapter.adapt(pairs[1])))
    expected += float(SimilarityPreserving().compute_loss(*pairs))
    assert loss(sample_weight=weights) == pytest.approx(0.5 * expected, rel=1e-4)


def test_weights_of_positions_are_averaged_where_features_have_others():
    teacher, student = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    weights = np.random.default_rng(1).uniform(size=(4, 7)).astype("float32")
    value = Hint().compute_loss(teacher, student, sample_weight=weights)
    expected = (np.square(teacher - student).mean(axis=-1) * weights.mean(axis=-1)).mean()
    assert float(value) == pytest.approx(expected, rel=1e-5)
