"""Teachers of which the k largest logits are known, against the losses on all classes in float64.

KL(p, q) = KL_coarse + p_rest * KL(p | rest, q | rest), where the coarse divergence takes all but
the k classes as one outcome: the chain rule of the KL divergence (Cover, Thomas: Elements of
Information Theory, 2006, theorem 2.5.3).
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_kd import losses
from keras_kd._logits import Logits, Top, remember_logits
from keras_kd.losses import SoftCrossEntropy, SoftTargets
from keras_kd.teachers.stored.codecs import TopK

SHAPES = [(6, 9), (2, 3, 9)]
LOSSES = [SoftTargets, SoftCrossEntropy]


def draw(shape=(6, 9), scale=4.0, seed=0):
    return np.random.default_rng(seed).normal(scale=scale, size=(2, *shape)).astype("float32")


def largest(logits, k):
    """The classes of the k largest, and a boolean array that marks them."""
    classes = np.argsort(-logits, axis=-1)[..., :k]
    marked = np.zeros(logits.shape, bool)
    np.put_along_axis(marked, classes, True, axis=-1)
    return classes, marked


def mass_of_the_rest(logits, marked, temperature):
    with np.errstate(divide="ignore"):
        return np.log(np.where(marked, 0, np.exp(logits / temperature)).sum(axis=-1))


def top_k(logits, k, *temperatures, dtype=None):
    """A teacher's output of which only the k largest logits are known."""
    temperatures = temperatures or (4.0,)
    logits = np.asarray(logits, dtype)
    classes, marked = largest(logits, k)
    values = tf.constant(np.take_along_axis(logits, classes, axis=-1))
    rest = {
        temperature: tf.constant(mass_of_the_rest(logits.astype("float64"), marked, temperature))
        for temperature in temperatures
    }
    top = Top(tf.constant(classes.astype("int32")), rest, logits.shape[-1])
    remember_logits(values, Logits(values, "softmax", top=top))
    return values


def log_softmax(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def coarse(logits, marked, temperature):
    """Probabilities, and those of all classes but the marked ones as one, `(..., k + 1)`."""
    probability = np.exp(log_softmax(np.asarray(logits, "float64") / temperature))
    kept = probability[marked].reshape(*logits.shape[:-1], -1)
    return np.concatenate([kept, 1 - kept.sum(axis=-1, keepdims=True)], axis=-1)


def divergence(p, q):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0.0).sum(axis=-1)


def cross_entropy(p, q):
    return -(p * np.log(q)).sum(axis=-1)


def value_and_gradient(loss, teacher, student, **context):
    student = tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss.compute_loss(teacher, student, **context)
    return float(value), tape.gradient(value, student).numpy()


def assert_close(found, expected, tolerance):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss_class", LOSSES)
def test_value_and_gradient_are_those_of_the_coarse_distributions(
    formulas, loss_class, shape, k, temperature
):
    teacher, student = draw(shape)
    _, marked = largest(teacher, k)
    formula = divergence if loss_class is SoftTargets else cross_entropy

    def expected(logits):
        p, q = (coarse(each, marked, temperature) for each in (teacher, logits))
        return temperature**2 * formula(p, q).mean()

    loss = loss_class(temperature)
    value, gradient = value_and_gradient(loss, top_k(teacher, k, 2.0, temperature), student)
    assert value == pytest.approx(expected(student), rel=1e-5)
    assert_close(gradient, formulas.gradient(expected, student), 1e-4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 30),
    scale=st.floats(0.01, 8.0),
    temperature=st.floats(0.5, 20.0),
    data=st.data(),
)
def test_the_chain_rule(seed, classes, scale, temperature, data):
    k = data.draw(st.integers(1, classes))
    teacher, student = draw((5, classes), scale, seed).astype("float64")
    _, marked = largest(teacher, k)
    loss = SoftTargets(temperature, scale_by_temperature_squared=False)
    full = float(loss.compute_loss(teacher, student))
    of_top = float(loss.compute_loss(top_k(teacher, k, temperature), student))

    log_p, log_q = (log_softmax(logits / temperature) for logits in (teacher, student))
    p_rest, q_rest = (np.where(marked, 0, np.exp(x)).sum(-1, keepdims=True) for x in (log_p, log_q))
    within = 0.0
    if k < classes:
        given_rest = np.where(marked, 0.0, np.exp(log_p)) / p_rest
        gap = log_p - log_q - np.log(p_rest) + np.log(q_rest)
        within = (p_rest[..., 0] * (given_rest * gap).sum(axis=-1)).mean()
    assert full == pytest.approx(of_top + within, rel=1e-9, abs=1e-12)
    assert of_top >= 0.0
    assert full - of_top >= -1e-12


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss_class", LOSSES)
def test_with_all_classes_it_is_the_full_loss(loss_class, shape):
    teacher, student = draw(shape)
    assert np.isneginf(mass_of_the_rest(teacher, largest(teacher, 9)[1], 4.0)).all()
    loss = loss_class(4.0)
    value, gradient = value_and_gradient(loss, top_k(teacher, 9), student)
    full_value, full_gradient = value_and_gradient(loss, teacher, student)
    assert value == pytest.approx(full_value, rel=1e-6)
    assert_close(gradient, full_gradient, 1e-6)


