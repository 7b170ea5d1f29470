"""Functions of the user's in layers: kept as they are, with their globals and closures."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers

from keras_kd import compression
from keras_kd.compression.bridge import serialized

X = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
SCALE = 2.0
TABLE = np.linspace(-1, 1, 8).astype("float32")


def scaled(x):
    return tf.nn.relu(x) * SCALE


class Scaling:
    """A callable object, and a method of it."""

    def __init__(self, factor):
        self.factor = factor

    def multiplied(self, x):
        return x * self.factor

    def __call__(self, x):
        return x + self.factor


class Calling(layers.Layer):
    """A layer of the user's that is built with a function."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)

    def get_config(self):
        function = keras.saving.serialize_keras_object(self.function)
        return {**super().get_config(), "function": function}

    @classmethod
    def from_config(cls, config):
        function = keras.saving.deserialize_keras_object(config["function"])
        return cls(**{**config, "function": function})


def closing(table):
    return layers.Lambda(lambda x: x * table)


FUNCTIONS = {
    "tf": lambda: layers.Lambda(lambda x: tf.nn.relu(x)),
    "keras": lambda: layers.Lambda(lambda x: keras.ops.tanh(x)),
    "a global": lambda: layers.Lambda(lambda x: x * SCALE),
    "a closure": lambda: closing(TABLE),
    "arguments": lambda: layers.Lambda(
        lambda x, scale, table: x * scale + table, arguments={"scale": 2.0, "table": TABLE}
    ),
    "a variable as argument": lambda: layers.Lambda(
        lambda x, scale: x * scale, arguments={"scale": tf.Variable(2.0)}
    ),
    "output_shape": lambda: layers.Lambda(lambda x: x * SCALE, output_shape=(8,)),
    "a function of shapes": lambda: layers.Lambda(
        lambda x: x * SCALE, output_shape=lambda shape: shape
    ),
    "a mask function": lambda: layers.Lambda(lambda x: x * SCALE, mask=lambda x, mask: mask),
    "partial": lambda: layers.Lambda(functools.partial(tf.pow, y=2.0)),
    "a method": lambda: layers.Lambda(Scaling(2.0).multiplied),
    "a named function": lambda: layers.Lambda(scaled),
    "a function of a module": lambda: layers.Lambda(tf.nn.softmax),
    "a layer of the user's": lambda: Calling(lambda x: tf.nn.relu(x) * SCALE),
    "a callable object": lambda: Calling(Scaling(2.0)),
    "nested": lambda: keras.Sequential([keras.Input((8,)), layers.Lambda(lambda x: tf.abs(x))]),
    "in a wrapper": lambda: keras.Sequential(
        [
            keras.Input((8,)),
            layers.Reshape((2, 4)),
            layers.TimeDistributed(layers.Lambda(lambda x: tf.abs(x) * SCALE)),
            layers.Flatten(),
        ]
    ),
    "Activation": lambda: layers.Activation(lambda x: tf.nn.elu(x) * SCALE),
    "activation": lambda: layers.Dense(8, activation=lambda x: tf.nn.elu(x) * SCALE),
    "a partial activation": lambda: layers.Dense(
        8, activation=functools.partial(keras.activations.leaky_relu, negative_slope=0.3)
    ),
    "initializer": lambda: layers.Dense(
        8, kernel_initializer=lambda shape, dtype=None: tf.ones(shape) * SCALE
    ),
    "regularizer": lambda: layers.Dense(
        8, kernel_regularizer=lambda weight: SCALE * tf.reduce_sum(tf.abs(weight))
    ),
    "constraint": lambda: layers.Dense(8, kernel_constraint=lambda weight: tf.abs(weight)),
}


def student_with(layer, kit=keras):
    keras.utils.set_random_seed(0)
    dense = kit.layers.Dense
    return kit.Sequential([kit.Input((5,)), dense(8, name="first"), layer, dense(3, name="last")])


