"""What holds for every public loss. A new one needs a row in reference/formulas.py."""

import doctest
import inspect

import keras
import numpy as np
import pytest
from _gradients import value_and_gradients as value_and_all_gradients

import keras_kd
from keras_kd import losses

BASES = ("BatchLoss", "DistillationLoss", "FeatureLoss")
NAMES = [
    name for name in losses.__all__ if inspect.isclass(getattr(losses, name)) and name not in BASES
]
# Arguments that the bases test, not every loss.
INHERITED = {"outputs", "teacher_layer_name", "student_layer_name", "adapter"}
GOLDEN_ELSEWHERE = {"seed_formula_T2_a0.5"}
# Each loss, and each case beside it, once in every test.
pytestmark = pytest.mark.fast_rows
LEFT_OUT = [1, 4]
KEPT = [0, 2, 3, 5]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def reference(name, formulas):
    assert name in formulas.REFERENCES, f"{name} has no row in tests/reference/formulas.py"
    return formulas.REFERENCES[name]


@pytest.fixture
def loss(name, reference):
    return getattr(losses, name)(**reference.arguments)


def test_every_reference_belongs_to_a_public_loss(formulas):
    assert set(formulas.REFERENCES) == set(NAMES)


def test_every_golden_case_is_compared(formulas, reference_vectors):
    cases = {name.split("/")[0] for name in reference_vectors} - GOLDEN_ELSEWHERE
    assert cases == {case for row in formulas.REFERENCES.values() for case in row.golden}


def test_the_golden_numbers(name, reference, reference_vectors):
    for case, given in reference.golden.items():
        arrays = {
            array.removeprefix(f"{case}/"): values
            for array, values in reference_vectors.items()
            if array.startswith(f"{case}/")
        }
        teacher, student, gradients = (
            [arrays[f"{part}_{layer}"] for layer in (0, 1) if f"{part}_{layer}" in arrays]
            for part in ("teacher", "student", "grad")
        )
        inputs = [single(teacher), single(student), arrays["y"]]
        arguments = {
            argument: arrays[value] if isinstance(value, str) else value
            for argument, value in given.items()
        }
        loss = getattr(losses, name)(**arguments)
        evaluate(loss, *single_precision(inputs))
        for variable, array in zip(loss.weights, reference.golden_weights, strict=True):
            variable.assign(arrays[array])
        value, slopes = value_and_gradients(loss, *single_precision(inputs))
        assert value == pytest.approx(arrays["loss"], rel=1e-5)
        for slope, expected in zip(slopes, gradients, strict=True):
            assert_close(slope, expected, 1e-5)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_value_is_that_of_the_reference(loss, reference, seed):
    inputs = reference.inputs(seed)
    weights = draw_weights(loss, inputs)
    assert evaluate(loss, *inputs) == pytest.approx(
        reference.value(*inputs, weights=weights), rel=1e-5
    )


def test_the_gradient_is_that_of_the_reference(loss, reference, formulas):
    inputs = teacher, student, labels = reference.inputs()
    weights = draw_weights(loss, inputs)
    _, slopes = value_and_gradients(loss, *inputs)
    for place, slope in enumerate(slopes):
        expected = formulas.gradient(
            lambda changed, place=place: reference.value(
                teacher, replaced(student, place, changed), labels, weights=weights
            ),
            listed(student)[place],
        )
        assert_close(slope, expected, 1e-4)


def test_the_gradient_of_its_own_weights_is_that_of_the_reference(loss, reference, formulas):
    inputs = reference.inputs()
    weights = draw_weights(loss, inputs)
    _, _, slopes = value_and_all_gradients(
        lambda _: loss.compute_loss(*inputs[:2], y=inputs[2]), [], loss.weights
    )
    assert len(slopes) == len(reference.own_weights)
    for place, slope in enumerate(slopes):
        expected = formulas.gradient(
            lambda changed, place=place: reference.value(
                *inputs, weights=replaced(weights, place, changed)
            ),
            weights[place],
        )
        assert_close(slope, expected, 1e-4)


def test_no_gradient_reaches_the_teacher(loss, reference):
    teacher, student, labels = reference.inputs()
    count = len(listed(teacher))
    _, slopes, _ = value_and_all_gradients(
        lambda parts: loss.compute_loss(single(parts[:count]), single(parts[count:]), y=labels),
        [*listed(teacher), *listed(student)],
    )
    assert not any(slope.any() for slope in slopes[:count])
    assert all(slope.any() for slope in slopes[count:])


