"""Teachers that say NaN or infinity stop the training before the student is harmed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.distiller.watch import TeacherWatch
from keras_kd.losses import LogitsMSE

MESSAGE = (
    r"Received NaN or infinite outputs from the teacher 'wise_teacher'\. Expected finite outputs.*"
    r"To fix it: look at teacher.predict"
)
MODES = {
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "steps per execution": {"steps_per_execution": 2, "jit_compile": False},
}


@pytest.mark.parametrize(
    ("mode", "activation"), [*((mode, None) for mode in MODES), ("eager", "softmax")]
)
def test_a_broken_teacher_stops_training_and_leaves_the_student_finite(
    dense_model, teacher, student, examples, hard_loss, mode, activation
):
    if activation:
        teacher = dense_model(units=6, seed=1, name="wise_teacher", activation=activation)
    # In the last layer: what the processor computes of an activation may be finite for NaN.
    kernel = teacher.get_layer("outputs").kernel
    kernel.assign(kernel * np.nan)
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("adam", hard_loss, **MODES[mode])
    x, y = examples
    with pytest.raises(ValueError, match=MESSAGE):
        distiller.fit(x, y, batch_size=8, verbose=0)
    with pytest.raises(ValueError, match=MESSAGE):
        distiller.evaluate(x, y, batch_size=8, verbose=0)
    if mode != "steps per execution":
        with pytest.raises(ValueError, match=MESSAGE):
            distiller.train_on_batch(x, y)
        with pytest.raises(ValueError, match=MESSAGE):
            distiller.test_on_batch(x, y)
    for values in student.get_weights():
        assert np.isfinite(values).all()


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_one_bad_value_in_one_batch_is_enough(teacher, student, examples, hard_loss, bad):
    # The student does not see the bad number: only the teacher's outputs are not finite.
    x, y = examples
    twice = np.stack([x, x], axis=-1)
    twice[13, 2, 0] = bad

    def reads(model, part):
        inputs = keras.Input((5, 2))
        return keras.Model(inputs, model(inputs[..., part]))

    linear = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    distiller = keras_kd.Distiller(reads(linear, 0), reads(student, 1))
    distiller.compile("sgd", hard_loss, jit_compile=False)
    with pytest.raises(ValueError, match="NaN or infinite outputs from the teacher"):
        distiller.fit(twice, y, batch_size=8, verbose=0)
    assert np.isfinite(student.get_weights()[0]).all()
    distiller.fit(np.stack([x, x], axis=-1), y, batch_size=8, verbose=0)


def test_after_the_report_the_watch_starts_anew():
    watch = TeacherWatch("wise_teacher", softened=True)
    clean = tf.function(watch.look)(tf.constant([[1.0, np.nan]]))
    np.testing.assert_array_equal(clean, [[1.0, 0.0]])
    with pytest.raises(ValueError, match=MESSAGE):
        watch.report()
    watch.report()


def test_outside_compiled_steps_it_speaks_up_at_once():
    with pytest.raises(ValueError, match=MESSAGE):
        TeacherWatch("wise_teacher", softened=True).look(np.array([[1.0, np.inf]], "float32"))


def test_whole_numbers_are_let_through():
    watch = TeacherWatch("wise_teacher", softened=True)
    labels = np.array([[1, 2]])
    np.testing.assert_array_equal(watch.look(labels), labels)
    watch.report()


def test_what_it_counts_can_be_kept_on_a_gpu():
    watch = TeacherWatch("wise_teacher", softened=True)
    step = tf.function(watch.look).get_concrete_function(tf.TensorSpec((None, 3)))
    # TensorFlow keeps int32 variables on the CPU, where XLA on a GPU cannot reach them.
    assert [variable.dtype for variable in step.graph.variables] == [tf.int64, tf.int64]


def test_a_loss_on_features_watches_them_too(dense_model, student, examples, hard_loss):
    teacher = dense_model(seed=1, name="wise_teacher")
    weights = teacher.get_weights()
    weights[0][:] = np.inf
    teacher.set_weights(weights)
    loss = keras.distillation.FeatureDistillation(
        teacher_layer_name="hidden", student_layer_name="hidden"
    )
    distiller = keras_kd.Distiller(teacher, student, [loss, LogitsMSE()])
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    with pytest.raises(ValueError, match=MESSAGE):
        distiller.fit(*examples, verbose=0)


def test_probabilities_of_a_member_are_told(student, examples, hard_loss):
    def probabilities(x):
        return np.full((len(x), 3), 1 / 3, "float32")

    member = keras_kd.teachers.NumpyFunction(probabilities, (3,))
    logits = keras_kd.teachers.NumpyFunction(lambda x: 9 * probabilities(x), (3,))
    distiller = keras_kd.Distiller(keras_kd.teachers.Ensemble([logits, member]), student)
    distiller.compile("sgd", hard_loss)
    with pytest.warns(UserWarning, match=r"teacher 'ensemble' that are probabilities"):
        distiller.fit(*examples, verbose=0)


def test_a_teacher_outside_of_tensorflow_and_xla(student, hard_loss):
    teacher = keras_kd.teachers.NumpyFunction(lambda x: x[:, :3], (3,))
    distiller = keras_kd.Distiller(teacher, student)
    with pytest.raises(ValueError, match=r"jit_compile=True with the teacher.*leave out jit_com"):
        distiller.compile("sgd", hard_loss, jit_compile=True)
