"""The losses on features for shapes of every kind: sequences, volumes, sizes that do not divide."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd import losses

MARGIN = [-0.9, -1.3, -0.6, -0.7, -0.2, -1.0]

# Loss, its arguments, and the shapes of the teacher's and the student's features.
CASES = [
    ("AttentionTransfer", {}, [(3, 7, 5, 4)], [(3, 3, 4, 2)]),
    ("AttentionTransfer", {"power": 4}, [(3, 5, 2)], [(3, 9, 3)]),
    ("AttentionTransfer", {"power": 1}, [(2, 2, 3, 4, 2)], [(2, 4, 3, 2, 1)]),
    ("NeuronSelectivityTransfer", {}, [(3, 7, 3)], [(3, 5, 2)]),
    ("FactorTransfer", {"power": 3, "norm": 2}, [(3, 6, 5, 4)], [(3, 4, 7, 2)]),
    ("ActivationBoundary", {"margin": 0.5}, [(4, 7)], [(4, 7)]),
    ("ActivationBoundary", {}, [(4, 5, 7)], [(4, 5, 7)]),
    ("PartialL2", {"margin": MARGIN}, [(4, 6)], [(4, 6)]),
    ("PartialL2", {"margin": MARGIN}, [(4, 3, 6)], [(4, 3, 6)]),
    ("HierarchicalContext", {}, [(2, 7, 5, 3)], [(2, 7, 5, 3)]),
    ("HierarchicalContext", {}, [(2, 9, 3)], [(2, 9, 3)]),
    ("HierarchicalContext", {"levels": [5, 3]}, [(2, 8, 3, 2)], [(2, 8, 3, 2)]),
    ("InterChannelCorrelation", {}, [(5, 7, 3)], [(5, 2, 2, 3)]),
    ("VariationalInformation", {"epsilon": 0.1}, [(5, 6)], [(5, 6)]),
    ("SimpleRecipe", {"exponent": 4}, [(5, 3, 2)], [(5, 3, 2)]),
    ("SimpleRecipe", {"exponent": 1.5}, [(5, 3)], [(5, 3)]),
    ("FlowOfSolution", {}, [(3, 7, 5, 2), (3, 4, 6, 3)], [(3, 5, 5, 2), (3, 2, 2, 3)]),
    ("FlowOfSolution", {}, [(3, 5, 2), (3, 5, 3)], [(3, 4, 2), (3, 2, 3)]),
]
REFERENCES = {
    "ActivationBoundary": "activation_boundary",
    "AttentionTransfer": "attention_transfer",
    "FactorTransfer": "factor_transfer",
    "FlowOfSolution": "flow_of_solution",
    "HierarchicalContext": "hierarchical_context",
    "InterChannelCorrelation": "inter_channel_correlation",
    "NeuronSelectivityTransfer": "neuron_selectivity_transfer",
    "PartialL2": "partial_l2",
    "SimpleRecipe": "simple_recipe",
    "VariationalInformation": "variational_information",
}


def draw(shapes, seed):
    random = np.random.default_rng(seed)
    return [random.normal(size=shape) for shape in shapes]


def evaluate(loss, teacher, student, **options):
    """Value and gradients of a loss on lists of features."""
    teacher, student = (
        [tf.constant(part, "float32") for part in features] for features in (teacher, student)
    )
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss.compute_loss(one_or_all(teacher), one_or_all(student), **options)
    return float(value), [gradient.numpy() for gradient in tape.gradient(value, student)]


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


@pytest.mark.parametrize(("name", "arguments", "teacher_shapes", "student_shapes"), CASES)
def test_value_and_gradient(name, arguments, teacher_shapes, student_shapes, references):
    teacher, student = draw(teacher_shapes, 1), draw(student_shapes, 2)
    loss = getattr(losses, name)(**arguments)
    value, gradients = evaluate(loss, teacher, student)
    own = {"log_scale": loss.log_scale.numpy()} if loss.weights else {}
    formula = getattr(references, REFERENCES[name])

    def of_student(parts):
        return np.mean(formula(*teacher, *parts, **arguments, **own))

    assert value == pytest.approx(of_student(student), rel=1e-5)
    for gradient, expected in zip(gradients, central_differences(of_student, student), strict=True):
        largest = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize(("name", "arguments", "teacher_shapes", "student_shapes"), CASES)
def test_shapes_that_the_formula_takes_pass_the_check(
    name, arguments, teacher_shapes, student_shapes
):
    loss = getattr(losses, name)(**arguments)
    shapes = one_or_all(teacher_shapes), one_or_all(student_shapes)
    loss.check_shapes(None, *shapes)


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize(
    ("name", "arguments"), sorted({case[0]: case[1] for case in CASES}.items())
)
def test_masked_positions_do_not_matter(name, arguments):
    layers = 2 if name == "FlowOfSolution" else 1
    teacher, student = draw([(4, 5, 6)] * layers, 1), draw([(4, 5, 6)] * layers, 2)
    mask = np.ones((4, 5), bool)
    mask[0, 3:] = mask[2] = False
    loss = getattr(losses, name)(**arguments)
    value, gradients = evaluate(loss, teacher, student, mask=mask)
    for part in teacher + student:
        part[~mask] = 100.0
    other_value, other_gradients = evaluate(loss, teacher, student, mask=mask)
    assert other_value == pytest.approx(value, rel=1e-6)
    for gradient, other in zip(gradients, other_gradients, strict=True):
        np.testing.assert_allclose(other, gradient, rtol=1e-5, atol=1e-7)
        assert (other[~mask] == 0.0).all()
        assert (other[mask] != 0.0).any()


@pytest.mark.parametrize(
    "name",
    [
        "AttentionTransfer",
        "FactorTransfer",
        "HierarchicalContext",
        "InterChannelCorrelation",
        "NeuronSelectivityTransfer",
    ],
)
def test_vectors_have_no_positions(name):
    loss = getattr(losses, name)()
    message = r"features of shape \(\w+, 6\), vectors without positions.*keras_kd.losses.Hint"
    with pytest.raises(ValueError, match=message):
        loss.check_shapes(None, (None, 6), (None, 6))
    with pytest.raises(ValueError, match=message):
        loss.compute_loss(np.ones((2, 6)), np.ones((2, 6)))


@pytest.mark.parametrize(
    "name", ["AttentionTransfer", "FactorTransfer", "NeuronSelectivityTransfer"]
)
def test_images_are_not_sequences(name):
    loss = getattr(losses, name)()
    message = r"shapes \(\w+, 4, 4, 6\) and \(\w+, 16, 6\).*as many axes of positions"
    with pytest.raises(ValueError, match=message):
        loss.check_shapes(None, (None, 4, 4, 6), (None, 16, 6))
    with pytest.raises(ValueError, match=message):
        loss.compute_loss(np.ones((2, 4, 4, 6)), np.ones((2, 16, 6)))


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("AttentionTransfer", (None, 8, 8, 3)),
        ("FactorTransfer", (None, 8, 8, 3)),
        ("NeuronSelectivityTransfer", (None, 8, 8, 3)),
        ("InterChannelCorrelation", (None, 8, 8, 5)),
        ("HierarchicalContext", (None, 4, 4, 5)),
        ("ActivationBoundary", (None, 4, 4, 5)),
        ("VariationalInformation", (None, 4, 4, 5)),
        ("SimpleRecipe", (None, 4, 4, 5)),
    ],
)
def test_what_an_adapter_must_do(name, needed):
    loss = getattr(losses, name)()
    assert loss.needed_shape((None, 4, 4, 5), (None, 8, 8, 3)) == needed