@pytest.mark.parametrize("loss_class", LOSSES)
def test_the_rest_pulls_its_classes_in_proportion_to_what_the_student_gives_them(loss_class):
    teacher, student = draw()
    temperature = 4.0
    _, marked = largest(teacher, 3)
    p, q = (np.exp(log_softmax(x.astype("float64") / temperature)) for x in (teacher, student))
    p_rest, q_rest = (np.where(marked, 0, x).sum(axis=-1, keepdims=True) for x in (p, q))
    target = np.where(marked, p, p_rest * q / q_rest)
    _, gradient = value_and_gradient(loss_class(temperature), top_k(teacher, 3), student)
    assert_close(gradient, temperature * (q - target) / len(teacher), 1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_how_far_its_gradient_is_from_that_of_the_full_loss(k, temperature):
    teacher, student = draw((50, 9), seed=k).astype("float64")
    _, marked = largest(teacher, k)
    loss = SoftTargets(temperature)
    _, gradient = value_and_gradient(loss, top_k(teacher, k, temperature), student)
    _, full = value_and_gradient(loss, teacher, student)
    difference = 50 * np.abs(gradient - full)
    # The k classes have the gradient of the full loss, and the others that of one distribution
    # among them in place of another: Pinsker's inequality.
    assert difference[marked].max() < 1e-9
    p, q = (np.exp(log_softmax(logits / temperature)) for logits in (teacher, student))
    p_rest = np.where(marked, 0, p).sum(axis=-1)
    of_top = divergence(*(coarse(x, marked, temperature) for x in (teacher, student)))
    missing = np.maximum(divergence(p, q) - of_top, 0)
    sizes = difference.sum(axis=-1)
    assert (sizes <= temperature * np.sqrt(2 * p_rest * missing) + 1e-9).all()
    assert (sizes <= 2 * temperature * p_rest + 1e-9).all()


@pytest.mark.parametrize("loss_class", LOSSES)
def test_a_student_that_is_sure_of_the_wrong_class_still_learns_of_the_rest(loss_class):
    # The student gives the rest 1e-17, of which 1 minus the mass of the others knows no digit.
    student = np.array([[40.0, 0.0, 0.0, 0.0]], "float32")
    teacher = np.array([[1.0, 0.5, 0.0, 0.0]], "float32")
    loss = loss_class(1.0)
    p = coarse(teacher, largest(teacher, 2)[1], 1.0)[0]
    _, gradient = value_and_gradient(loss, top_k(teacher, 2, 1.0), student)
    expected = [1 - p[0], -p[1], -p[2] / 2, -p[2] / 2]
    np.testing.assert_allclose(gradient[0], expected, rtol=1e-5)


@pytest.mark.parametrize("size", [30.0, 1e3, 1e4])
@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("loss_class", LOSSES)
def test_extreme_logits_are_exact(loss_class, k, size):
    teacher, student = draw(scale=size)
    _, marked = largest(teacher, k)
    value, gradient = value_and_gradient(
        loss_class(4.0), top_k(teacher - teacher.max(axis=-1, keepdims=True), k), student
    )
    # log q of the rest in log space, as q itself is 0 in float64.
    scaled = log_softmax(student.astype("float64") / 4.0)
    log_q = scaled[marked].reshape(6, k)
    p = coarse(teacher, marked, 4.0)
    if k < 9:
        others = np.where(marked, -np.inf, scaled)
        peak = others.max(axis=-1, keepdims=True)
        log_rest = peak + np.log(np.exp(others - peak).sum(axis=-1, keepdims=True))
        log_q = np.concatenate([log_q, log_rest], axis=-1)
    else:
        p = p[..., :k]
    terms = p * log_q
    if loss_class is SoftTargets:
        terms = terms - np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0)
    assert value == pytest.approx(-16.0 * terms.sum(axis=-1).mean(), rel=1e-4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss_class", LOSSES)
def test_a_rest_without_any_mass(loss_class):
    student = draw()[1]
    teacher = np.full((6, 9), -1e9, "float32")
    teacher[:, [4, 7]] = [0.0, -2.0]
    assert np.isneginf(mass_of_the_rest(teacher, largest(teacher, 2)[1], 4.0)).all()
    value, gradient = value_and_gradient(loss_class(4.0), top_k(teacher, 2), student)
    full_value, full_gradient = value_and_gradient(loss_class(4.0), teacher, student)
    assert value == pytest.approx(full_value, rel=1e-5)
    assert_close(gradient, full_gradient, 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("loss_class", LOSSES)
def test_half_precision_is_computed_in_float32(loss_class, dtype):
    teacher, student = draw()
    half = tf.cast(student, dtype)
    value = loss_class(4.0).compute_loss(top_k(teacher, 3), half)
    assert value.dtype == "float32"
    whole = loss_class(4.0).compute_loss(top_k(teacher, 3), tf.cast(half, "float32"))
    assert float(value) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("loss_class", LOSSES)
def test_a_student_that_ends_in_a_softmax(loss_class):
    teacher, student = draw()
    value = loss_class(4.0).compute_loss(top_k(teacher, 3), keras.ops.softmax(student))
    expected = loss_class(4.0).compute_loss(top_k(teacher, 3), student)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ValueError, match="a teacher that ends in a softmax and a student that"):
        loss_class(4.0).compute_loss(top_k(teacher, 3), keras.ops.sigmoid(student))


@pytest.mark.parametrize("shape", SHAPES)
def test_sample_weights_and_masks(shape):
    teacher, student = draw(shape)
    p, q = (coarse(x, largest(teacher, 3)[1], 4.0) for x in (teacher, student))
    values = 16.0 * divergence(p, q)
    mask = np.ones(shape[:-1], bool)
    mask[1] = False
    weights = np.linspace(0.0, 2.0, shape[0]).astype("float32")
    student[1] = np.nan
    value = SoftTargets(4.0).compute_loss(
        top_k(teacher, 3), student, sample_weight=weights, mask=mask
    )
    weighted = values * weights.reshape(-1, *([1] * (values.ndim - 1)))
    assert float(value) == pytest.approx((weighted * mask).sum() / mask.sum(), rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("loss_class", LOSSES)
def test_compiled_equals_eager(loss_class, jit_compile, shape):
    teacher, student = draw(shape)
    known = top_k(teacher, 3)
    top = known._keras_kd_logits.top

    def step(values, classes, rest, student):
        remember_logits(values, Logits(values, "softmax", top=Top(classes, {4.0: rest}, 9)))
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss_class(4.0).compute_loss(values, student)
        return value, tape.gradient(value, student)

    tensors = [tf.identity(known), top.classes, top.rest[4.0], tf.constant(student)]
    size = shape[0] if jit_compile else None
    signature = [tf.TensorSpec((size, *each.shape[1:]), each.dtype) for each in tensors]
    compiled = tf.function(
        step, input_signature=signature, jit_compile=jit_compile, autograph=False
    )
    value, gradient = compiled(*tensors)
    eager_value, eager_gradient = value_and_gradient(loss_class(4.0), known, student)
    assert float(value) == pytest.approx(eager_value, rel=1e-5)
    assert_close(gradient.numpy(), eager_gradient, 1e-5)


def test_several_outputs_of_which_one_is_known_in_part():
    teacher, student = draw()
    taught = {"a": top_k(teacher, 3), "b": teacher}
    learned = {"a": student, "b": student}
    parts = [SoftTargets(4.0).compute_loss(taught[name], student) for name in ("a", "b")]
    both = SoftTargets(4.0).compute_loss(taught, learned)
    assert float(both) == pytest.approx(float(sum(parts)), rel=1e-6)
    losses.LogitsMSE(outputs="b").compute_loss(taught, learned)
    with pytest.raises(ValueError, match="stored with top_k, for LogitsMSE"):
        losses.LogitsMSE().compute_loss(taught, learned)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_what_the_codec_rounds_hardly_changes_the_loss(dtype):
    teacher, student = draw((64, 1000), 3.0)
    codec = TopK("x", (1000,), 16, dtype)
    records = np.zeros(64, np.dtype(codec.fields))
    for name, array in codec.encode(teacher).items():
        records[name] = array
    decoded = codec.decode(records)
    values = tf.constant(decoded["values"])
    top = Top(decoded["classes"], {4.0: decoded["rest"][..., 0]}, 1000)
    remember_logits(values, Logits(values, "softmax", top=top))
    rounded, slope = value_and_gradient(SoftTargets(4.0), values, student)
    exact, exact_slope = value_and_gradient(SoftTargets(4.0), top_k(teacher, 16), student)
    tolerance = {"float32": 1e-5, "float16": 1e-3, "uint8": 2e-3}[dtype]
    assert rounded == pytest.approx(exact, rel=tolerance)
    np.testing.assert_allclose(slope, exact_slope, atol=tolerance * np.abs(exact_slope).max())


@pytest.mark.parametrize("loss_class", LOSSES)
def test_temperatures_that_are_not_known(loss_class):
    teacher, student = draw()
    known = top_k(teacher, 3, 4.0, 1.0)
    name = loss_class.__name__
    with pytest.raises(
        ValueError,
        match=rf"temperature=2.0 in {name} for logits stored with top_k, .*4\.0, 1\.0\. Expected a "
        rf"temperature that was stored\. To fix it: use {name}\(temperature=4\.0\), or store .*",
    ):
        loss_class(2).compute_loss(known, student)
    with pytest.raises(ValueError, match=rf"temperature=a schedule in {name} for logits stored"):
        loss_class(lambda step: 4.0).compute_loss(known, student, step=0)
    with pytest.raises(ValueError, match=rf"{name}\(activation='sigmoid'\)\. Expected one distrib"):
        loss_class(4.0, activation="sigmoid").compute_loss(known, student)
    loss_class(1).compute_loss(known, student)


def test_other_numbers_of_classes_are_refused():
    teacher, student = draw()
    with pytest.raises(ValueError, match=r"shape \(6, 9\) from the teacher and \(6, 8\) from the"):
        SoftTargets(4.0).validate_outputs(top_k(teacher, 3), student[:, :8])
    # Nor is a student of k classes one of the teacher's.
    with pytest.raises(ValueError, match=r"shape \(6, 9\) from the teacher and \(6, 3\) from the"):
        SoftTargets(4.0).validate_outputs(top_k(teacher, 3), student[:, :3])


BASES = {losses.BatchLoss, losses.DistillationLoss, losses.FeatureLoss}
OTHERS = [
    name
    for name in losses.__all__
    if inspect.isclass(getattr(losses, name)) and getattr(losses, name) not in {*BASES, *LOSSES}
]


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_loss_refuses(formulas, name):
    reference = formulas.REFERENCES[name]
    teacher, student, labels = reference.inputs()
    teacher = keras.tree.map_structure(tf.constant, teacher)
    for tensor in keras.tree.flatten(teacher):
        # As many as there are classes: no shape tells.
        top = Top(None, {4.0: None}, tensor.shape[-1])
        remember_logits(tensor, Logits(tensor, "softmax", top=top))
    loss = getattr(losses, name)(**reference.arguments)
    message = rf"Received the largest logits of \d+ classes, stored with top_k, for {name}\. Expec"
    with pytest.raises(ValueError, match=message):
        loss.compute_loss(teacher, student, y=labels)
    with pytest.raises(ValueError, match=message):
        loss.validate_outputs(teacher, student)