def test_where_its_minimum_is(loss, reference):
    _, equal, labels = reference.inputs()
    if reference.teacher != reference.student:
        equal = reference.inputs()[0]
    least = evaluate(loss, equal, equal, labels)
    if reference.least == "zero":
        assert least == pytest.approx(0.0, abs=1e-5)
    if reference.least != "elsewhere":
        for seed in range(5):
            random = np.random.default_rng(seed)
            nudged = [
                part + random.normal(scale=0.3, size=part.shape).astype("float32")
                for part in listed(equal)
            ]
            assert evaluate(loss, equal, single(nudged), labels) > least


@pytest.mark.parametrize("size", [30.0, 1e3, 1e4])
def test_extreme_inputs_are_exact(loss, reference, size):
    inputs = reference.inputs(scale=size)
    weights = draw_weights(loss, inputs)
    value, slopes = value_and_gradients(loss, *inputs)
    assert value == pytest.approx(reference.value(*inputs, weights=weights), rel=2e-5)
    assert all(np.isfinite(slope).all() for slope in slopes)


def with_a_zero_example(part):
    return np.concatenate([part[:1] * 0, part[1:]])


DEGENERATE = {
    "all zeros": lambda teacher, student: (teacher * 0, student * 0),
    "a student of zeros": lambda teacher, student: (teacher, student * 0),
    "a teacher of zeros": lambda teacher, student: (teacher * 0, student),
    "constants": lambda teacher, student: (teacher * 0 + 1, student * 0 + 2),
    "a zero example": lambda teacher, student: (teacher, with_a_zero_example(student)),
    "equal examples": lambda teacher, student: (teacher[[0] * 6], student[[0] * 6]),
    "equal teachers": lambda teacher, student: (teacher[[0] * 6], student),
    "one example": lambda teacher, student: (teacher[:1], student[:1]),
    "two examples": lambda teacher, student: (teacher[:2], student[:2]),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_inputs_are_finite(loss, reference, case):
    teacher, student, labels = reference.inputs()
    pairs = zip(listed(teacher), listed(student), strict=True)
    degenerate = [DEGENERATE[case](*pair) for pair in pairs]
    teacher, student = (single(list(parts)) for parts in zip(*degenerate, strict=True))
    labels = None if labels is None else labels[: len(listed(teacher)[0])]
    value, slopes = value_and_gradients(loss, teacher, student, labels)
    assert np.isfinite(value)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_a_student_that_equals_its_teacher_has_a_finite_gradient(loss, reference):
    teacher, student, labels = reference.inputs()
    equal = student if reference.teacher == reference.student else teacher
    _, slopes = value_and_gradients(loss, equal, equal, labels)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_the_order_of_the_batch(loss, reference):
    inputs = reference.inputs()
    shuffled = evaluate(loss, *rows(inputs, [3, 0, 5, 1, 2, 4]))
    if reference.ordered:
        assert "depends on the order of the batch" in " ".join(inspect.getdoc(loss).split())
        assert shuffled != pytest.approx(evaluate(loss, *inputs), rel=1e-3)
    else:
        assert shuffled == pytest.approx(evaluate(loss, *inputs), rel=1e-5)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_an_example_of_weight_0_is_left_out(loss, reference, shape):
    inputs = reference.inputs()
    weights = np.ones(6, "float32")
    weights[LEFT_OUT] = 0.0
    weights = weights.reshape(shape)
    value, slopes = value_and_gradients(loss, *inputs, sample_weight=weights)
    of_the_others, other_slopes = value_and_gradients(loss, *rows(inputs, KEPT))
    # As everywhere in Keras, the number of all examples divides, whatever their weights.
    assert value * 6 == pytest.approx(of_the_others * 4, rel=1e-5)
    for slope, other in zip(slopes, other_slopes, strict=True):
        assert_close(slope[KEPT] * 6, other * 4, 1e-5)
        assert (slope[LEFT_OUT] == 0.0).all()

    garbage = value_and_gradients(loss, *spoiled(inputs, 321.0), sample_weight=weights)
    assert garbage[0] == pytest.approx(value, rel=1e-6)
    for slope, spoiled_slope in zip(slopes, garbage[1], strict=True):
        assert_close(spoiled_slope, slope, 1e-6)
    assert evaluate(loss, *spoiled(inputs, np.nan), sample_weight=weights) == pytest.approx(
        value, rel=1e-6
    )


def test_weights_of_examples(loss, reference):
    inputs = reference.inputs()
    weights = np.array([0.0, 1.0, 2.0, 0.5, 0.0, 3.0], "float32")
    value = evaluate(loss, *inputs, sample_weight=weights)
    assert evaluate(loss, *inputs, sample_weight=2.0 * weights) == pytest.approx(2 * value)
    alike = evaluate(loss, *inputs, sample_weight=np.full(6, 0.5, "float32"))
    assert alike == pytest.approx(0.5 * evaluate(loss, *inputs), rel=1e-5)
    if not reference.of_batch:
        values = reference.values(*inputs, weights=own_weights(loss))
        weighted = (weights.reshape((6,) + (1,) * (values.ndim - 1)) * values).mean()
        assert value == pytest.approx(weighted, rel=1e-5)


def test_weights_that_are_all_0_give_0(loss, reference):
    inputs = reference.inputs()
    value, slopes = value_and_gradients(loss, *inputs, sample_weight=np.zeros(6, "float32"))
    assert value == 0.0
    assert all((slope == 0.0).all() for slope in slopes)


@pytest.mark.parametrize("filling", [0.0, np.nan])
def test_a_mask_leaves_examples_out(loss, reference, filling):
    inputs = reference.inputs()
    mask = np.ones(6, bool)
    mask[LEFT_OUT] = False
    value = evaluate(loss, *spoiled(inputs, filling), mask=mask)
    assert value == pytest.approx(evaluate(loss, *rows(inputs, KEPT)), rel=1e-5)


def test_a_mask_that_leaves_nothing_gives_0(loss, reference):
    assert evaluate(loss, *reference.inputs(), mask=np.zeros(6, bool)) == 0.0


def test_masks_and_weights_per_position_of_a_sequence(loss, reference, formulas):
    if reference.of_batch or reference.student != formulas.LOGITS:
        pytest.skip("gives no value per position of outputs")
    random = np.random.default_rng(1)
    teacher, student = random.normal(size=(2, 2, 4, 5)).astype("float32")
    labels = random.integers(0, 5, (2, 4)) if reference.labels else None
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    weights = np.array([2.0, 0.5], "float32")
    value = evaluate(loss, teacher, student, labels, sample_weight=weights, mask=mask)
    values = reference.values(teacher, student, labels, weights=own_weights(loss))
    expected = (values * weights[:, None] * mask).sum() / mask.sum()
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(loss, reference, dtype):
    teacher, student, labels = reference.inputs()
    halves = changed(lambda part: keras.ops.cast(part, dtype), [teacher, student])
    value = loss.compute_loss(*halves, y=labels)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    rounded = changed(
        lambda part: keras.ops.convert_to_numpy(keras.ops.cast(part, "float32")), halves
    )
    expected = reference.value(*rounded, labels, weights=own_weights(loss))
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.fast_rows(9)
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiled_equals_eager(loss, reference, jit_compile):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tests/backends/test_steps.py compiles steps on other backends")
    teacher, student, labels = map(tensors, reference.inputs())
    weights = tf.constant([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])

    def step(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss.compute_loss(teacher, student, y=labels, sample_weight=weights)
        return value, tape.gradient(value, listed(student))

    # XLA needs to know the size of the batch; a dataset whose last batch is smaller does not say.
    size = 6 if jit_compile else None
    signature = changed(
        lambda part: tf.TensorSpec((size, *part.shape[1:]), part.dtype), [teacher, student]
    )
    compiled = tf.function(
        step, input_signature=signature, jit_compile=jit_compile, autograph=False
    )
    # Compiled first: that is where training makes a loss's own weights.
    compiled_value, compiled_slopes = compiled(teacher, student)
    assert len(loss.weights) == len(reference.own_weights)
    value, slopes = step(teacher, student)
    assert float(compiled_value) == pytest.approx(float(value), rel=1e-5)
    for slope, compiled_slope in zip(slopes, compiled_slopes, strict=True):
        assert_close(compiled_slope.numpy(), slope.numpy(), 1e-5)


def test_its_configuration_round_trips(name, reference):
    loss_class = getattr(losses, name)
    arguments = set(inspect.signature(loss_class).parameters)
    if issubclass(loss_class, losses.FeatureLoss):
        given = {"teacher_layer_name": "a", "student_layer_name": "b"}
        if "adapter" in arguments:
            given["adapter"] = None
        if isinstance(reference.student, list):
            given.update(teacher_layer_name=["a", "c"], student_layer_name=["b", "d"])
    else:
        given = {"outputs": ["a"]}
    given.update(reference.changed)
    assert set(given) == arguments - (INHERITED - set(given))
    original = loss_class(**given)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(original))
    assert type(copy) is loss_class
    assert copy.get_config() == original.get_config() == given


def test_its_documentation(name):
    text = inspect.getdoc(getattr(losses, name))
    for part in ("loss = ", "shape", "Example:", "Reference:"):
        assert part in text, f"{name} does not say {part!r}"
    source = text.split("Reference:")[1]
    assert any(str(year) in source for year in range(2006, 2027)), f"{name} names no year"


def test_the_example_in_its_documentation_runs(name):
    loss_class = getattr(losses, name)
    finder = doctest.DocTestFinder(recurse=False)
    examples = finder.find(loss_class, name, globs=vars(losses).copy())
    assert sum(len(example.examples) for example in examples) > 0, f"{name} has no example"
    for example in examples:
        assert doctest.DocTestRunner().run(example).failed == 0


@pytest.fixture(scope="module")
def models():
    """A teacher and a student with a layer of each kind."""

    def build(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [
                keras.Input((4, 4, 2)),
                keras.layers.Conv2D(3, 2, padding="same", activation="tanh", name="map"),
                keras.layers.Flatten(),
                keras.layers.Dense(6, activation="tanh", name="vector"),
                keras.layers.Dense(5, name="outputs"),
            ]
        )

    return build(1), build(2)


@pytest.mark.fast_rows(6)
def test_it_works_in_keras_own_distiller(name, reference, models, hard_loss):
    if reference.not_in_keras:
        pytest.skip(reference.not_in_keras)
    loss_class = getattr(losses, name)
    layers = ()
    if issubclass(loss_class, losses.FeatureLoss):
        layers = ("map", "map") if len(reference.student) == 3 else ("vector", "vector")
    loss = loss_class(*layers, **reference.arguments)
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 4, 4, 2)).astype("float32")
    y = random.integers(0, 5, 8)
    results = []
    for distiller_class in (keras.distillation.Distiller, keras_kd.Distiller):
        distiller = distiller_class(*models, loss)
        distiller.compile("sgd", hard_loss, run_eagerly=True)
        # One batch: Keras' own gives a small last batch the weight of a whole one.
        results.append(distiller.evaluate(x, y, batch_size=8, verbose=0, return_dict=True))
    for log in ("total_loss", "student_loss", "distillation_loss"):
        assert results[0][log] == pytest.approx(results[1][log], rel=1e-5)


