"""The moving average of the student as its teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_kd
from keras_kd.taps import Tapped
from keras_kd.teachers import Ensemble, MovingAverage

from _models import cross_entropy


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units, name="dense")

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def noisy_model(kit=keras):
    kit.utils.set_random_seed(0)
    return kit.Sequential(
        [
            kit.layers.InputLayer((5,)),
            kit.layers.Dense(4, name="hidden"),
            kit.layers.BatchNormalization(),
            kit.layers.Dropout(0.5),
            kit.layers.Dense(3),
        ],
        name="student",
    )


def floats(model):
    return [np.asarray(weight) for weight in model.weights]


@pytest.mark.parametrize("kit", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_it_begins_as_a_copy_that_shares_nothing(kit, examples):
    student = noisy_model(kit)
    teacher = MovingAverage()
    assert teacher.learning_models == []
    teacher.meet(student)
    (average,) = teacher.learning_models
    np.testing.assert_allclose(teacher(examples[0], None).outputs, student(examples[0]), rtol=1e-6)
    for weight in student.weights:
        weight.assign(weight + 1.0)
    assert not np.allclose(average.weights[0], student.weights[0])


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("kit", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_every_floating_point_weight_moves_by_the_decay(kit, jit_compile):
    student = noisy_model(kit)
    teacher = MovingAverage(0.75)
    teacher.meet(student)
    (average,) = teacher.learning_models
    average.trainable = False

    def step():
        for weight in student.weights:
            weight.assign(weight * 1.5 + 1.0)
        teacher.after_step(student)

    run = step if jit_compile is None else tf.function(step, jit_compile=jit_compile)
    expected = floats(student)
    for _ in range(3):
        run()
        expected = [
            0.75 * old + 0.25 * new for old, new in zip(expected, floats(student), strict=True)
        ]
    for received, wanted in zip(teacher._pairs, expected, strict=True):
        # Where the terms of a sum cancel, they are rounded by their size, which is up to 8.
        np.testing.assert_allclose(received[0], wanted, rtol=1e-6, atol=8 * np.finfo("f4").eps)


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (1, 2 / 11), (90, 0.9), (10**6, 0.9)])
def test_the_first_steps_forget_the_beginning(student, step, decay):
    teacher = MovingAverage(0.9)
    teacher.meet(student)
    before = floats(student)
    for weight in student.weights:
        weight.assign(weight + 1.0)
    teacher.after_step(student, tf.constant(step, "int64"))
    for old, new in zip(before, floats(teacher.learning_models[0]), strict=True):
        np.testing.assert_allclose(new - old, 1 - decay, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kit", [keras, tf_keras])
def test_an_adapted_normalization_is_copied(kit):
    x = np.random.default_rng(0).normal(5.0, 3.0, (50, 2)).astype("float32")
    scaling = kit.layers.Normalization()
    scaling.adapt(x)
    student = kit.Sequential([kit.layers.InputLayer((2,)), scaling, kit.layers.Dense(2)])
    teacher = MovingAverage()
    teacher.meet(student)
    normalized = (x - x.mean(0)) / x.std(0)
    kernel, bias = (np.asarray(weight) for weight in student.layers[-1].weights)
    np.testing.assert_allclose(teacher(x, None).outputs, normalized @ kernel + bias, atol=1e-4)


def test_integers_and_seeds_are_left_alone():
    student = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dropout(0.5), keras.layers.Dense(3)], name="student"
    )
    teacher = MovingAverage(0.5)
    teacher.meet(student)
    (average,) = teacher.learning_models
    before = [np.asarray(v) for v in average.variables if "seed" in v.path]
    student(np.ones((2, 5)), training=True)
    teacher.after_step(student)
    after = [np.asarray(v) for v in average.variables if "seed" in v.path]
    assert len(before) == 1
    assert all(map(np.array_equal, before, after))


def test_weights_of_half_precision():
    student = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, dtype="bfloat16")])
    teacher = MovingAverage(0.5)
    teacher.meet(student)
    teacher.after_step(student, tf.constant(0))
    assert teacher.learning_models[0].weights[0].dtype == "bfloat16"


def test_subclassed_and_nested_students(student, examples):
    subclassed = Subclassed(name="subclassed")
    subclassed(examples[0])
    inputs = keras.Input((5,))
    nested = keras.Model(inputs, keras.layers.Dense(2)(student(inputs)), name="nested")
    for model in (subclassed, nested):
        teacher = MovingAverage()
        teacher.meet(model)
        np.testing.assert_allclose(
            teacher(examples[0], None).outputs, model(examples[0]), rtol=1e-6, atol=1e-6
        )


def test_layers_have_the_names_of_the_student(student, examples):
    teacher = MovingAverage()
    teacher.tap(["hidden"])
    teacher.meet(student)
    features = teacher(examples[0], Tapped(None, {})).features
    np.testing.assert_allclose(features["hidden"], student.layers[0](examples[0]), rtol=1e-6)
    assert teacher.shapes(None).features["hidden"].shape == (None, 4)
    teacher.tap([])
    assert teacher(examples[0], None).features == {}


def test_a_student_without_weights_cannot_be_copied():
    with pytest.raises(ValueError, match=r"it has no weights yet. .* call it on a batch"):
        MovingAverage().meet(Subclassed(name="unbuilt"))


def test_a_student_without_configuration_cannot_be_copied(examples):
    class Opaque(keras.Model):
        def __init__(self, layers):
            super().__init__()
            self.parts = [keras.layers.Dense(3) for _ in range(layers)]

        def call(self, x):
            return self.parts[0](x)

    student = Opaque(1)
    student(examples[0])
    with pytest.raises(ValueError, match="give a subclassed model get_config and from_config"):
        MovingAverage().meet(student)


@pytest.mark.slow
@pytest.mark.parametrize(
    "compress",
    [
        lambda student: keras_kd.compression.prune(
            student, 0.5, schedule=keras_kd.compression.PolynomialSchedule(begin_step=0, end_step=2)
        ),
        lambda student: keras_kd.compression.cluster(student, 4),
        keras_kd.compression.quantize_aware,
    ],
    ids=["pruned", "clustered", "quantization-aware"],
)
def test_a_compressed_student_is_copied_and_followed(compress, student, examples):
    compressed = compress(student)
    teacher = MovingAverage(0.5)
    teacher.meet(compressed)
    expected = compressed(examples[0]).numpy()
    np.testing.assert_allclose(teacher(examples[0], None).outputs, expected, rtol=1e-6)
    distiller = keras_kd.Distiller(teacher, compressed)
    distiller.compile("sgd", "sparse_categorical_crossentropy")
    distiller.fit(*examples, epochs=2, verbose=0)
    followed = np.asarray(teacher(examples[0], None).outputs)
    assert np.isfinite(followed).all()
    assert not np.allclose(followed, expected, rtol=1e-6)


def test_before_a_student():
    teacher = MovingAverage()
    assert teacher.shapes(None) is None
    with pytest.raises(ValueError, match="Received inputs for 'moving_average' before a student"):
        teacher(np.ones((1, 5)), None)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=r"To fix it: use a number such as 0.999"):
        MovingAverage(decay)
    with pytest.raises(TypeError, match="decay='fast'"):
        MovingAverage("fast")


def test_configuration_round_trip():
    teacher = MovingAverage(0.9, name="mean_teacher")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(teacher))
    assert isinstance(again, MovingAverage)
    assert again.get_config() == {"decay": 0.9, "name": "mean_teacher"}


class TestTraining:
    @pytest.mark.fast_rows(1)
    @pytest.mark.parametrize("kit", [keras, tf_keras], ids=["keras", "tf_keras"])
    @pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_the_average_follows_the_student(self, kit, jit_compile, examples):
        student = noisy_model(kit)
        teacher = MovingAverage(0.5)
        distiller = keras_kd.Distiller(teacher, student)
        loss = cross_entropy()
        distiller.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit_compile)
        (average,) = teacher.learning_models
        before = floats(average)
        distiller.fit(*examples, batch_size=20, epochs=1, verbose=0)
        # Of each weight the same part of the way.
        parts = []
        for old, new, target in zip(before, floats(average), floats(student), strict=True):
            moved = np.abs(target - old) > 1e-4
            parts += list(((new - old) / np.where(moved, target - old, 1.0))[moved])
        assert parts
        np.testing.assert_allclose(parts, parts[0], rtol=1e-2)

    def test_evaluation_changes_nothing(self, examples, hard_loss):
        student = noisy_model()
        teacher = MovingAverage(0.5)
        distiller = keras_kd.Distiller(teacher, student)
        distiller.compile("sgd", hard_loss, run_eagerly=True)
        distiller.fit(*examples, verbose=0)
        before = floats(teacher.learning_models[0])
        distiller.evaluate(*examples, verbose=0)
        assert all(map(np.array_equal, before, floats(teacher.learning_models[0])))

    def test_it_is_trained_by_no_gradient(self, examples, hard_loss):
        student = noisy_model()
        distiller = keras_kd.Distiller(MovingAverage(), student)
        distiller.compile("sgd", hard_loss)
        assert len(distiller.trainable_weights) == len(student.trainable_weights)

    @pytest.mark.fast_rows(1)
    @pytest.mark.parametrize(
        "make", [lambda x: x, lambda x: Ensemble([x])], ids=["alone", "member"]
    )
    def test_files_hold_the_average(self, examples, hard_loss, tmp_path, make):
        student = noisy_model()
        teacher = MovingAverage(0.99)
        distiller = keras_kd.Distiller(make(teacher), student)
        distiller.compile(keras.optimizers.SGD(0.5), hard_loss, run_eagerly=True)
        distiller.fit(*examples, epochs=3, verbose=0)
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
        for one, other in zip(
            teacher.learning_models[0].weights,
            loaded.teacher.learning_models[0].weights,
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        distiller.save_weights(tmp_path / "all.weights.h5")
        again = keras_kd.Distiller(make(MovingAverage(0.99)), noisy_model())
        again.load_weights(tmp_path / "all.weights.h5")
        (average,) = again.teacher.learning_models
        for one, other in zip(teacher.learning_models[0].weights, average.weights, strict=True):
            np.testing.assert_array_equal(one, other)