def outputs(model):
    return np.asarray(model(X, training=False))


# Like others in what becomes of them.
ALIKE = {
    "keras",
    "a global",
    "a variable as argument",
    "a mask function",
    "partial",
    "a named function",
    "a function of a module",
    "a callable object",
    "nested",
    "a partial activation",
}


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in ALIKE else ()) for n in FUNCTIONS],
)
def test_a_function_of_the_users_stays_what_it_is(name, tmp_path):
    student = student_with(FUNCTIONS[name]())
    pruned = compression.prune(student, 0.5, schedule=compression.PolynomialSchedule(end_step=1))
    np.testing.assert_allclose(outputs(pruned), outputs(student), rtol=1e-5, atol=1e-5)
    plain = compression.strip(pruned)
    np.testing.assert_allclose(outputs(plain), outputs(student), rtol=1e-5, atol=1e-5)
    pruned.save(tmp_path / "student.keras")
    loaded = compression.load(tmp_path / "student.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(pruned))


COMPRESSIONS = {
    "cluster": lambda student: compression.cluster(student, 4),
    "quantize_aware": lambda student: compression.quantize_aware(student, X),
    "factorize": lambda student: compression.factorize(student, rank=1),
}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("a closure", "cluster"),
        ("in a wrapper", "quantize_aware"),
        ("activation", "factorize"),
        ("regularizer", "factorize"),
        *(
            pytest.param(name, method, marks=pytest.mark.slow)
            for name, method in (
                ("a closure", "quantize_aware"),
                ("a closure", "factorize"),
                ("in a wrapper", "cluster"),
                ("in a wrapper", "factorize"),
                ("activation", "cluster"),
                ("activation", "quantize_aware"),
                ("regularizer", "cluster"),
                ("regularizer", "quantize_aware"),
            )
        ),
    ],
)
def test_other_compressions_keep_it_too(name, method):
    student = student_with(FUNCTIONS[name]())
    compressed = COMPRESSIONS[method](student)
    plain = compression.strip(compressed)
    if method == "factorize":
        assert plain.count_params() < student.count_params()
    else:
        assert outputs(plain).shape == (16, 3)
    if name == "a closure":
        own, kept = (
            [layer for layer in model.layers if isinstance(layer, layers.Lambda)]
            for model in (student, plain)
        )
        assert kept[0].function is own[0].function


def test_a_regularizer_and_a_constraint_train_as_in_keras_3():
    def dense(**options):
        return layers.Dense(8, **options)

    student = student_with(
        dense(
            kernel_regularizer=lambda weight: 0.5 * SCALE * keras.ops.sum(weight**2),
            kernel_constraint=lambda weight: keras.ops.clip(weight, -0.3, 0.3),
        )
    )
    twin = compression.to_tf_keras(student)
    # It can be pruned, for it is a layer of tf_keras.
    assert type(twin.layers[2]) is tf_keras.layers.Dense
    kernel = np.asarray(student.layers[1].kernel, "float64")
    np.testing.assert_allclose(float(sum(twin.losses)), np.sum(kernel**2), rtol=1e-5)
    y = np.ones((16, 3), "float32")
    for model in (student, twin):
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        model.fit(X, y, epochs=2, batch_size=16, verbose=0)
    np.testing.assert_allclose(
        twin.layers[2].kernel.numpy(), np.asarray(student.layers[1].kernel), atol=1e-6
    )
    assert np.max(np.abs(twin.layers[2].kernel)) <= 0.3


def test_two_functions_of_one_code_are_two():
    def times(factor):
        return lambda x: x * factor

    made = [times(2.0), times(3.0)]
    assert made[0].__code__ is made[1].__code__
    student = keras.Sequential([keras.Input((5,)), *map(layers.Lambda, made), layers.Dense(2)])
    np.testing.assert_allclose(
        outputs(compression.to_tf_keras(student)), outputs(student), rtol=1e-5, atol=1e-6
    )


