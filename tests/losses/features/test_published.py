"""The published losses on features: right to the digit, whatever the shape, and always finite."""

import inspect
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import losses

MARGIN = [-0.9, -1.3, -0.6, -0.7, -0.2, -1.0]
LOG_SCALE = np.linspace(-1.0, 2.0, 6)

# Case of the golden numbers: class, arguments, name of the NumPy reference, its arguments.
CASES = {
    "hint_mse": ("Hint", {}, "hint", {}),
    "attention_transfer_p2": ("AttentionTransfer", {"power": 2}, "attention_transfer", {}),
    "attention_transfer_p2_pooled": ("AttentionTransfer", {}, "attention_transfer", {}),
    "neuron_selectivity_transfer": (
        "NeuronSelectivityTransfer",
        {},
        "neuron_selectivity_transfer",
        {},
    ),
    "factor_transfer_p2_1": ("FactorTransfer", {"power": 2, "norm": 1}, "factor_transfer", {}),
    "activation_boundary_m1": ("ActivationBoundary", {"margin": 1.0}, "activation_boundary", {}),
    "overhaul_partial_l2": ("PartialL2", {"margin": MARGIN}, "partial_l2", {"margin": MARGIN}),
    "review_hcl": ("HierarchicalContext", {"levels": (4, 2, 1)}, "hierarchical_context", {}),
    "inter_channel_correlation": (
        "InterChannelCorrelation",
        {},
        "inter_channel_correlation",
        {},
    ),
    "variational_information": (
        "VariationalInformation",
        {"epsilon": 1e-5},
        "variational_information",
        {"log_scale": LOG_SCALE},
    ),
    "simple_recipe_log_l1": ("SimpleRecipe", {"exponent": 1.0}, "simple_recipe", {}),
    "flow_of_solution": ("FlowOfSolution", {}, "flow_of_solution", {}),
}

# Further arguments, with shapes of the teacher's and the student's features.
OTHERS = [
    ("AttentionTransfer", {}, "attention_transfer", {}, (3, 7, 5, 4), (3, 3, 4, 2)),
    ("AttentionTransfer", {"power": 4}, "attention_transfer", {"power": 4}, (3, 5, 2), (3, 9, 3)),
    ("AttentionTransfer", {"power": 1}, "attention_transfer", {"power": 1}, (2, 4, 6, 3, 2), None),
    ("NeuronSelectivityTransfer", {}, "neuron_selectivity_transfer", {}, (3, 7, 3), (3, 5, 2)),
    (
        "FactorTransfer",
        {"power": 3, "norm": 2},
        "factor_transfer",
        {"power": 3, "norm": 2},
        (3, 6, 5, 4),
        (3, 4, 7, 2),
    ),
    ("ActivationBoundary", {"margin": 0.5}, "activation_boundary", {"margin": 0.5}, (4, 7), None),
    ("ActivationBoundary", {}, "activation_boundary", {}, (4, 5, 7), None),
    ("PartialL2", {"margin": MARGIN}, "partial_l2", {"margin": MARGIN}, (4, 6), None),
    ("PartialL2", {"margin": MARGIN}, "partial_l2", {"margin": MARGIN}, (4, 3, 6), None),
    ("HierarchicalContext", {}, "hierarchical_context", {}, (2, 7, 5, 3), None),
    ("HierarchicalContext", {}, "hierarchical_context", {}, (2, 9, 3), None),
    (
        "HierarchicalContext",
        {"levels": [5, 3]},
        "hierarchical_context",
        {"levels": [5, 3]},
        (2, 8, 3, 2),
        None,
    ),
    ("InterChannelCorrelation", {}, "inter_channel_correlation", {}, (5, 7, 3), (5, 4, 3)),
    (
        "VariationalInformation",
        {"epsilon": 0.1},
        "variational_information",
        {"log_scale": LOG_SCALE, "epsilon": 0.1},
        (5, 6),
        None,
    ),
    ("SimpleRecipe", {"exponent": 4}, "simple_recipe", {"exponent": 4}, (5, 3, 2), None),
    ("SimpleRecipe", {"exponent": 1.5}, "simple_recipe", {"exponent": 1.5}, (5, 3), None),
    (
        "FlowOfSolution",
        {},
        "flow_of_solution",
        {},
        [(3, 7, 5, 2), (3, 4, 6, 3)],
        [(3, 5, 5, 2), (3, 2, 2, 3)],
    ),
    ("FlowOfSolution", {}, "flow_of_solution", {}, [(3, 5, 2), (3, 5, 3)], None),
]
NAMES = sorted({case[0] for case in CASES.values()})


