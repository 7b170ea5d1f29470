"""One contract for every model: the same outputs there, the same weights back."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

from keras_kd.compression import to_tf_keras
from keras_kd.compression.bridge import rebuilding
from keras_kd.compression.bridge.graph import read
from keras_kd.compression.bridge.rebuilding import Comparison

from _models import outputs


def sequence(*stack, shape=(8, 8, 3), dtype=None):
    return lambda: keras.Sequential([keras.Input(shape, dtype=dtype), *(make() for make in stack)])


def _branches():
    image = keras.Input((6, 6, 2), name="image")
    left = layers.Conv2D(4, 3, padding="same", name="left")(image)
    right = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="right")(image)
    merged = [
        merge()([left, right])
        for merge in (
            layers.Add,
            layers.Average,
            layers.Maximum,
            layers.Minimum,
            layers.Multiply,
            layers.Subtract,
            layers.Concatenate,
        )
    ]
    pooled = [layers.GlobalAveragePooling2D()(tensor) for tensor in merged]
    return keras.Model(image, [*pooled, layers.Dot(-1)([pooled[0], pooled[1]])])


def _dict_to_dict():
    words = keras.Input((5,), dtype="int32", name="words")
    size = keras.Input((3,), name="size")
    embedded = layers.Embedding(7, 4, mask_zero=True)(words)
    joined = layers.Concatenate()([layers.GlobalAveragePooling1D()(embedded), size])
    return keras.Model(
        {"words": words, "size": size},
        {
            "class": layers.Dense(3, name="class")(joined),
            "age": layers.Dense(1, name="age")(joined),
        },
    )


def _mask_lost():
    # In Keras 3, Flatten and Reshape lose the mask; tf_keras must not bring it back.
    words = keras.Input((6,), dtype="int32")
    embedded = layers.Embedding(5, 4, mask_zero=True)(words)
    again = layers.Reshape((6, 4))(layers.Reshape((3, 8))(embedded))
    return keras.Model(words, layers.GlobalAveragePooling1D()(layers.Add()([again, again])))


def _shared():
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    tower = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="dense"), layers.BatchNormalization()],
        name="tower",
    )
    head = layers.Dense(2, name="dense")
    joined = layers.Concatenate()([tower(first), tower(second)])
    return keras.Model([first, second], [head(joined), head(layers.Subtract()([joined, joined]))])


def _nested_with_two_inputs():
    left, right = keras.Input((4,)), keras.Input((3,))
    inner = keras.Model(
        [left, right], layers.Concatenate()([layers.Dense(2)(left), layers.Dense(2)(right)])
    )
    first, second = keras.Input((4,)), keras.Input((3,))
    return keras.Model([first, second], layers.Dense(2)(inner([first, second])))


def _frozen_base():
    base = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()])
    base.trainable = False
    return keras.Sequential([keras.Input((4,)), base, layers.Dense(2)])


def _normalization():
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (64, 4)).astype("float32"))
    return keras.Sequential([keras.Input((4,)), normalization, layers.Dense(2)])


def _cut_out():
    # A model between two tensors of another one, as `taps` makes them.
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, name="hidden")(inputs)
    layers.Dense(2, name="not_needed")(hidden)
    return keras.Model(inputs, layers.ReLU()(hidden))


ACTIVATIONS = """
    celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus
    softsign sparse_plus squareplus tanh tanh_shrink
