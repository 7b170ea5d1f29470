"""A Distiller whose teacher gives the k largest logits and the mass of the rest."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd import losses
from keras_kd._logits import Logits, Top, recognise_logits, remember_logits, top_of
from keras_kd.distiller.watch import TeacherWatch
from keras_kd.losses import LogitsMSE, SoftCrossEntropy, SoftTargets
from keras_kd.taps import Tapped
from keras_kd.teachers import Teacher

CLASSES = 7
MODES = {
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
}
REFUSED = rf"Received the largest logits of {CLASSES} classes, stored with top_k, for {{name}}\."


def with_top(values, classes, rest):
    remember_logits(values, Logits(values, "softmax", top=Top(classes, {4.0: rest}, CLASSES)))
    return values


class Top3(Teacher):
    """Three logits of a model's; `tells` says whether it knows its shapes before the first step."""

    name = "top_3"

    def __init__(self, model, tells=True):
        self.model = model
        self.tells = tells

    def tap(self, layer_names):
        assert not layer_names

    def shapes(self, student):
        if not self.tells:
            return None
        return Tapped(with_top(keras.KerasTensor((None, 3)), None, None), {})

    def __call__(self, inputs, student):
        logits = self.model(inputs)
        values, classes = tf.math.top_k(logits, 3)
        marked = tf.reduce_any(tf.one_hot(classes, CLASSES, on_value=True, off_value=False), axis=1)
        rest = tf.where(marked, -np.inf, logits / 4.0)
        return Tapped(with_top(values, classes, tf.reduce_logsumexp(rest, axis=-1)), {})


class Foreign(keras.distillation.DistillationLoss):
    """A user's own loss, after Keras' class."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return keras.ops.mean(teacher_outputs) - keras.ops.mean(student_outputs)


class Own(losses.DistillationLoss):
    """A user's own loss, after this package's class."""

    def per_example(self, teacher_output, student_output, **context):
        return keras.ops.mean(student_output, axis=-1)


@pytest.fixture
def large(dense_model):
    return dense_model(CLASSES, units=6, seed=1)


@pytest.fixture
def small(dense_model):
    return dense_model(CLASSES, seed=2)


@pytest.mark.parametrize(
    ("loss_class", "mode"),
    [
        (SoftTargets, "eager"),
        (SoftTargets, "graph"),
        pytest.param(SoftTargets, "jit", marks=pytest.mark.slow),
        (SoftCrossEntropy, "eager"),
        pytest.param(SoftCrossEntropy, "graph", marks=pytest.mark.slow),
        pytest.param(SoftCrossEntropy, "jit", marks=pytest.mark.slow),
    ],
)
def test_the_student_takes_the_step_of_the_coarse_loss(large, small, examples, loss_class, mode):
    x, _ = examples
    teacher = Top3(large)
    distiller = keras_kd.Distiller(teacher, small, loss_class(4.0), student_loss_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.5), **MODES[mode])
    before = [variable.numpy() for variable in small.trainable_variables]
    with tf.GradientTape() as tape:
        value = loss_class(4.0).compute_loss(teacher(x, None).outputs, small(x))
    slopes = tape.gradient(value, [variable.value for variable in small.trainable_variables])
    logs = distiller.train_on_batch(x, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(float(value), rel=1e-5)
    for variable, start, slope in zip(small.trainable_variables, before, slopes, strict=True):
        np.testing.assert_allclose(variable.numpy(), start - 0.5 * slope.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        LogitsMSE(),
        losses.SimilarityPreserving(),
        Own(),
        Foreign(),
        keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence()),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_other_losses_are_refused(large, small, examples, loss):
    name = type(loss).__name__
    with pytest.raises(ValueError, match=REFUSED.format(name=name)):
        keras_kd.Distiller(Top3(large), small, [SoftTargets(), loss])
    late = keras_kd.Distiller(Top3(large, tells=False), small, [loss], student_loss_weight=0.0)
    late.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=REFUSED.format(name=name)):
        late.train_on_batch(examples[0])


@pytest.mark.parametrize("temperature", [2.0, lambda step: 4.0])
def test_temperatures_that_are_not_known_are_refused(large, small, examples, temperature):
    message = "in SoftTargets for logits stored with top_k, the mass of the rest at the .* 4.0"
    loss = SoftTargets(temperature)
    with pytest.raises(ValueError, match=message):
        keras_kd.Distiller(Top3(large), small, loss)
    late = keras_kd.Distiller(Top3(large, tells=False), small, loss, student_loss_weight=0.0)
    late.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        late.train_on_batch(examples[0])


def test_another_number_of_classes_is_refused(large, student):
    with pytest.raises(ValueError, match=r"shape \(None, 7\) from the teacher and \(None, 3\)"):
        keras_kd.Distiller(Top3(large), student)


def test_it_is_saved_and_loaded_without_its_teacher(large, small, examples, tmp_path):
    x, _ = examples
    distiller = keras_kd.Distiller(Top3(large), small, student_loss_weight=0.0, save_teacher=False)
    distiller.compile("sgd", run_eagerly=True)
    before = distiller.test_on_batch(x, return_dict=True)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.teacher = Top3(large)
    after = loaded.test_on_batch(x, return_dict=True)
    # Keras 3.12 gives arrays without dimensions, which pytest does not compare within a dict.
    assert {name: float(value) for name, value in after.items()} == pytest.approx(
        {name: float(value) for name, value in before.items()}, rel=1e-6
    )
    with pytest.raises(ValueError, match="for LogitsMSE"):
        keras_kd.Distiller(Top3(large), small, LogitsMSE(), save_teacher=False)


@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("jit", marks=pytest.mark.slow)])
def test_nan_from_the_teacher_does_not_reach_the_student(large, small, examples, mode):
    class Damaged(Top3):
        def __call__(self, inputs, student):
            values = super().__call__(inputs, student).outputs
            top = top_of(values)
            return Tapped(with_top(values * np.nan, top.classes, top.rest[4.0]), {})

    distiller = keras_kd.Distiller(Damaged(large), small, student_loss_weight=0.0)
    distiller.compile("sgd", **MODES[mode])
    with pytest.raises(ValueError, match="NaN or infinite outputs from the teacher 'top_3'"):
        distiller.train_on_batch(examples[0])
    assert all(np.isfinite(values).all() for values in small.get_weights())


def test_the_watch_hands_on_what_is_known_of_the_rest():
    rest = tf.constant([-np.inf, 0.5])
    values = with_top(tf.constant([[0.0, -1.0], [0.0, -2.0]]), tf.constant([[1, 2], [3, 4]]), rest)
    clean = TeacherWatch("top", softened=True).look(values)
    assert top_of(clean) is top_of(values)
    assert recognise_logits(clean).activation == "softmax"
    np.testing.assert_array_equal(recognise_logits(clean).logits, values)


def test_a_tf_keras_student(large, examples):
    import tf_keras

    tf_keras.utils.set_random_seed(2)
    student = tf_keras.Sequential([tf_keras.layers.Input((5,)), tf_keras.layers.Dense(CLASSES)])
    x, _ = examples
    teacher = Top3(large)
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.0)
    distiller.compile(tf_keras.optimizers.SGD(0.1), run_eagerly=True)
    expected = SoftTargets(4.0).compute_loss(teacher(x, None).outputs, student(x))
    logs = distiller.train_on_batch(x, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ValueError, match=REFUSED.format(name="LogitsMSE")):
        keras_kd.Distiller(teacher, student, LogitsMSE())
