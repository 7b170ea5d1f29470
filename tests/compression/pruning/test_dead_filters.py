import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import prune, remove_dead_filters

from _models import chain, inputs_for, randomized


def set_zero(layer, filters, weight="kernel", axis=-1):
    """Make some entries along an axis of a weight zero."""
    variable = getattr(layer, weight)
    value = np.moveaxis(variable.numpy(), axis, 0)
    value[filters] = 0
    variable.assign(np.moveaxis(value, 0, axis))


def check(model, expected):
    """Dead filters leave `expected` widths and the same outputs."""
    inputs = inputs_for(model)
    smaller = remove_dead_filters(model)
    np.testing.assert_allclose(smaller(inputs), model(inputs), rtol=1e-5, atol=1e-5)
    widths = {name: smaller.get_layer(name).output.shape[-1] for name in expected}
    assert widths == expected
    return smaller


def random_chain(*stack, **options):
    return randomized(chain(*stack, **options))


def test_a_filter_that_nobody_reads_goes_and_so_do_those_that_only_it_read():
    model = random_chain(
        layers.Conv2D(8, 3, name="first", activation="relu"),
        layers.Conv2D(6, 3, name="second"),
        layers.Flatten(),
        layers.Dense(4, name="hidden"),
        layers.Dense(2, name="logits"),
    )
    set_zero(model.get_layer("logits"), [0, 3], axis=-2)
    # Only the second filter reads the first three channels; then nobody reads the second filter.
    kernel = model.get_layer("second").kernel.numpy()
    kernel[:, :, :3, [0, *range(2, 6)]] = 0
    model.get_layer("second").kernel.assign(kernel)
    set_zero(model.get_layer("hidden"), np.arange(1, 4 * 4 * 6, 6), axis=-2)
    check(model, {"first": 5, "second": 5, "hidden": 2, "logits": 2})


def test_what_a_constant_filter_says_moves_into_biases():
    model = random_chain(
        layers.Conv2D(8, 3, name="first"),
        layers.BatchNormalization(),
        layers.Activation("sigmoid"),
        layers.DepthwiseConv2D(3),
        layers.MaxPooling2D(),
        layers.Conv2D(6, 2, use_bias=False, name="second"),
        layers.Flatten(),
        layers.Dense(2, name="logits"),
    )
    set_zero(model.get_layer("first"), [1, 4, 5])
    set_zero(model.get_layer("second"), [2])
    smaller = check(model, {"first": 5, "second": 5, "logits": 2})
    assert smaller.get_layer("second").use_bias


@pytest.mark.parametrize(("bias", "left"), [(-1.0, 5), (0.0, 5), (1.0, 8)])
def test_a_padded_reader_takes_no_constant_but_zero(bias, left):
    model = random_chain(
        layers.Conv2D(8, 3, name="first", activation="relu"),
        layers.Conv2D(4, 3, padding="same", name="second"),
        layers.Flatten(),
        layers.Dense(2, name="logits"),
    )
    set_zero(model.get_layer("first"), [0, 1, 2])
    model.get_layer("first").bias.assign([bias] * 8)
    check(model, {"first": left, "second": 4})


def test_padding_makes_a_constant_vary():
    model = random_chain(
        layers.Conv2D(8, 3, name="first"),
        layers.ZeroPadding2D(),
        layers.Conv2D(4, 3, name="second"),
        layers.Flatten(),
        layers.Dense(2, name="logits"),
    )
    set_zero(model.get_layer("first"), [0, 1, 2])
    check(model, {"first": 8, "second": 4})


def test_a_channel_goes_only_if_it_is_dead_on_all_sides_of_a_sum():
    inputs = keras.Input((8, 8, 3))
    left, right = (layers.Conv2D(6, 3, name=name)(inputs) for name in ("left", "right"))
    x = layers.GlobalAveragePooling2D()(layers.Add()([left, right]))
    model = randomized(keras.Model(inputs, layers.Dense(2)(x)))
    set_zero(model.get_layer("left"), [0, 1, 2])
    set_zero(model.get_layer("right"), [2, 3])
    check(model, {"left": 5, "right": 5})


def test_zero_times_anything_is_zero():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="values", activation="relu")(inputs)
    gate = layers.Dense(6, activation="sigmoid", name="gate")(layers.GlobalMaxPooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 6))(gate)])
    model = randomized(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))))
    set_zero(model.get_layer("values"), [1, 4])
    model.get_layer("values").bias.assign([-1.0] * 6)
    check(model, {"values": 4, "gate": 4})


def test_a_scale_of_zero_makes_a_filter_constant():
    model = random_chain(
        layers.Conv2D(6, 3, name="first"),
        layers.BatchNormalization(name="normalization"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2, name="logits"),
    )
    model.get_layer("normalization").gamma.assign([0, 1, 0, 1, 1, 0])
    check(model, {"first": 3})


def test_a_layer_with_several_calls_has_one_bias_for_all():
    left, right = keras.Input((6,)), keras.Input((6,))
    shared = layers.Dense(5, name="shared")
    first, second = layers.Dense(4, name="first"), layers.Dense(4, name="second")
    outputs = layers.Add()([shared(first(left)), shared(second(right))])
    model = randomized(keras.Model([left, right], outputs))
    for name in ("first", "second"):
        set_zero(model.get_layer(name), [0, 1])
    model.get_layer("first").bias.assign([0.0, 0.5, 1.0, 1.0])
    model.get_layer("second").bias.assign([0.0, 0.7, 1.0, 1.0])
    # The first channel is 0 in both calls; the second is 0.5 in one and 0.7 in the other.
    check(model, {"first": 3, "second": 3})


def test_one_filter_stays_where_all_are_dead():
    model = random_chain(
        layers.Conv2D(4, 3, name="first"),
        layers.Flatten(),
        layers.Dense(4, name="hidden"),
        layers.Dense(2, name="logits"),
    )
    for name in ("first", "hidden"):
        set_zero(model.get_layer(name), [0, 1, 2, 3])
    check(model, {"first": 1, "hidden": 1, "logits": 2})


def test_a_student_without_dead_filters_keeps_its_shapes():
    model = random_chain(layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2))
    smaller = remove_dead_filters(model)
    assert [w.shape for w in smaller.weights] == [w.shape for w in model.weights]
    assert smaller is not model


def test_a_pruned_student_loses_what_its_masks_have_emptied():
    model = random_chain(layers.Dense(8, name="hidden"), layers.Dense(2, name="logits"), shape=(6,))
    pruned = prune(model, 0.5)
    wrapper = pruned.layers[1]
    ((_, mask, _),) = wrapper.pruning_vars
    mask.assign(np.repeat([[1.0, 0.0]], 6, 0).repeat(4, 1))
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    kernel = model.get_layer("hidden").kernel.numpy()
    kernel[:, 4:] = 0
    model.get_layer("hidden").kernel.assign(kernel)
    smaller = remove_dead_filters(pruned)
    assert smaller.get_layer("hidden").units == 4
    np.testing.assert_allclose(smaller(x), model(x), atol=1e-5)