"""

MODELS = {
    "conv2d": sequence(
        lambda: layers.Rescaling(1 / 255, offset=-0.5),
        lambda: layers.ZeroPadding2D(((0, 1), (1, 0))),
        lambda: layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        lambda: layers.BatchNormalization(epsilon=1e-5, momentum=0.8),
        lambda: layers.ReLU(max_value=6.0, negative_slope=0.1, threshold=0.05),
        lambda: layers.SpatialDropout2D(0.1),
        lambda: layers.Flatten(),
        lambda: layers.Dropout(0.5, seed=3),
        lambda: layers.Dense(3, activation="softmax"),
    ),
    "separable and depthwise": sequence(
        lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2, dilation_rate=2),
        lambda: layers.DepthwiseConv2D(2, use_bias=False, activation="silu"),
        lambda: layers.Conv2D(6, 1, groups=2, use_bias=False),
        lambda: layers.LeakyReLU(0.3),
        lambda: layers.Cropping2D(1),
        lambda: layers.UpSampling2D(2, interpolation="bilinear"),
        lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
        lambda: layers.MaxPooling2D(2, padding="same"),
        lambda: layers.AveragePooling2D(2),
        lambda: layers.PReLU(shared_axes=[1, 2]),
        lambda: layers.GlobalMaxPooling2D(keepdims=True),
    ),
    "conv1d": sequence(
        lambda: layers.ZeroPadding1D(2),
        lambda: layers.Conv1D(4, 3, padding="causal", activation="elu"),
        lambda: layers.SeparableConv1D(5, 3),
        lambda: layers.DepthwiseConv1D(3),
        lambda: layers.MaxPooling1D(2),
        lambda: layers.UpSampling1D(3),
        lambda: layers.Cropping1D(1),
        lambda: layers.Conv1DTranspose(4, 3),
        lambda: layers.LayerNormalization(epsilon=1e-6),
        lambda: layers.AveragePooling1D(2),
        lambda: layers.SpatialDropout1D(0.2),
        lambda: layers.GlobalMaxPooling1D(),
        shape=(16, 3),
    ),
    "conv3d": sequence(
        lambda: layers.Conv3D(2, 2),
        lambda: layers.GroupNormalization(2),
        lambda: layers.MaxPooling3D(2),
        lambda: layers.GlobalAveragePooling3D(),
        shape=(6, 6, 6, 2),
    ),
    "dense and shapes": sequence(
        lambda: layers.Dense(12, activation="tanh", kernel_regularizer="l2"),
        lambda: layers.BatchNormalization(scale=False, center=False),
        lambda: layers.Reshape((3, 4)),
        lambda: layers.Permute((2, 1)),
        lambda: layers.Softmax(axis=1),
        lambda: layers.ELU(0.5),
        lambda: layers.GaussianNoise(0.1),
        lambda: layers.GaussianDropout(0.1),
        lambda: layers.AlphaDropout(0.1),
        lambda: layers.UnitNormalization(),
        lambda: layers.ActivityRegularization(l1=0.1),
        lambda: layers.Flatten(),
        lambda: layers.RepeatVector(2),
        lambda: layers.Identity(),
        shape=(5,),
    ),
    "unknown sizes": sequence(
        lambda: layers.Conv2D(2, 3),
        lambda: layers.GlobalAveragePooling2D(),
        shape=(None, None, 1),
    ),
    "several merges": _branches,
    "dict to dict": _dict_to_dict,
    "mask lost": _mask_lost,
    "shared layers": _shared,
    "nested with two inputs": _nested_with_two_inputs,
    "frozen base": _frozen_base,
    "normalization": _normalization,
    "cut out": _cut_out,
    **{
        f"activation {name}": sequence(
            lambda name=name: layers.Dense(4, activation=name),
            lambda name=name: layers.Activation(name),
            shape=(3,),
        )
        for name in ACTIVATIONS.split()
    },
}


def with_random_weights(model):
    """Values that tell gamma from beta and mean from variance."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype == "float32" and weight.path.split("/")[-1] not in ("mean", "variance"):
            weight.assign(generator.uniform(0.1, 1.0, weight.shape))
    return model