def evaluate(loss, teacher, student, labels=None, **how):
    return float(loss.compute_loss(teacher, student, y=labels, **how))


def value_and_gradients(loss, teacher, student, labels=None, **how):
    """The loss, and its gradient with respect to each tensor of the student."""
    value, slopes, _ = value_and_all_gradients(
        lambda parts: loss.compute_loss(tensors(teacher), single(parts), y=labels, **how),
        listed(student),
    )
    return value, slopes


def draw_weights(loss, inputs):
    """Give the loss's own weights, where it has any, values that nothing set out to make easy."""
    evaluate(loss, *inputs)
    for seed, variable in enumerate(loss.weights):
        random = np.random.default_rng(seed)
        variable.assign(random.normal(scale=0.3, size=variable.shape))
    return own_weights(loss)


def own_weights(loss):
    return [keras.ops.convert_to_numpy(variable) for variable in loss.weights]


def assert_close(actual, expected, tolerance):
    """Equal to a share of the largest entry: what is left of a sum that cancels is rounding."""
    largest = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * largest)


def listed(parts):
    return list(parts) if isinstance(parts, list) else [parts]


def single(parts):
    return parts[0] if len(parts) == 1 else parts


def replaced(parts, place, part):
    """`parts` with another one in one place."""
    if not isinstance(parts, list):
        return part
    return [*parts[:place], part, *parts[place + 1 :]]


def changed(change, parts):
    """Every tensor changed; `None`, for no labels, stays."""
    return keras.tree.map_structure(lambda part: None if part is None else change(part), parts)


def tensors(parts):
    return changed(keras.ops.convert_to_tensor, parts)


def single_precision(inputs):
    *models, labels = inputs
    return (*changed(lambda part: part.astype("float32"), models), labels)


def rows(inputs, chosen):
    """Some of the examples."""
    return changed(lambda part: part[chosen], inputs)


def spoiled(inputs, filling):
    """The examples that are left out replaced by garbage, but for their labels."""
    *models, labels = inputs

    def spoil(part):
        part = part.copy()
        part[LEFT_OUT] = filling
        return part

    return (*changed(spoil, models), labels)
