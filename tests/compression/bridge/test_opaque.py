"""What tf_keras cannot compute runs in it as the Keras 3 layer that it is."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers, ops

from keras_kd.compression import PolynomialSchedule, prune, strip, to_tf_keras
from keras_kd.compression.bridge import serialized
from keras_kd.compression.bridge.graph import read
from keras_kd.compression.bridge.opaque import OpaqueLayer
from keras_kd.compression.bridge.rebuilding import rebuild
from keras_kd.compression.bridge.translation import record_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(8, 4)).astype("float32")
Y = np.ones((8, 2), "float32")


class Block(layers.Layer):
    """Weights with a penalty, moving statistics, dropout, an added loss; unregistered."""

    def __init__(self, units, rate=0.0, **options):
        super().__init__(**options)
        self.units, self.rate = units, rate
        self.first = layers.Dense(units, kernel_regularizer="l2")
        self.second = layers.Dense(units)
        self.normalization = layers.BatchNormalization(momentum=0.5)
        self.dropout = layers.Dropout(rate)

    def call(self, inputs, training=None):
        hidden = self.normalization(self.first(inputs), training=training)
        self.add_loss(0.1 * ops.mean(ops.square(hidden)))
        return self.second(self.dropout(hidden, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "rate": self.rate}


def with_block(**options):
    keras.utils.set_random_seed(0)
    block = Block(3, name="block", **options)
    stack = [keras.Input((4,)), layers.Dense(4, name="dense"), block, layers.Dense(2)]
    model = keras.Sequential(stack)
    for weight in model.weights:
        weight.assign(RANDOM.uniform(0.2, 1, weight.shape))
    return model


def compiled(model, kit):
    model.compile(kit.optimizers.SGD(0.1), "mse")
    return model


def test_it_trains_as_in_keras_3_and_comes_back_bit_for_bit():
    model = with_block()
    rebuilt = to_tf_keras(model)
    block = rebuilt.get_layer("block")
    assert isinstance(block, OpaqueLayer)
    assert len(block.trainable_weights) == 6
    compiled(model, keras), compiled(rebuilt, tf_keras)
    for _ in range(3):
        # Keras 3 averages what it reports over the steps.
        model.reset_metrics()
        assert rebuilt.train_on_batch(X, Y) == pytest.approx(model.train_on_batch(X, Y), rel=1e-5)
    back = strip(rebuilt)
    assert type(back.get_layer("block")) is Block
    for one, other in zip(model.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(back(X), rebuilt(X, training=False))


def test_constraints_of_weights_hold_after_a_step():
    class Constrained(layers.Layer):
        def build(self, shape):
            limit = keras.constraints.MaxNorm(0.5)
            self.kernel = self.add_weight(shape=(shape[-1], 2), constraint=limit)

        def call(self, inputs):
            return inputs @ self.kernel

    model = keras.Sequential([keras.Input((4,)), Constrained()])
    rebuilt = to_tf_keras(model)
    compiled(model, keras).train_on_batch(X, 10 * Y)
    compiled(rebuilt, tf_keras).train_on_batch(X, 10 * Y)
    norms = np.linalg.norm(rebuilt.get_weights()[0], axis=0)
    np.testing.assert_allclose(norms, 0.5, rtol=1e-5)
    np.testing.assert_allclose(rebuilt.get_weights()[0], model.get_weights()[0], rtol=1e-5)


def test_dropout_inside_obeys_training():
    rebuilt = to_tf_keras(with_block(rate=0.9))
    np.testing.assert_array_equal(rebuilt(X, training=False), rebuilt(X))
    assert np.any(rebuilt(X, training=True) != rebuilt(X, training=True))


def test_a_frozen_layer_stays_frozen_and_can_be_thawed():
    model = with_block()
    model.get_layer("block").trainable = False
    rebuilt = compiled(to_tf_keras(model), tf_keras)
    block = rebuilt.get_layer("block")
    before = block.get_weights()
    rebuilt.fit(X, Y, verbose=0)
    # Neither weights nor moving statistics.
    for one, other in zip(before, block.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    back = strip(rebuilt).get_layer("block")
    assert not back.trainable
    assert not back.normalization.trainable
    block.trainable = True
    compiled(rebuilt, tf_keras).fit(X, Y, verbose=0)
    assert np.any(before[0] != block.get_weights()[0])


def test_a_frozen_part_of_a_layer_stays_frozen():
    model = with_block()
    model.get_layer("block").first.trainable = False
    rebuilt = to_tf_keras(model)
    block = rebuilt.get_layer("block")
    back = strip(rebuilt).get_layer("block")
    assert (back.first.trainable, back.second.trainable) == (False, True)
    assert [weight.name for weight in block.non_trainable_weights[:2]] == [
        "block/kernel:0",
        "block/bias:0",
    ]


@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_it_is_saved_and_loaded(tmp_path, ending):
    rebuilt = to_tf_keras(with_block(rate=0.5))
    path = str(tmp_path / f"model{ending}")
    if ending == ".weights.h5":
        rebuilt.save_weights(path)
        loaded = tf_keras.models.clone_model(rebuilt)
        assert np.any(loaded(X) != rebuilt(X))
        loaded.load_weights(path)
    else:
        rebuilt.save(path)
        loaded = tf_keras.models.load_model(path)
    np.testing.assert_array_equal(loaded(X), rebuilt(X))


def test_a_saved_model_is_refused_since_it_would_lose_the_weights(tmp_path):
    to_tf_keras(with_block()).save(tmp_path / "model", save_format="tf")
    with pytest.raises(ValueError, match=r"'block' \(OpaqueLayer\).*save the model as .keras"):
        tf_keras.models.load_model(tmp_path / "model")


def test_what_is_around_it_can_be_pruned():
    pruned = compiled(
        prune(with_block(), 0.5, schedule=PolynomialSchedule(end_step=2, frequency=1)), tf_keras
    )
    pruned.fit(X, Y, epochs=4, verbose=0, callbacks=pruned.training_callbacks())
    back = strip(pruned)
    assert np.mean(np.asarray(back.get_layer("dense").kernel) == 0) == 0.5
    assert type(back.get_layer("block")) is Block
    np.testing.assert_array_equal(back(X), pruned(X, training=False))


def test_masks_go_through_it():
    class Scale(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.supports_masking = True

        def call(self, inputs, mask=None):
            return inputs if mask is None else 2 * inputs

    words = keras.Input((5,), dtype="int32")
    scaled = Scale()(layers.Embedding(6, 3, mask_zero=True)(words))
    model = keras.Model(words, [scaled, layers.GlobalAveragePooling1D()(scaled)])
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    for expected, received in zip(model(x), to_tf_keras(model)(x), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-6)


def test_a_layer_that_loses_masks_in_tf_keras_is_kept():
    words = keras.Input((5,), dtype="int32")
    scaled = layers.Rescaling(2.0)(layers.Embedding(6, 3, mask_zero=True)(words))
    model = keras.Model(words, layers.GlobalAveragePooling1D()(scaled))
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    np.testing.assert_allclose(to_tf_keras(model)(x), model(x), rtol=1e-5, atol=1e-6)


def test_several_inputs_and_arguments_by_name():
    class Mix(layers.Layer):
        def call(self, first, second, factor=1.0):
            return first + factor * second

    left, right = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([left, right], Mix()(left, right, factor=0.5))
    rebuilt = to_tf_keras(model)
    np.testing.assert_array_equal(rebuilt([X, 2 * X]), model([X, 2 * X]))
    np.testing.assert_array_equal(strip(rebuilt)([X, 2 * X]), model([X, 2 * X]))


def _lookup():
    words = keras.Input((2,), dtype="string")
    lookup = layers.StringLookup()
    lookup.adapt(["a", "b", "b"])
    return keras.Model(words, layers.Embedding(4, 2)(lookup(words)))


ONLY_KERAS_3 = {
    "a layer": (lambda: layers.RMSNormalization(), X),
    "an option": (lambda: layers.Dense(2, activation=layers.PReLU()), X),
    "a lambda": (lambda: layers.Lambda(lambda x: x + 1), X),
    "augmentation": (lambda: layers.RandomFlip(), X.reshape(2, 4, 4, 1)),
    "resizing": (lambda: layers.Resizing(3, 5), X.reshape(2, 4, 4, 1)),
}


@pytest.mark.parametrize(("make", "x"), ONLY_KERAS_3.values(), ids=ONLY_KERAS_3.keys())
def test_what_only_keras_3_has_is_kept(make, x):
    model = keras.Sequential([keras.Input(x.shape[1:]), make()])
    rebuilt = to_tf_keras(model)
    assert isinstance(rebuilt.layers[-1], OpaqueLayer)
    expected = model(x, training=False)
    np.testing.assert_array_equal(rebuilt(x, training=False), expected)
    np.testing.assert_array_equal(strip(rebuilt)(x, training=False), expected)


def test_a_vocabulary_is_kept():
    words = np.array([["a", "b"], ["c", "b"]])
    model = _lookup()
    rebuilt = to_tf_keras(model)
    x = ops.convert_to_tensor(words, dtype="string")
    np.testing.assert_array_equal(rebuilt(x), model(x))
    np.testing.assert_array_equal(strip(rebuilt)(x), model(x))


def test_code_from_a_file_needs_leave(monkeypatch):
    rebuilt = to_tf_keras(keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x * 3)]))
    config = rebuilt.layers[-1].get_config()
    OpaqueLayer.from_config(config)
    # Another text is as good as one that came from a file.
    config["layer"] = config["layer"].replace('"trainable": true', '"trainable":  true')
    # In another process nobody knows the function by its key.
    monkeypatch.setattr(serialized, "_FUNCTIONS_BY_KEY", {})
    with pytest.raises(TypeError, match="disallowed by default"):
        OpaqueLayer.from_config(config)


def test_an_activation_of_ones_own_stays_in_a_layer_that_tf_mot_knows():
    def odd(x):
        return ops.sin(x)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, activation=odd, name="dense")])
    rebuilt = to_tf_keras(model)
    assert type(rebuilt.get_layer("dense")) is tf_keras.layers.Dense
    copy = tf_keras.models.clone_model(rebuilt)
    copy.set_weights(rebuilt.get_weights())
    np.testing.assert_array_equal(copy(X), model(X))
    assert strip(rebuilt).get_layer("dense").activation is odd


def test_keras_3_models_are_rebuilt_in_keras_3():
    model = with_block()
    copy = rebuild(read(model), keras, lambda layer: [record_of(layer)])
    np.testing.assert_array_equal(copy(X), model(X))
    assert copy.get_layer("block") is not model.get_layer("block")


def test_batch_normalization_stays_unfused_in_copies_and_files(tmp_path):
    image = keras.Sequential([keras.Input((4, 4, 1)), layers.BatchNormalization()])
    rebuilt = to_tf_keras(image)
    rebuilt.save(tmp_path / "model.keras")
    for copy in (
        rebuilt,
        tf_keras.models.clone_model(tf_keras.models.clone_model(rebuilt)),
        tf_keras.models.load_model(tmp_path / "model.keras"),
    ):
        assert copy.layers[-1].fused is False