def test_layers_of_the_student_are_as_before():
    student = student_with(layers.Dense(8, activation=scaled, kernel_regularizer=scaled))
    before = dict(vars(student.layers[1]))
    compression.to_tf_keras(student)
    assert student.layers[1].activation is scaled
    assert student.layers[1].kernel_regularizer is scaled
    assert vars(student.layers[1]).keys() == before.keys()


def in_tf_keras(layer):
    return lambda: student_with(layer, tf_keras)


TF_KERAS = {
    "tf": in_tf_keras(tf_keras.layers.Lambda(lambda x: tf.nn.relu(x) * SCALE)),
    "partial": in_tf_keras(tf_keras.layers.Lambda(functools.partial(tf.pow, y=2.0))),
    "a method": in_tf_keras(tf_keras.layers.Lambda(Scaling(2.0).multiplied)),
    "arguments": in_tf_keras(
        tf_keras.layers.Lambda(lambda x, scale: x * scale, arguments={"scale": 2.0})
    ),
    "regularizer": in_tf_keras(
        tf_keras.layers.Dense(8, kernel_regularizer=lambda weight: tf.reduce_sum(weight))
    ),
    "in a wrapper": in_tf_keras(
        tf_keras.Sequential(
            [
                tf_keras.Input((8,)),
                tf_keras.layers.Reshape((2, 4)),
                tf_keras.layers.TimeDistributed(tf_keras.layers.Lambda(lambda x: tf.abs(x))),
                tf_keras.layers.Flatten(),
            ]
        )
    ),
}


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("name", TF_KERAS)
def test_a_student_of_tf_keras(name):
    student = TF_KERAS[name]()
    pruned = compression.prune(student, 0.5, schedule=compression.PolynomialSchedule(end_step=1))
    np.testing.assert_allclose(outputs(pruned), outputs(student), rtol=1e-5, atol=1e-5)
    plain = compression.strip(pruned)
    np.testing.assert_allclose(outputs(plain), outputs(student), rtol=1e-5, atol=1e-5)


def doubled(x):
    return x * 2


FILES = {
    "lambda": lambda: layers.Lambda(lambda x: x * 2),
    "named": lambda: layers.Lambda(doubled),
    "activation": lambda: layers.Dense(8, activation=doubled),
    "partial": lambda: layers.Lambda(functools.partial(tf.pow, y=2.0)),
    "regularizer": lambda: layers.Dense(8, kernel_regularizer=lambda weight: 0.0),
}
# What `load` is given, and the advice without it.
NEEDED = {
    "lambda": ({"safe_mode": False}, "pass safe_mode=False if you trust the file"),
    "named": ({"custom_objects": {"doubled": doubled}}, "custom_objects"),
    "activation": ({"custom_objects": {"doubled": doubled}}, "custom_objects"),
    "partial": (None, "'partial' cannot be kept in a file"),
    "regularizer": ({"safe_mode": False}, "pass safe_mode=False if you trust the file"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_elsewhere_as_those_of_keras_are(name, tmp_path, monkeypatch):
    student = compression.to_tf_keras(student_with(FILES[name]()))
    student.save(tmp_path / "student.keras")
    # Another process knows nothing of this one's functions.
    for known in ("_FUNCTIONS_BY_KEY", "_SEEN", "_CUSTOM_OBJECTS"):
        monkeypatch.setattr(serialized, known, {})
    registered = tf_keras.saving.get_custom_objects()
    for key in [key for key in registered if key.startswith("keras_kd>doubled")]:
        monkeypatch.delitem(registered, key)
    options, advice = NEEDED[name]
    with pytest.raises(ValueError, match=advice):
        compression.load(tmp_path / "student.keras")
    if options is not None:
        loaded = compression.load(tmp_path / "student.keras", **options)
        np.testing.assert_array_equal(outputs(loaded), outputs(student))
