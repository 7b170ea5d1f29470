"""Models that end in probabilities: the same loss and gradients as with their logits."""

import warnings

import keras
import numpy as np
import pytest

import keras_kd

ENDINGS = {
    "softmax layer": lambda logits: keras.layers.Softmax()(logits),
    "softmax activation layer": lambda logits: keras.layers.Activation("softmax")(logits),
    "softmax operation": lambda logits: keras.ops.softmax(logits),
    "sigmoid layer": lambda logits: keras.layers.Activation("sigmoid")(logits),
    "sigmoid operation": lambda logits: keras.ops.sigmoid(logits),
}


class Subclassed(keras.Model):
    """A model whose end only its code shows."""

    def __init__(self, inner, ending):
        super().__init__()
        self.inner = inner
        self.ending = ending

    def call(self, inputs):
        return self.ending(self.inner(inputs))


def ended(model, ending):
    return keras.Model(model.inputs[0], ending(model.outputs[0]))


def trained(teacher, student, examples, loss=None, **options):
    """The loss of a step and the weights after it."""
    x, _ = examples
    distiller = keras_kd.Distiller(teacher, student, loss, student_loss_weight=0.0)
    distiller.compile(keras.optimizers.SGD(1.0), **options)
    with warnings.catch_warnings():
        # No warning is due: not one of these teachers is hidden.
        warnings.filterwarnings("error", message="Received outputs of the teacher")
        logs = distiller.train_on_batch(x, return_dict=True)
    return logs["loss"], student.get_weights()


def assert_same(result, expected):
    assert result[0] == pytest.approx(expected[0], rel=1e-6)
    for weights, others in zip(result[1], expected[1], strict=True):
        np.testing.assert_allclose(weights, others, atol=1e-6)


@pytest.mark.parametrize("sides", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("ending", ENDINGS)
def test_with_and_without_the_last_activation(dense_model, examples, ending, sides):
    loss = keras_kd.losses.SoftTargets(2.0, activation=ending.split()[0])
    expected = trained(dense_model(seed=1), dense_model(seed=2), examples, loss, run_eagerly=True)
    teacher, student = dense_model(seed=1), dense_model(seed=2)
    if sides[0]:
        teacher = ended(teacher, ENDINGS[ending])
    if sides[1]:
        student = ended(student, ENDINGS[ending])
    # The loss finds out by itself.
    found = keras_kd.losses.SoftTargets(2.0)
    assert_same(trained(teacher, student, examples, found, run_eagerly=True), expected)


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"jit_compile": False}])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_as_the_activation_of_the_last_layer_when_compiled(
    dense_model, examples, activation, options
):
    loss = keras_kd.losses.SoftTargets(2.0, activation=activation)
    expected = trained(dense_model(seed=1), dense_model(seed=2), examples, loss, run_eagerly=True)
    teacher = dense_model(seed=1, activation=activation)
    student = dense_model(seed=2, activation=activation)
    found = keras_kd.losses.SoftTargets(2.0)
    assert_same(trained(teacher, student, examples, found, **options), expected)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_in_subclassed_models(dense_model, examples, run_eagerly):
    expected = trained(dense_model(seed=1), dense_model(seed=2), examples, run_eagerly=True)
    teacher = Subclassed(dense_model(seed=1), keras.ops.softmax)
    student = Subclassed(dense_model(seed=2), keras.layers.Softmax())
    assert_same(trained(teacher, student, examples, run_eagerly=run_eagerly), expected)


def test_for_logits_mse_and_keras_own_loss(dense_model, examples):
    for loss in (
        keras_kd.losses.LogitsMSE(),
        keras.distillation.LogitsDistillation(2.0, loss=keras.losses.KLDivergence()),
    ):
        expected = trained(
            dense_model(seed=1), dense_model(seed=2), examples, loss, run_eagerly=True
        )
        teacher = dense_model(seed=1, activation="softmax")
        student = dense_model(seed=2, activation="softmax")
        assert_same(trained(teacher, student, examples, loss, run_eagerly=True), expected)


def test_a_teacher_in_half_precision(dense_model, examples):
    teacher = dense_model(seed=1, activation="softmax", dtype="mixed_float16")
    expected, _ = trained(dense_model(seed=1), dense_model(seed=2), examples, run_eagerly=True)
    loss, _ = trained(teacher, dense_model(seed=2), examples)
    assert loss == pytest.approx(expected, rel=1e-2)


class HiddenSoftmax(keras.layers.Layer):
    """A softmax that no one can see."""

    def call(self, inputs):
        exponentials = keras.ops.exp(inputs)
        return exponentials / keras.ops.sum(exponentials, axis=-1, keepdims=True)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_hidden_probabilities_are_warned_of_once_with_the_fix(
    dense_model, student, examples, run_eagerly
):
    x, _ = examples
    teacher = keras.Sequential([keras.Input((5,)), dense_model(seed=1), HiddenSoftmax()])
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=run_eagerly)
    with pytest.warns(
        UserWarning, match=r"probabilities, made by.*To fix it: end the teacher"
    ) as seen:
        distiller.fit(x, epochs=2, batch_size=8, verbose=0)
    assert len([warning for warning in seen if "To fix it" in str(warning.message)]) == 1
    fixed = keras.Sequential([teacher, keras.layers.Activation(keras.ops.log)])
    expected = trained(dense_model(seed=1), dense_model(seed=2), examples, run_eagerly=True)
    assert_same(trained(fixed, dense_model(seed=2), examples, run_eagerly=True), expected)


def test_a_loss_without_temperature_takes_probabilities_as_they_are(dense_model, student, examples):
    teacher = keras.Sequential([keras.Input((5,)), dense_model(seed=1), HiddenSoftmax()])
    trained(teacher, student, examples, keras_kd.losses.LogitsMSE(), run_eagerly=True)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_softmax_over_another_axis_is_refused(run_eagerly):
    def model():
        inputs = keras.Input((3, 4))
        return keras.Model(inputs, keras.layers.Softmax(axis=1)(keras.layers.Dense(4)(inputs)))

    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    distiller = keras_kd.Distiller(model(), model(), student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=run_eagerly)
    with pytest.raises(ValueError, match=r"softmax over another axis than the last.*Permute"):
        distiller.fit(x, verbose=0)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_teacher_and_a_student_with_different_ends_are_told(dense_model, examples, run_eagerly):
    distiller = keras_kd.Distiller(
        dense_model(activation="softmax", seed=1), dense_model(activation="sigmoid", seed=2)
    )
    distiller.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
    with pytest.raises(ValueError, match="ends in a softmax and a student that ends in a sigmoid"):
        distiller.fit(*examples, verbose=0)