def build(name, arguments, student, log_scale=None):
    """The loss, with its own weights set where it has any."""
    loss = getattr(losses, name)(**arguments)
    if name == "VariationalInformation":
        loss.build(student[0].shape, student[0].shape)
        loss.log_scale.assign(LOG_SCALE if log_scale is None else log_scale)
    return loss


def evaluate(loss, teacher, student, dtype="float32", **options):
    """Value and gradients of a loss on lists of features."""
    teacher = [tf.constant(features, dtype) for features in teacher]
    student = [tf.constant(features, dtype) for features in student]
    with tf.GradientTape() as tape:
        tape.watch([*teacher, *student])
        value = loss.compute_loss(one_or_all(teacher), one_or_all(student), **options)
    gradients = tape.gradient(value, [*teacher, *student])
    assert all(gradient is None for gradient in gradients[: len(teacher)])
    return float(value), [gradient.numpy() for gradient in gradients[len(teacher) :]]


def one_or_all(features):
    return features[0] if len(features) == 1 else features


def central_differences(function, parts, step=1e-6):
    """The gradient of a scalar function of a list of arrays."""
    gradients = [np.zeros(part.shape) for part in parts]
    for part, gradient in zip(parts, gradients, strict=True):
        for index in np.ndindex(part.shape):
            kept = part[index]
            part[index] = kept + step
            above = function(parts)
            part[index] = kept - step
            gradient[index] = (above - function(parts)) / (2 * step)
            part[index] = kept
    return gradients


def assert_close(gradients, expected, tolerance=1e-5):
    for gradient, other in zip(gradients, expected, strict=True):
        largest = np.abs(other).max()
        np.testing.assert_allclose(gradient, other, rtol=tolerance, atol=tolerance * largest)


def draw(name, seed=0, shapes=None):
    """Features of a teacher and a student, as lists of arrays."""
    random = np.random.default_rng(seed)
    default = [(4, 4, 4, 6), (4, 2, 2, 3)] if name == "FlowOfSolution" else [(4, 4, 4, 6)]
    return [[random.normal(size=shape) for shape in part or default] for part in shapes or [0, 0]]


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_of_the_published_implementation(case, reference_vectors):
    name, arguments, _, _ = CASES[case]
    numbers = {
        key.removeprefix(f"{case}/"): value
        for key, value in reference_vectors.items()
        if key.startswith(f"{case}/")
    }
    assert numbers, f"{case} is missing from loss_vectors.npz"
    if name == "PartialL2":
        arguments = {"margin": numbers["margin"]}
    parts = range(2 if name == "FlowOfSolution" else 1)
    teacher = [numbers[f"teacher_{i}"] for i in parts]
    student = [numbers[f"student_{i}"] for i in parts]
    loss = build(name, arguments, student, numbers.get("log_scale"))
    value, gradients = evaluate(loss, teacher, student)
    assert value == pytest.approx(float(numbers["loss"]), rel=1e-5)
    assert_close(gradients, [numbers[f"grad_{i}"] for i in parts])


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("index", range(len(OTHERS)))
def test_other_shapes_and_seeds(index, seed, references):
    name, arguments, reference, options, teacher_shape, student_shape = OTHERS[index]
    shapes = [
        shape if isinstance(shape, list) else [shape]
        for shape in (teacher_shape, student_shape or teacher_shape)
    ]
    teacher, student = draw(name, seed, shapes)
    formula = getattr(references, reference)
    value, gradients = evaluate(build(name, arguments, student), teacher, student)
    assert value == pytest.approx(np.mean(formula(*teacher, *student, **options)), rel=1e-5)
    expected = central_differences(
        lambda parts: np.mean(formula(*teacher, *parts, **options)), student
    )
    assert_close(gradients, expected, tolerance=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_one_value_per_example_or_position(case, references):
    name, arguments, reference, options = CASES[case]
    if issubclass(getattr(losses, name), losses.BatchLoss):
        pytest.skip("a property of the batch")
    teacher, student = draw(name)
    loss = build(name, arguments, student)
    values = loss.per_example(
        *(keras.tree.map_structure(tf.constant, one_or_all(part)) for part in (teacher, student))
    )
    expected = getattr(references, reference)(*teacher, *student, **options)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["zeros", "zero student", "equal", "constant", "large"])
