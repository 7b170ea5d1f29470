import keras
import numpy as np
import pytest
from keras import layers

import keras_kd
from keras_kd.compression import (
    PolynomialSchedule,
    factorize,
    prune,
    quantize_aware,
    strip,
    summary,
)

from _models import cross_entropy


def build_student():
    """Two convolutions and two Dense layers, of which each can be factorized."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((12, 12, 2), name="image"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv1"),
            layers.BatchNormalization(name="normalization"),
            layers.Conv2D(12, 3, use_bias=False, name="conv2"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(16, activation="relu", kernel_regularizer="l2", name="hidden"),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ],
        name="student",
    )


@pytest.fixture
def student():
    return build_student()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(8, 12, 12, 2)).astype("float32")


def low_rank(layer, rank):
    """Give a layer a kernel of that rank."""
    random = np.random.default_rng(0)
    shape = layer.kernel.shape
    rows = int(np.prod(shape[:-1]))
    matrix = random.normal(size=(rows, rank)) @ random.normal(size=(rank, shape[-1]))
    layer.kernel.assign(matrix.reshape(shape) / rows)


def replaced(student):
    """What `summary` has of each layer that was factorized, by name."""
    rows = {layer.name: layer.factorization for layer in summary(student).layers}
    return {name: row for name, row in rows.items() if row is not None}


def kept(student):
    """Why other layers were not factorized, by name."""
    return {layer.name: layer.note for layer in summary(student).layers if layer.note}


def test_layers_become_two_of_which_the_second_has_the_name(student):
    before = [weight.copy() for weight in student.get_weights()]
    factorized = factorize(student, rank=4)
    assert isinstance(factorized, keras.Model)
    assert [layer.name for layer in factorized.layers] == [
        *("image", "conv1_factor", "conv1", "normalization", "conv2_factor", "conv2", "relu"),
        *("flatten", "hidden_factor", "hidden", "probabilities_factor", "probabilities"),
    ]
    assert factorized.name == "student"
    assert factorized.get_layer("hidden_factor").units == 4
    assert factorized.count_params() < student.count_params()
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_of_low_rank_is_the_same_afterwards(student, images):
    for name in ("conv2", "hidden"):
        low_rank(student.get_layer(name), 3)
    factorized = factorize(student, energy=1.0, layers=["conv2", "hidden"])
    assert {name: layer.rank for name, layer in replaced(factorized).items()} == {
        "conv2": 3,
        "hidden": 3,
    }
    np.testing.assert_allclose(factorized(images), student(images), atol=1e-5)


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    "options",
    [
        {"rank": 3},
        {"rank": 3, "form": "spatial"},
        {"energy": 0.7},
        {"energy": 0.7, "form": "channel"},
        {"target_parameters": 0.4},
        {"target_parameters": 2500},
    ],
    ids=str,
)
def test_the_report_is_what_the_model_is(student, options):
    factorized = factorize(student, **options)
    measured = summary(factorized, student)
    assert measured.original.parameters == student.count_params()
    assert measured.parameters == factorized.count_params()
    report = replaced(factorized)
    saved = sum(layer.parameters_before - layer.parameters_after for layer in report.values())
    assert student.count_params() - factorized.count_params() == saved
    for name, layer in report.items():
        pair = [factorized.get_layer(name + "_factor"), factorized.get_layer(name)]
        assert layer.parameters_before == student.get_layer(name).count_params()
        assert layer.parameters_after == sum(part.count_params() for part in pair)
        assert layer.parameters_after < layer.parameters_before
        assert pair[0].kernel.shape[-1] == layer.rank < layer.full_rank
        # Independent of how the kernel was unfolded: the kernel that the two layers amount to.
        original, first, second = (
            np.asarray(part.kernel, "float64") for part in (student.get_layer(name), *pair)
        )
        product = {
            "dense": lambda a, b: a @ b,
            "channel": lambda a, b: np.einsum("hwcr,xyrf->hwcf", a, b),
            "spatial": lambda a, b: np.einsum("hxcr,ywrf->hwcf", a, b),
        }[layer.form](first, second)
        error = np.linalg.norm(original - product) / np.linalg.norm(original)
        assert layer.relative_error == pytest.approx(error, abs=1e-6)
        if "energy" in options:
            assert 1 - error**2 >= options["energy"] - 1e-6
    assert {*report, *kept(factorized)} == {"conv1", "conv2", "hidden", "probabilities"}
    assert report


def test_the_target_is_met(student):
    assert factorize(student, target_parameters=2500).count_params() <= 2500
    share = factorize(student, target_parameters=0.4).count_params() / student.count_params()
    assert 0.35 < share <= 0.4


def test_an_output_changes_by_no_more_than_its_bound(student):
    factorized = factorize(student, rank={"hidden": 5})
    bound = replaced(factorized)["hidden"].output_error
    size = student.get_layer("hidden").kernel.shape[0]
    x = np.random.default_rng(0).normal(size=(50, size)).astype("float32")
    changed = factorized.get_layer("hidden")(factorized.get_layer("hidden_factor")(x))
    norms = np.linalg.norm(changed - student.get_layer("hidden")(x), axis=1)
    assert np.all(norms <= bound * np.linalg.norm(x, axis=1))


def test_layers_are_chosen_and_the_others_reported(student):
    factorized = factorize(student, rank=2, layers=layers.Conv2D, skip="conv1")
    assert list(replaced(factorized)) == ["conv2"]
    assert kept(factorized) == dict.fromkeys(
        ("conv1", "hidden", "probabilities"), "left out by `layers` or `skip`"
    )
    factorized = factorize(student, rank={"conv2": 2, "hidden": 3}, skip=["hidden"])
    assert list(replaced(factorized)) == ["conv2"]
    factorized = factorize(student, rank=6)
    assert kept(factorized)["conv1"] == "rank 6 of 8 takes 156 weights, the kernel 144"


def test_layers_without_a_low_rank_form_are_reported():
    student = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(8, 3, groups=2, name="groups"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(8, 3, kernel_constraint="max_norm", name="constraint"),
            layers.Flatten(),
            layers.Dense(8, name="dense"),
        ]
    )
    factorized = factorize(student, rank=2)
    assert list(replaced(factorized)) == ["dense"]
    assert list(kept(factorized)) == ["groups", "depthwise", "constraint"]
    assert "2 groups" in kept(factorized)["groups"]
    with pytest.raises(ValueError, match=r"\['groups'\] cannot be factorized"):
        factorize(student, rank=2, layers="groups")


def test_shared_and_nested_layers_and_several_outputs(images):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(12, activation="tanh", name="dense")], name="inner"
    )
    shared = layers.Dense(6, name="shared")
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    dense = layers.Dense(9, name="dense")
    one, other = inner(shared(left)), inner(shared(right))
    outputs = {"sum": dense(layers.Add()([one, other])), "one": one}
    student = keras.Model({"left": left, "right": right}, outputs)
    for layer in (shared, inner.get_layer("dense"), dense):
        low_rank(layer, 2)
    factorized = factorize(student, energy=1.0)
    assert list(replaced(factorized)) == ["shared", "inner_dense", "dense"]
    assert factorized.get_layer("inner_dense_factor").units == 2
    assert factorized.count_params() == summary(factorized).parameters
    random = np.random.default_rng(0)
    x = {name: random.normal(size=(3, 8)).astype("float32") for name in ("left", "right")}
    received = factorized(x)
    for name, expected in student(x).items():
        np.testing.assert_allclose(received[name], expected, atol=1e-5)


def test_a_second_time(student, images):
    once = factorize(student, target_parameters=0.5)
    twice = factorize(once, target_parameters=0.5)
    assert twice.count_params() <= once.count_params() / 2
    assert "hidden_factor_factor" in [layer.name for layer in twice.layers]
    assert twice(images).shape == (8, 10)


def test_a_tf_keras_student():
    import tf_keras

    initializer = tf_keras.initializers.GlorotUniform(seed=0)
    student = tf_keras.Sequential(
        [
            tf_keras.Input((8,)),
            tf_keras.layers.Dense(8, kernel_initializer=initializer, name="hidden"),
        ]
    )
    factorized = factorize(student, rank=3)
    assert isinstance(factorized, keras.Model)
    left, values, right = np.linalg.svd(student.get_layer("hidden").kernel.numpy())
    expected = (left[:, :3] * values[:3]) @ right[:3]
    np.testing.assert_allclose(factorized(np.eye(8, dtype="float32")), expected, atol=1e-5)


def test_it_trains_saves_and_loads(student, images, tmp_path):
    factorized = factorize(student, energy=0.6)
    factorized.compile("sgd", "sparse_categorical_crossentropy")
    before = [weight.copy() for weight in factorized.get_weights()]
    factorized.fit(images, np.arange(8), verbose=0)
    kernels = [
        index for index, weight in enumerate(factorized.weights) if weight.path.endswith("kernel")
    ]
    assert len(kernels) > 4
    for index in kernels:
        assert np.any(before[index] != factorized.get_weights()[index])
    factorized.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(loaded(images), factorized(images), atol=1e-6)
    assert not hasattr(loaded, "factorization")


def test_frozen_layers_stay_frozen(student):
    student.get_layer("hidden").trainable = False
    factorized = factorize(student, rank=3)
    frozen = [layer.name for layer in factorized.layers if not layer.trainable]
    assert frozen == ["hidden_factor", "hidden"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Received neither rank, nor energy, nor target_parameters"),
        ({"rank": 2, "energy": 0.5}, "Received rank=2 and energy=0.5. Expected exactly one"),
        ({"rank": 0}, "rank=0. Expected an integer of at least 1"),
        ({"rank": {"hidden": 0}}, r"rank\['hidden'\]=0"),
        ({"rank": {"hiden": 2}}, "'hiden' is no layer of the student.*write 'hidden'"),
        ({"rank": {"relu": 2}}, r"\['relu'\] cannot be factorized"),
        ({"rank": {"hidden": 2}, "layers": "hidden"}, "leave `layers` out"),
        ({"energy": 0}, "energy=0. Expected a finite number above 0 and at most 1"),
        ({"energy": 1.1}, "energy=1.1"),
        ({"target_parameters": 0}, "target_parameters=0"),
        ({"target_parameters": 1.0}, "target_parameters=1.0"),
        ({"target_parameters": 10**6}, "target_parameters=1,000,000 for a student of [0-9,]+"),
        ({"target_parameters": 0.01}, "at least [0-9,]+, which rank 1 in every chosen layer"),
        ({"rank": 100}, "no chosen layer gets smaller .layer 'conv1': rank 6 of 6 takes 180"),
        ({"rank": 2, "form": "diagonal"}, "form='diagonal'. Expected one of 'auto', 'channel'"),
    ],
    ids=str,
)
def test_arguments_are_checked(student, options, message):
    with pytest.raises(ValueError, match=message):
        factorize(student, **options)


@pytest.mark.parametrize("options", [{"rank": 2.5}, {"rank": True}, {"energy": "high"}], ids=str)
def test_types_are_checked(student, options):
    with pytest.raises(TypeError, match=next(iter(options))):
        factorize(student, **options)


@pytest.mark.parametrize(
    ("compress", "state"),
    [(lambda plain: prune(plain, 0.5), "pruned"), (quantize_aware, "quantization-aware")],
    ids=["pruned", "quantization-aware"],
)
def test_compressed_students_are_refused(compress, state):
    plain = keras.Sequential([keras.Input((8,)), layers.Dense(8)])
    with pytest.raises(ValueError, match=f"student that is {state} already .*factorize before"):
        factorize(compress(plain), rank=2)


def test_what_is_no_model():
    with pytest.raises(ValueError, match="Received student=3"):
        factorize(3, rank=2)


@pytest.mark.slow
def test_distillation_recovers_what_the_student_has_lost():
    digits = keras_kd.data.load_sample().first(2000, 1000)
    train = (digits.x_train, digits.y_train)
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, strides=3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
        ]
    )
    loss = cross_entropy()
    teacher.compile(keras.optimizers.Adam(3e-3), loss)
    teacher.fit(*train, batch_size=64, epochs=4, verbose=0)

    def accuracy(model):
        logits = model.predict(digits.x_test, batch_size=500, verbose=0)
        return np.mean(logits.argmax(axis=-1) == digits.y_test)

    student = factorize(teacher, target_parameters=0.15)
    taught, before = accuracy(teacher), accuracy(student)
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.1)
    distiller.compile(keras.optimizers.Adam(2e-3), loss)
    distiller.fit(*train, batch_size=64, epochs=3, verbose=0)
    after = accuracy(student)
    # Three seeds: 0.91 for the teacher, 0.62 to 0.65 before, 0.87 to 0.89 after.
    assert student.count_params() < 0.15 * teacher.count_params()
    assert taught > 0.87
    assert before < taught - 0.15
    assert after > before + 0.15
    assert after > taught - 0.06


@pytest.mark.slow
@pytest.mark.parametrize("form", ["channel", "spatial"])
def test_a_factorized_student_is_pruned_quantized_and_converted(student, images, form):
    # Probabilities that differ from one another.
    last = student.get_layer("probabilities")
    last.kernel.assign(30 * last.kernel)
    factorized = factorize(student, energy=0.7, form=form)
    assert {layer.form for layer in replaced(factorized).values()} == {form, "dense"}

    pruned = prune(factorized, 0.5, schedule=PolynomialSchedule(end_step=2, frequency=1))
    pruned.compile("sgd", "sparse_categorical_crossentropy")
    pruned.fit(images, np.arange(8), 2, 2, verbose=0, callbacks=pruned.training_callbacks())
    sparse = strip(pruned)
    assert [layer.name for layer in sparse.layers] == [layer.name for layer in factorized.layers]
    assert summary(sparse).sparsities["hidden_factor"] == pytest.approx(0.5, abs=0.02)

    quantized = quantize_aware(factorized, images)
    expected = factorized.predict(images, verbose=0)
    assert np.std(expected) > 0.2
    np.testing.assert_allclose(quantized.predict(images, verbose=0), expected, atol=0.08)
    converted = keras_kd.tflite.convert(quantized, "int8", images)
    np.testing.assert_allclose(converted.predict(images), expected, atol=0.1)
