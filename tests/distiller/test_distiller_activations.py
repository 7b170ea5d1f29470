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


@pytest.mark.fast_rows(5)
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


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    ("activation", "options"),
    [
        ("softmax", {"jit_compile": True}),
        ("sigmoid", {"jit_compile": False}),
        pytest.param("softmax", {}, marks=pytest.mark.slow),
        pytest.param("softmax", {"jit_compile": False}, marks=pytest.mark.slow),
        pytest.param("sigmoid", {}, marks=pytest.mark.slow),
        pytest.param("sigmoid", {"jit_compile": True}, marks=pytest.mark.slow),
    ],
)
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


def positions(seed, end):
    """Logits for four positions of an example, and whatever is made of them."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4, 5))
    wide = keras.initializers.RandomNormal(stddev=1.0)
    logits = keras.layers.Dense(3, kernel_initializer=wide)(inputs)
    return keras.Model(inputs, end(logits)), keras.Model(inputs, logits)


def heads(logits):
    return keras.layers.Concatenate()(
        [keras.layers.Activation("sigmoid")(logits[..., unit : unit + 1]) for unit in range(3)]
    )


# What comes behind the logits; the logits it stands for; how they become probabilities.
HIDDEN_ENDINGS = {
    "time distributed": (
        lambda z: keras.layers.TimeDistributed(keras.layers.Activation("softmax"))(z),
        lambda z: z,
        "softmax",
    ),
    "flattened": (
        lambda z: keras.layers.Flatten()(keras.layers.Softmax()(z)),
        lambda z: z,
        "softmax",
    ),
    "columns": (lambda z: keras.ops.softmax(z)[..., :2], lambda z: z[..., :2], "softmax"),
    "mean": (
        lambda z: keras.layers.Average()([keras.ops.softmax(z), keras.ops.softmax(-z)]),
        lambda z: np.log(np_softmax(z) + np_softmax(-z)),
        "softmax",
    ),
    "sigmoid heads": (heads, lambda z: z, "sigmoid"),
}


def np_softmax(z):
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def measured(teacher, student, x, run_eagerly=True):
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=run_eagerly)
    logs = distiller.evaluate(x, batch_size=len(x), verbose=0, return_dict=True)
    return logs["distillation_loss"]


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize(
    ("ending", "flavour"),
    [
        *((ending, "eager") for ending in HIDDEN_ENDINGS),
        ("columns", "graph"),
        ("mean", "graph"),
        ("sigmoid heads", "tf_keras"),
        *(
            pytest.param(ending, flavour, marks=pytest.mark.slow)
            for ending in HIDDEN_ENDINGS
            for flavour in ("graph", "tf_keras")
            if (ending, flavour)
            not in (("columns", "graph"), ("mean", "graph"), ("sigmoid heads", "tf_keras"))
        ),
    ],
)
def test_probabilities_behind_other_layers(formulas, ending, flavour):
    end, logits, activation = HIDDEN_ENDINGS[ending]
    (teacher, of_teacher), (student, of_student) = positions(1, end), positions(2, end)
    x = np.random.default_rng(0).normal(size=(16, 4, 5)).astype("float32")
    values = formulas.soft_targets(
        *(
            logits(model.predict(x, verbose=0).astype("float64"))
            for model in (of_teacher, of_student)
        ),
        activation=activation,
    )
    if flavour == "tf_keras":
        student = keras_kd.compression.to_tf_keras(student)
    found = measured(teacher, student, x, run_eagerly=flavour == "eager")
    assert found == pytest.approx(values.mean(), rel=1e-5)


def test_flattened_softmaxes_and_flattened_logits(formulas):
    def flat(logits):
        return keras.layers.Flatten()(logits)

    teacher, of_teacher = positions(1, flat)
    student, of_student = positions(2, HIDDEN_ENDINGS["flattened"][0])
    x = np.random.default_rng(0).normal(size=(16, 4, 5)).astype("float32")
    values = formulas.soft_targets(
        *(model.predict(x, verbose=0).astype("float64") for model in (of_teacher, of_student))
    )
    assert measured(teacher, student, x) == pytest.approx(values.mean(), rel=1e-5)
    ensemble = keras_kd.teachers.Ensemble([student, student])
    assert measured(ensemble, teacher, x) == pytest.approx(measured(student, teacher, x), rel=1e-5)
    own = keras.distillation.LogitsDistillation(4.0, loss=keras.losses.KLDivergence())
    distiller = keras_kd.Distiller(teacher, student, own, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    logs = distiller.evaluate(x, batch_size=16, verbose=0, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(values.mean(), rel=1e-4)


@pytest.mark.parametrize("loss", [keras_kd.losses.DIST(), keras_kd.losses.LogitsMSE()])
def test_other_losses_on_flattened_softmaxes(loss):
    x = np.random.default_rng(0).normal(size=(16, 4, 5)).astype("float32")
    values = []
    for end in (keras.ops.softmax, HIDDEN_ENDINGS["flattened"][0]):
        distiller = keras_kd.Distiller(
            positions(1, end)[0], positions(2, end)[0], loss, student_loss_weight=0.0
        )
        distiller.compile("sgd", run_eagerly=True)
        logs = distiller.evaluate(x, batch_size=16, verbose=0, return_dict=True)
        values.append(logs["distillation_loss"])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_a_teacher_of_flattened_softmaxes_is_stored_as_such(tmp_path):
    flattened = HIDDEN_ENDINGS["flattened"][0]
    teacher, _ = positions(1, flattened)
    student, _ = positions(2, lambda logits: keras.layers.Flatten()(logits))
    x = np.random.default_rng(0).normal(size=(16, 4, 5)).astype("float32")
    expected = measured(teacher, student, x)
    stored = keras_kd.teachers.StoredTeacher.create(
        teacher, x, tmp_path / "stored", dtype="float32"
    )
    found = measured(stored, student, stored.join(x))
    assert found == pytest.approx(expected, rel=1e-5)


def hard_sigmoid(logits):
    return keras.layers.Activation("hard_sigmoid")(logits)


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (HiddenSoftmax(), r"probabilities, made by.*end the student in keras.layers.Softmax"),
        (hard_sigmoid, r"probabilities, made by.*end the student in.*\('sigmoid'\)"),
        (
            lambda z: keras.layers.Concatenate()([keras.ops.softmax(z), z]),
            r"joins probabilities.*an output for each kind",
        ),
    ],
)
def test_a_student_of_hidden_probabilities_is_warned_of(end, kind, run_eagerly):
    student, _ = positions(2, end)
    wide = (lambda z: keras.ops.concatenate([z, z], -1)) if student.output_shape[-1] == 6 else None
    teacher, _ = positions(1, wide or (lambda z: z))
    x = np.random.default_rng(0).normal(size=(16, 4, 5)).astype("float32")
    with pytest.warns(UserWarning, match=f"of the student.*{kind}") as seen:
        measured(teacher, student, x, run_eagerly=run_eagerly)
    assert len(seen) == 1


def test_hard_targets_need_logits_of_the_student_alone():
    hidden = HiddenSoftmax()
    x = np.random.default_rng(0).normal(size=(16, 4, 5)).astype("float32")
    student, _ = positions(2, hidden)
    distiller = keras_kd.Distiller(
        positions(1, hidden)[0], student, keras_kd.losses.HardTargets(), student_loss_weight=0.0
    )
    distiller.compile("sgd", run_eagerly=True)
    with pytest.warns(UserWarning, match="of the student") as seen:
        distiller.evaluate(x, verbose=0)
    assert len(seen) == 1


def test_probabilities_that_sum_to_anything_are_warned_of(dense_model, student, examples):
    x, _ = examples
    plain = dense_model(seed=1)

    def scores(x):
        return 1.0 / (1.0 + np.exp(-np.asarray(plain(x))))

    hidden = keras_kd.teachers.NumpyFunction(scores, (3,))
    with pytest.warns(UserWarning, match=r"of the teacher.*log\(p / \(1 - p\)\)"):
        measured(hidden, student, x)
    fixed = keras_kd.teachers.NumpyFunction(lambda x: np.log(scores(x) / (1.0 - scores(x))), (3,))
    assert measured(fixed, student, x) == pytest.approx(measured(plain, student, x), rel=1e-4)


@pytest.mark.parametrize(
    "end",
    [
        lambda z: keras.layers.ReLU()(z * 0.1),
        lambda z: keras.layers.UnitNormalization()(keras.layers.ReLU()(z) + 0.01),
        lambda z: keras.layers.Dense(3, kernel_initializer="zeros")(z),
        keras.ops.log_softmax,
        lambda z: keras.layers.BatchNormalization()(z),
    ],
)
@pytest.mark.parametrize("run_eagerly", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_no_probability_is_not_warned_of(end, run_eagerly):
    x = np.random.default_rng(0).normal(size=(16, 4, 5)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        measured(positions(1, end)[0], positions(2, end)[0], x, run_eagerly)


def test_outputs_that_no_loss_softens_may_be_probabilities(examples):
    x, _ = examples

    def two(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((5,))
        shares = HiddenSoftmax()(keras.layers.Dense(3)(inputs))
        return keras.Model(inputs, {"shares": shares, "scores": keras.layers.Dense(3)(inputs)})

    losses = [
        keras_kd.losses.SoftTargets(outputs="scores"),
        keras_kd.losses.LogitsMSE(outputs="shares"),
    ]
    distiller = keras_kd.Distiller(two(1), two(2), losses, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        distiller.evaluate(x, verbose=0)


def test_one_unit_without_an_axis_for_it(dense_model, examples):
    x, _ = examples
    expected = measured(dense_model(1, seed=1), dense_model(1, seed=2), x)
    flat = [
        ended(dense_model(1, seed=seed), lambda z: keras.ops.squeeze(z, axis=-1)) for seed in (1, 2)
    ]
    assert measured(*flat, x) == pytest.approx(expected, rel=1e-6)


def test_a_softmax_operation_at_the_end_is_no_end_in_logits(dense_model, teacher):
    operation = ended(dense_model(), keras.ops.softmax)
    distiller = keras_kd.Distiller(teacher, operation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distiller.compile("sgd", "sparse_categorical_crossentropy")
    logits = ended(dense_model(), lambda z: keras.layers.Dropout(0.5)(z))
    with pytest.warns(UserWarning, match="which ends in logits"):
        keras_kd.Distiller(teacher, logits).compile("sgd", "sparse_categorical_crossentropy")
