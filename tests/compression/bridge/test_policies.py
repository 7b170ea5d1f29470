"""What holds for every layer: dtype policies, constraints, noise, frozen parts, custom code."""

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import constraints, layers

from keras_kd.compression import strip, to_tf_keras


def with_random_weights(model):
    """Values that tell gamma from beta and mean from variance."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(generator.uniform(0.2, 1.2, weight.shape))
    return model


# Both normalizations round differently in half precision.
DTYPES = {
    "float16": 1e-2,
    "bfloat16": 1e-1,
    "float64": 1e-8,
    "mixed_float16": 1e-2,
    "mixed_bfloat16": 1e-1,
}


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("policy", DTYPES)
def test_dtype_policy_of_single_layers(policy, assert_same_step):
    inputs = keras.Input((6, 6, 2))
    hidden = layers.Conv2D(4, 3, use_bias=False, dtype=policy, name="conv")(inputs)
    hidden = layers.Dense(3, use_bias=False, name="between")(hidden)
    hidden = layers.BatchNormalization(dtype=policy, name="normalization")(hidden)
    hidden = layers.LayerNormalization(dtype=policy, name="layer_normalization")(hidden)
    hidden = layers.Activation("gelu", dtype=policy, name="activation")(hidden)
    model = with_random_weights(keras.Model(inputs, layers.Flatten(name="flat")(hidden)))
    twin = to_tf_keras(model)
    for layer in model.layers[1:]:
        other = twin.get_layer(layer.name)
        assert (other.compute_dtype, other.variable_dtype) == (
            layer.compute_dtype,
            layer.variable_dtype,
        )
    back = strip(twin)
    assert [w.dtype for w in back.weights] == [w.dtype for w in model.weights]
    for one, other in zip(model.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [layer.dtype_policy.name for layer in back.layers[1:]] == [
        layer.dtype_policy.name for layer in model.layers[1:]
    ]
    batch = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")
    # The dense layer between computes in float32.
    rounding = max(ml_dtypes.finfo(policy.removeprefix("mixed_")).eps, np.finfo("float32").eps)
    differences = assert_same_step(model, batch, tolerance=2 * ROUNDINGS * rounding)
    for name in ("inference", "training"):
        assert differences[name] <= ROUNDINGS * rounding


# How often a value is rounded on its way through the layers: the convolution once, each of the two
# normalizations three times (less the mean, scaled, shifted), GELU three times (the error function,
# half of its sum with 1, the product). Each changes it by at most half of epsilon in each of the
# two Kerases, so that their outputs differ by as many epsilons. A gradient goes the way back, too.
ROUNDINGS = 10


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("policy", DTYPES)
def test_dtype_policy_of_the_whole_model(policy, assert_same_step):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        stack = [
            layers.Conv2D(4, 3, activation="relu", use_bias=False),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(2),
            layers.Add(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
        inputs = keras.Input((6, 6, 2))
        hidden = inputs
        for layer in stack:
            hidden = layer([hidden, hidden] if isinstance(layer, layers.Add) else hidden)
        model = with_random_weights(keras.Model(inputs, hidden))
    finally:
        keras.config.set_dtype_policy(before)
    twin = to_tf_keras(model)
    assert twin.outputs[0].dtype == model.outputs[0].dtype
    batch = tf.cast(np.random.default_rng(0).normal(size=(4, 6, 6, 2)), model.inputs[0].dtype)
    assert_same_step(model, batch, tolerance=DTYPES[policy])


def test_dtype_of_inputs_is_kept():
    inputs = {
        name: keras.Input((3,), dtype=name, name=name)
        for name in ("uint8", "int32", "int64", "float16", "bool")
    }
    scaled = [layers.Rescaling(0.5, name=f"{n}_scaled")(x) for n, x in inputs.items()]
    model = keras.Model(inputs, layers.Add(name="sum")(scaled))
    twin = to_tf_keras(model)
    assert {t.name: t.dtype.name for t in twin.inputs} == {n: n for n in inputs}
    batch = {n: np.array([[0, 1, 1]]).astype(n) for n in inputs}
    np.testing.assert_array_equal(model(batch), twin(batch))


CONSTRAINTS = {
    "max_norm": constraints.MaxNorm(0.5, axis=[0, 1]),
    "non_neg": constraints.NonNeg(),
    "unit_norm": constraints.UnitNorm(axis=1),
    "min_max_norm": constraints.MinMaxNorm(0.2, 0.6, rate=0.5, axis=0),
}


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_hold_after_a_step(name):
    keras.utils.set_random_seed(0)
    stack = [
        layers.Conv2D(3, 3, kernel_constraint=CONSTRAINTS[name]),
        layers.DepthwiseConv2D(2, depthwise_constraint=CONSTRAINTS[name]),
        layers.SeparableConv2D(2, 2, pointwise_constraint=CONSTRAINTS[name]),
        layers.BatchNormalization(gamma_constraint="non_neg", beta_constraint="non_neg"),
        layers.Flatten(),
        layers.Dense(2, bias_constraint="non_neg"),
    ]
    model = keras.Sequential([keras.Input((6, 6, 2)), *stack])
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")
    twin = to_tf_keras(model)
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    twin.compile(tf_keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    for student in (model, twin):
        student.train_on_batch(x, np.ones((4, 2), "float32"))
    back = strip(twin)
    for one, other in zip(model.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    for layer, other in zip(model.layers, back.layers[1:], strict=True):
        assert _constraints(layer) == _constraints(other)


def _constraints(layer):
    return {k: v for k, v in layer.get_config().items() if k.endswith("_constraint")}


DROPOUT = {
    "Dropout": (lambda: layers.Dropout(0.3), (40, 50), None),
    "Dropout noise_shape": (lambda: layers.Dropout(0.3, noise_shape=(None, 1, 50)), (40, 50), 1),
    "SpatialDropout1D": (lambda: layers.SpatialDropout1D(0.3), (40, 50), 1),
    "SpatialDropout2D": (lambda: layers.SpatialDropout2D(0.3), (4, 4, 50), (1, 2)),
    "SpatialDropout3D": (lambda: layers.SpatialDropout3D(0.3), (2, 2, 2, 50), (1, 2, 3)),
}


@pytest.mark.parametrize("name", DROPOUT)
def test_dropout_drops_as_often_and_what_belongs_together(name):
    make, shape, together = DROPOUT[name]
    model = keras.Sequential([keras.Input(shape), make()])
    twin = to_tf_keras(model)
    x = np.ones((16, *shape), "float32")
    for student in (model, twin):
        kept = np.asarray(student(x, training=True))
        np.testing.assert_allclose(np.unique(kept), [0, 1 / 0.7], rtol=1e-6)
        assert np.mean(kept == 0) == pytest.approx(0.3, abs=0.06)
        assert np.ptp(kept, axis=together).any() == (name == "Dropout")
    np.testing.assert_array_equal(twin(x, training=False), x)
    assert strip(twin).layers[-1].get_config() == model.layers[-1].get_config()


@pytest.mark.parametrize(
    ("make", "mean", "deviation"),
    [
        (lambda: layers.GaussianNoise(0.5), 1.0, 0.5),
        (lambda: layers.GaussianDropout(0.2), 1.0, 0.5),
        # Of a SELU network's values of mean 0 and deviation 1, AlphaDropout keeps both.
        (lambda: layers.AlphaDropout(0.2), None, None),
    ],
    ids=["GaussianNoise", "GaussianDropout", "AlphaDropout"],
)
def test_noise_is_as_strong(make, mean, deviation):
    model = keras.Sequential([keras.Input((5000,)), make()])
    twin = to_tf_keras(model)
    x = np.ones((4, 5000), "float32")
    if mean is None:
        x = np.random.default_rng(0).normal(size=x.shape).astype("float32")
        mean, deviation = 0.0, 1.0
    for student in (model, twin):
        noisy = np.asarray(student(x, training=True))
        assert noisy.mean() == pytest.approx(mean, abs=0.03)
        assert noisy.std() == pytest.approx(deviation, abs=0.03)
        np.testing.assert_array_equal(student(x, training=False), x)
    assert strip(twin).layers[-1].get_config() == model.layers[-1].get_config()


def test_softmax_masks_like_keras(assert_same_step):
    scores, mask = keras.Input((4, 5)), keras.Input((4, 5), dtype="bool")
    model = keras.Model([scores, mask], layers.Softmax(axis=(1, 2))(scores, mask=mask))
    generator = np.random.default_rng(0)
    batch = [generator.normal(size=(3, 4, 5)).astype("float32"), generator.random((3, 4, 5)) > 0.3]
    assert_same_step(model, batch)


def test_frozen_layers_stay_frozen_and_batch_normalization_infers(assert_same_step):
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5), layers.BatchNormalization()], name="inner"
    )
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.BatchNormalization(trainable=False),
            inner,
            layers.Dense(3, name="learns"),
            layers.BatchNormalization(name="learns_too"),
        ]
    )
    inner.trainable = False
    with_random_weights(model)
    twin = to_tf_keras(model)
    assert [w.name.split("/")[0] for w in twin.trainable_weights] == [
        *["learns"] * 2,
        *["learns_too"] * 2,
    ]
    batch = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    state = {layer.name: layer.get_weights() for layer in inner.layers}
    assert_same_step(model, batch)
    for layer in inner.layers:
        for before, after in zip(state[layer.name], layer.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)


def test_a_layer_frozen_inside_a_trainable_model_stays_frozen():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, trainable=False, name="frozen"), layers.Dense(2)]
    )
    twin = to_tf_keras(keras.Sequential([keras.Input((4,)), inner]))
    assert not twin.get_layer("frozen").trainable_weights
    assert [layer.trainable for layer in strip(twin).layers[1:]] == [False, True]


@keras.saving.register_keras_serializable("keras_kd_tests")
class Block(layers.Layer):
    """Everything a layer can have: layers, penalties, constraints, statistics, frozen parts."""

    def __init__(self, units, *, frozen=False, **options):
        super().__init__(**options)
        self.units, self.frozen = units, frozen
        self.dense = layers.Dense(
            units, kernel_regularizer="l2", bias_constraint="non_neg", trainable=not frozen
        )
        self.normalization = layers.BatchNormalization(momentum=0.6)

    def build(self, shape):
        self.dense.build(shape)
        self.normalization.build((*shape[:-1], self.units))
        self.scale = self.add_weight(
            shape=(self.units,),
            initializer="ones",
            regularizer=keras.regularizers.L1(0.1),
            constraint=keras.constraints.MaxNorm(0.9),
            name="scale",
        )

    def call(self, x, training=False):
        hidden = self.normalization(self.dense(x), training=training)
        self.add_loss(0.3 * keras.ops.mean(keras.ops.square(hidden)))
        return keras.ops.tanh(hidden) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units, "frozen": self.frozen}


@keras.saving.register_keras_serializable("keras_kd_tests")
class Mix(layers.Layer):
    """Several inputs, options in the call, several outputs."""

    def build(self, first_shape, second_shape):
        self.kernel = self.add_weight(shape=(first_shape[-1], second_shape[-1]), name="kernel")

    def call(self, first, second, *, factor=1.0):
        mixed = keras.ops.matmul(first, self.kernel) * factor
        return mixed + second, {"difference": mixed - second}


def _blocks(**options):
    stack = [keras.Input((5,)), Block(4, **options), layers.Dense(3), Block(2, **options)]
    return with_random_weights(keras.Sequential(stack))


def _frozen(model):
    for layer in model.layers:
        layer.trainable = not isinstance(layer, Block)
    return model


def _mixed():
    first, second = keras.Input((4,)), keras.Input((3,))
    total, others = Mix()(first, second, factor=0.5)
    more, _ = Mix()(total, others["difference"])
    return keras.Model([first, second], [more, others["difference"]])


CUSTOM = {
    "all a layer can have": lambda: _blocks(),
    "a frozen part": lambda: _blocks(frozen=True),
    "frozen as a whole": lambda: _frozen(_blocks()),
    "activity regularizer": lambda: _blocks(activity_regularizer="l2"),
    "float64": lambda: _blocks(dtype="float64"),
    "several inputs and outputs": _mixed,
}


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize("make", CUSTOM.values(), ids=CUSTOM.keys())
def test_custom_layers(make, assert_same_step):
    model = make()
    generator = np.random.default_rng(0)
    batch = [generator.normal(size=(6, *x.shape[1:])).astype("float32") for x in model.inputs]
    assert_same_step(model, batch if len(batch) > 1 else batch[0])


def test_constraints_of_custom_layers_hold_after_a_step():
    model = _blocks()
    twin = to_tf_keras(model)
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    twin.compile(tf_keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    for student in (model, twin):
        student.train_on_batch(x, -np.ones((6, 2), "float32"))
    for one, other in zip(model.get_weights(), strip(twin).get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