def test_finite_where_the_formula_has_an_edge(name, kind):
    arguments = next(case[1] for case in CASES.values() if case[0] == name)
    teacher, student = draw(name)
    if kind == "zeros":
        teacher = [np.zeros_like(part) for part in teacher]
    if kind in ("zeros", "zero student"):
        student = [np.zeros_like(part) for part in student]
    if kind == "equal":
        student = [part.copy() for part in teacher]
    if kind == "constant":
        teacher, student = ([np.ones_like(part) for part in side] for side in (teacher, student))
    if kind == "large":
        teacher, student = ([1e6 * part for part in side] for side in (teacher, student))
    value, gradients = evaluate(build(name, arguments, student), teacher, student)
    assert math.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"ActivationBoundary", "PartialL2"}))
def test_the_minimum_is_where_student_equals_teacher(name):
    arguments = next(case[1] for case in CASES.values() if case[0] == name)
    teacher, student = draw(name)
    loss = build(name, arguments, student)
    value, gradients = evaluate(loss, teacher, teacher)
    least = {
        "VariationalInformation": np.mean(np.log(np.log1p(np.exp(LOG_SCALE)) + 1e-5)) / 2,
        "SimpleRecipe": math.log(1e-12),
    }
    assert value == pytest.approx(least.get(name, 0.0), rel=1e-5, abs=1e-6)
    assert all(np.abs(gradient).max() < 1e-6 for gradient in gradients)
    assert evaluate(loss, teacher, student)[0] > value + 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(name, dtype):
    arguments = next(case[1] for case in CASES.values() if case[0] == name)
    teacher, student = (
        [tf.cast(tf.cast(part, dtype), "float32").numpy() for part in side] for side in draw(name)
    )
    loss = build(name, arguments, student)
    value, gradients = evaluate(loss, teacher, student, dtype)
    assert value == pytest.approx(evaluate(loss, teacher, student)[0], rel=1e-6)
    assert all(np.isfinite(gradient.astype("float32")).all() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_equals_eager(name, jit_compile):
    arguments = next(case[1] for case in CASES.values() if case[0] == name)
    teacher, student = draw(name)
    weights = np.array([0.0, 1.0, 2.0, 0.5], "float32")
    loss = build(name, arguments, student)

    @tf.function(jit_compile=jit_compile)
    def compiled(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss.compute_loss(
                one_or_all(teacher), one_or_all(student), sample_weight=weights
            )
        return value, tape.gradient(value, student)

    expected, gradients = evaluate(loss, teacher, student, sample_weight=weights)
    value, found = compiled(
        *([tf.constant(part, "float32") for part in side] for side in (teacher, student))
    )
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert_close([gradient.numpy() for gradient in found], gradients)


@pytest.mark.parametrize("name", NAMES)
def test_weights_count_examples(name):
    arguments = next(case[1] for case in CASES.values() if case[0] == name)
    teacher, student = draw(name)
    loss = build(name, arguments, student)
    weighted, _ = evaluate(loss, teacher, student, sample_weight=np.array([1.0, 1.0, 0.0, 0.0]))
    masked, _ = evaluate(loss, teacher, student, mask=np.array([True, True, False, False]))
    alone, _ = evaluate(loss, [part[:2] for part in teacher], [part[:2] for part in student])
    # Weighted values are divided by the number of all examples, masked ones by that of the others.
    assert weighted == pytest.approx(alone / 2, rel=1e-5)
    assert masked == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_masked_does_not_matter(name):
    arguments = next(case[1] for case in CASES.values() if case[0] == name)
    shapes = [[(4, 5, 6)] * (2 if name == "FlowOfSolution" else 1)] * 2
    teacher, student = draw(name, shapes=shapes)
    mask = np.ones((4, 5), bool)
    mask[0, 3:] = mask[2] = False
    loss = build(name, arguments, student)
    expected, _ = evaluate(loss, teacher, student, mask=mask)
    for part in teacher + student:
        part[~mask] = 100.0
    assert evaluate(loss, teacher, student, mask=mask)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_its_configuration_round_trips(name):
    cls = getattr(losses, name)
    changed = {
        "power": 3.0,
        "norm": 2.0,
        "margin": [-1.0, -2.0] if name == "PartialL2" else 0.5,
        "levels": [3, 1],
        "epsilon": 1e-3,
        "exponent": 4.0,
    }
    parameters = inspect.signature(cls).parameters
    given = {key: value for key, value in changed.items() if key in parameters}
    layers = ["a", "b"] if name == "FlowOfSolution" else "a"
    loss = cls(layers, layers, adapter=None, **given)
    assert set(loss.get_config()) == set(parameters)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    restored = keras.saving.deserialize_keras_object(config)
    assert type(restored) is cls
    assert restored.get_config() == loss.get_config()
    for key, value in given.items():
        assert restored.get_config()[key] == value