@pytest.mark.fast_rows(20)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_same_outputs_there_and_same_weights_back(make):
    model = with_random_weights(make())
    before = model.get_weights()

    rebuilt = to_tf_keras(model)
    values = rebuilding.random_inputs(read(model), examples=3)
    inputs = keras.tree.map_structure(values.get, read(model).inputs)
    expected = keras.tree.flatten(outputs(model, inputs))
    received = keras.tree.flatten(outputs(rebuilt, inputs))
    for one, other in zip(expected, received, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)

    own_names = {call.path.split("/")[-1] for call in read(model).calls}
    names = {layer.name for layer in rebuilt.layers}
    assert all(any(name.endswith(own) for name in names) for own in own_names)
    assert [w.trainable for w in rebuilding.to_keras(rebuilt).weights] == [
        weight.trainable for weight in _weights_in_order(model)
    ]

    back = rebuilding.to_keras(rebuilt)
    assert isinstance(back, keras.Model)
    for one, other in zip(_weights_in_order(model), _weights_in_order(back), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(expected, keras.tree.flatten(outputs(back, inputs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def _weights_in_order(model):
    return [weight for layer in read(model).layers() for weight in layer.weights]


def test_names_stay_where_they_are_unique_and_get_their_model_in_front_where_not():
    rebuilt = to_tf_keras(_shared())
    dense = [layer.name for layer in rebuilt.layers if isinstance(layer, tf_keras.layers.Dense)]
    assert dense == ["tower_dense", "dense"]


def test_structure_of_inputs_and_outputs_is_kept():
    rebuilt = to_tf_keras(_dict_to_dict())
    outputs = rebuilt({"words": np.ones((2, 5), "int32"), "size": np.zeros((2, 3), "float32")})
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "class": (2, 3),
        "age": (2, 1),
    }
    assert sorted(rebuilt.input_names) == ["size", "words"]
    assert set(rebuilding.to_keras(rebuilt).output) == {"class", "age"}


def test_same_training_step_with_batch_normalization():
    # tf_keras' fused kernel would store another moving variance: N / (N - 1) times.
    model = with_random_weights(
        keras.Sequential(
            [
                keras.Input((2, 2, 1)),
                layers.Conv2D(3, 2, kernel_regularizer=keras.regularizers.L2(0.1)),
                layers.BatchNormalization(momentum=0.5),
                layers.Flatten(),
                layers.Dense(2),
            ]
        )
    )
    rebuilt = to_tf_keras(model)
    x = np.random.default_rng(0).normal(size=(4, 2, 2, 1)).astype("float32")
    y = np.ones((4, 2), "float32")
    model.compile(keras.optimizers.SGD(0.1), "mse")
    rebuilt.compile(tf_keras.optimizers.SGD(0.1), "mse")
    for _ in range(2):
        model.reset_metrics()
        assert model.train_on_batch(x, y) == pytest.approx(rebuilt.train_on_batch(x, y), rel=1e-5)
    for one, other in zip(model.get_weights(), rebuilt.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_training_argument_recorded_by_keras_is_not_obeyed_by_tf_keras():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dropout(0.5)(inputs, training=True))
    x = np.ones((8, 4), "float32")
    rebuilt = to_tf_keras(model)
    np.testing.assert_array_equal(outputs(rebuilt, x), x)
    assert (rebuilt(x, training=True).numpy() == 0).any()


def test_mixed_precision_is_kept():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, dtype="mixed_float16"), layers.Dense(2)]
    )
    rebuilt = to_tf_keras(model)
    assert rebuilt.layers[1].compute_dtype == "float16"
    assert rebuilt.layers[1].kernel.dtype == "float32"


def test_a_tf_keras_model_is_copied():
    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,))])
    copy = to_tf_keras(model)
    np.testing.assert_array_equal(copy.get_weights()[0], model.get_weights()[0])
    copy.layers[-1].kernel.assign(np.zeros((4, 3)))
    assert model.get_weights()[0].any()


def test_a_copy_of_a_tf_keras_model_keeps_unfused_batch_normalization():
    rebuilt = to_tf_keras(sequence(layers.BatchNormalization)())
    assert to_tf_keras(rebuilt).layers[-1].fused is False


class WithoutConfig(layers.Layer):
    def __init__(self, thing, **options):
        super().__init__(**options)
        self.thing = thing

    def call(self, inputs):
        return inputs


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subclassed(name="mine"), "subclassed model 'mine'.*keras.Model\\(inputs"),
        (lambda: keras.Sequential([layers.Dense(2)], name="mine"), "'mine', which is not built"),
        (
            sequence(lambda: WithoutConfig(object(), name="odd"), shape=(3,)),
            "'odd' of class WithoutConfig.*To fix it: give WithoutConfig.*`get_config`",
        ),
        (lambda: "model.keras", "Received model='model.keras'"),
    ],
)
def test_what_cannot_be_rebuilt_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        to_tf_keras(make())


def test_other_outputs_are_an_error_that_names_the_layer():
    model = sequence(
        lambda: layers.Dense(3, name="good"), lambda: layers.Dense(2, name="bad"), shape=(4,)
    )()
    rebuilt = to_tf_keras(model)
    rebuilt.get_layer("bad").bias.assign([1.0, 1.0])
    with pytest.raises(ValueError, match=r"first at layer 'bad' of class Dense.*to 1e-05"):
        Comparison(model).check(rebuilt)
