"""OutputDifference: what it is at first, what its regressor learns, and the layer that it reads."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.losses import LogitsMSE, OutputDifference

OUTPUTS = (6, 5)


def built(loss, *features_shape):
    """The loss with a regressor that has learnt something."""
    loss.build(OUTPUTS, [OUTPUTS, features_shape] if features_shape else OUTPUTS)
    random = np.random.default_rng(9)
    for weight in loss.weights:
        weight.assign(random.normal(size=weight.shape))
    return loss, [weight.numpy().astype("float64") for weight in loss.weights]


@pytest.mark.parametrize("shape", [(1, 1), (6, 5), (2, 3, 4)])
def test_at_first_it_is_the_squared_difference(shape, random_logits, value_and_gradient):
    teacher, student = random_logits(shape)
    expected, slope = value_and_gradient(LogitsMSE(), teacher, student)
    value, gradient = value_and_gradient(OutputDifference(), teacher, student)
    assert value == expected
    np.testing.assert_array_equal(gradient, slope)
    assert float(OutputDifference().compute_loss(teacher, teacher)) == 0.0


def test_the_regressor_is_made_once_of_zeros(random_logits):
    loss = OutputDifference()
    assert loss.weights == []
    loss.compute_loss(*random_logits((6, 5)))
    kernel, bias = loss.weights
    assert (kernel.shape, bias.shape) == ((5, 5), (5,))
    assert not kernel.numpy().any()
    assert not bias.numpy().any()
    loss.compute_loss(*random_logits((3, 5)))
    loss.build((None, 5), (None, 5))
    assert loss.weights[0] is kernel
    assert loss.weights[1] is bias


def test_value_and_gradient_with_a_regressor(references, random_logits, assert_same):
    teacher, student = random_logits(OUTPUTS)
    loss, (kernel, bias) = built(OutputDifference())
    assert_same(
        loss,
        teacher,
        student,
        lambda logits: references.output_difference(
            teacher, logits, kernel=kernel, bias=bias
        ).mean(),
    )


@pytest.mark.parametrize("shape", [(6, 7), (6, 2, 3, 7)])
def test_the_features_of_a_layer(shape, references, formulas, random_logits):
    teacher, student = random_logits(OUTPUTS)
    features = random_logits(shape)[0]
    loss, (kernel, bias) = built(OutputDifference("pooling"), *shape)
    assert kernel.shape == (7, 5)
    tensors = [tf.constant(student), tf.constant(features)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = loss.compute_loss(teacher, tensors)

    def formula(student, features):
        return references.output_difference(teacher, student, features, kernel, bias).mean()

    assert float(value) == pytest.approx(formula(student, features), rel=1e-5)
    slopes = (
        formulas.gradient(lambda logits: formula(logits, features), student),
        formulas.gradient(lambda hidden: formula(student, hidden), features),
    )
    for gradient, slope in zip(tape.gradient(value, tensors), slopes, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)


def test_features_of_every_position(references, random_logits):
    teacher, student = random_logits((6, 4, 5))
    features = random_logits((6, 4, 7))[0]
    loss = OutputDifference("states")
    loss.build(teacher.shape, [student.shape, features.shape])
    loss.weights[0].assign(np.ones((7, 5)))
    mask = np.arange(24).reshape(6, 4) % 3 > 0
    expected = references.output_difference(teacher, student, features, np.ones((7, 5)))
    value = loss.compute_loss(teacher, [student, features], mask=mask)
    assert float(value) == pytest.approx(expected[mask].mean(), rel=1e-5)


def test_the_regressor_learns_the_difference(random_logits):
    # A difference that is linear in the features can be told in full.
    features, student = random_logits((64, 3), scale=1.0)
    teacher = student + features @ np.array([[1.0, 0, 2], [0, -1, 0], [0.5, 0, 0]]) + 1.0
    loss = OutputDifference("features")
    loss.build(teacher.shape, [student.shape, features.shape])
    for _ in range(30):
        with tf.GradientTape() as tape:
            value = loss.compute_loss(teacher, [student, features])
        gradients = tape.gradient(value, [weight.value for weight in loss.weights])
        for weight, gradient in zip(loss.weights, gradients, strict=True):
            weight.assign(weight - gradient)
    assert float(value) < 1e-4


def test_it_trains_no_teacher(random_logits):
    teacher, student = (tf.constant(logits) for logits in random_logits(OUTPUTS))
    loss, _ = built(OutputDifference())
    with tf.GradientTape() as tape:
        tape.watch(teacher)
        value = loss.compute_loss(teacher, student)
    assert tape.gradient(value, teacher) is None


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_equals_eager(jit_compile, random_logits):
    teacher, student = map(tf.constant, random_logits(OUTPUTS))
    features = tf.constant(random_logits((6, 7))[0])
    loss, _ = built(OutputDifference("pooling"), 6, 7)
    compiled = tf.function(
        lambda *student: loss.compute_loss(teacher, list(student)),
        jit_compile=jit_compile,
        autograph=False,
    )
    expected = loss.compute_loss(teacher, [student, features])
    assert float(compiled(student, features)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_regressor_can_be_made_while_a_step_is_compiled(jit_compile, random_logits):
    teacher, student = map(tf.constant, random_logits(OUTPUTS))
    loss = OutputDifference()
    compiled = tf.function(loss.compute_loss, jit_compile=jit_compile, autograph=False)
    expected = float(LogitsMSE().compute_loss(teacher, student))
    for _ in range(2):
        assert float(compiled(teacher, student)) == pytest.approx(expected, rel=1e-6)
    assert len(loss.weights) == 2


def test_half_precision_is_computed_in_float32(random_logits):
    teacher, student = (tf.cast(logits, "float16") for logits in random_logits(OUTPUTS))
    features = tf.cast(random_logits((6, 7))[0], "bfloat16")
    loss, _ = built(OutputDifference("pooling"), 6, 7)
    wide = [tf.cast(tensor, "float32") for tensor in (teacher, student, features)]
    value = loss.compute_loss(teacher, [student, features])
    assert value.dtype == "float32"
    assert float(value) == pytest.approx(float(loss.compute_loss(wide[0], wide[1:])), rel=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_are_compared_by_their_logits(activation, random_logits):
    teacher, student = random_logits(OUTPUTS)
    loss, _ = built(OutputDifference())
    activation = getattr(keras.ops, activation)
    value = loss.compute_loss(activation(teacher), activation(student))
    assert float(value) == float(loss.compute_loss(teacher, student))


def test_one_of_several_outputs(random_logits):
    teacher, student = random_logits(OUTPUTS)
    features = random_logits((6, 7))[0]
    several = [{"a": logits, "b": logits[:, :2]} for logits in (teacher, student)]
    expected = float(OutputDifference().compute_loss(teacher, student))
    value = OutputDifference(outputs="a").compute_loss(*several)
    assert float(value) == expected
    value = OutputDifference("hidden", outputs="a").compute_loss(several[0], [several[1], features])
    assert float(value) == expected
    with pytest.raises(
        ValueError, match=r"2 outputs \['a', 'b'\].*one output.*OutputDifference\(outputs='a'\)"
    ):
        OutputDifference().compute_loss(*several)


def test_features_that_are_missing(random_logits):
    with pytest.raises(
        ValueError,
        match=r"student_layer_name='pooling'\).*the pair \[outputs, features\].*keras_kd.Distiller",
    ):
        OutputDifference("pooling").compute_loss(*random_logits(OUTPUTS))


@pytest.mark.parametrize("shape", [(6,), (6, 2, 7), (5, 7)])
def test_features_without_the_positions_of_the_outputs(shape, random_logits):
    teacher, student = random_logits((6, 4, 5))
    with pytest.raises(ValueError, match=r"from 'pooling' for OutputDifference.*keeps the pos"):
        OutputDifference("pooling").validate_outputs(teacher, [student, np.zeros(shape)])
    with pytest.raises(ValueError, match=r"outputs of shape \(6, 4, 5\) from the teacher"):
        OutputDifference("pooling").validate_outputs(teacher, [student[..., :2], student])
    OutputDifference("pooling").validate_outputs(teacher, [student, np.zeros((6, 4, 2, 2, 9))])


def test_sizes_must_be_known():
    with pytest.raises(ValueError, match=r"features of shape \(None, None\).*of known size"):
        OutputDifference("pooling").build((None, 5), [(None, 5), (None, None)])


def test_its_configuration_round_trips():
    loss = OutputDifference("pooling", outputs=["a"])
    assert loss.reads_outputs
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert copy.get_config() == loss.get_config()
    assert copy.get_config() == {"student_layer_name": "pooling", "outputs": ["a"]}


@pytest.mark.parametrize("name", [3, ["a", "b"]])
def test_a_name_that_is_none(name):
    with pytest.raises(TypeError, match=r"Received student_layer_name=.*one layer, or None"):
        OutputDifference(name)
