import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

from keras_kd.compression import cluster, load, strip, summary


class Scaled(layers.Layer):
    """A layer of a user's own; it says by TF-MOT's protocol what can be clustered."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1], 6), name="scale")
        self.shift = self.add_weight(shape=(6,), name="shift")

    def call(self, x):
        return keras.ops.matmul(x, self.scale) + self.shift

    def get_clusterable_weights(self):
        return [("scale", self.scale)]


# How each layer is called on (4, 6) numbers, and how many kernels it has.
LAYERS = {
    "lstm": (layers.LSTM(5, dropout=0.3, name="layer"), 2),
    "gru": (layers.GRU(5, return_sequences=True, name="layer"), 2),
    "simple_rnn": (layers.SimpleRNN(5, name="layer"), 2),
    "bidirectional": (layers.Bidirectional(layers.GRU(5), name="layer"), 4),
    "stacked": (layers.RNN([layers.LSTMCell(4), layers.GRUCell(5)], name="layer"), 4),
    "attention": (lambda x: layers.MultiHeadAttention(2, 3, name="layer")(x, x), 4),
    "grouped_attention": (lambda x: layers.GroupQueryAttention(4, 4, 2, name="layer")(x, x), 4),
    "time_distributed": (layers.TimeDistributed(layers.Dense(5), name="layer"), 1),
    "einsum": (layers.EinsumDense("abc,cd->abd", output_shape=(4, 6), name="layer"), 1),
    "conv1d": (layers.Conv1D(4, 3, name="layer"), 1),
    "conv1d_transpose": (layers.Conv1DTranspose(4, 3, name="layer"), 1),
    "separable": (layers.SeparableConv1D(8, 3, name="layer"), 1),
    "custom": (Scaled(name="layer"), 1),
}


def student_of(name):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((4, 6))
    layer, _ = LAYERS[name]
    if isinstance(layer, layers.Layer):
        layer = layers.deserialize(layers.serialize(layer), {"Scaled": Scaled})
    return keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(layer(inputs))))


def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(32, 4, 6)).astype("float32"), generator.normal(size=(32, 3))


QUICK = ("bidirectional", "attention", "custom")
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LAYERS]


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("name", EACH)
def test_every_kind_of_layer_trains_with_few_values(name):
    x, y = data()
    student = student_of(name)
    # As many values as weights are the weights.
    exact = cluster(student, 200, layers="layer")
    np.testing.assert_allclose(exact(x), student(x), atol=1e-5)

    clustered = cluster(student, 4, layers="layer")
    wrapper = clustered.get_layer("cluster_layer")
    before = {id(weight): weight.numpy() for weight in wrapper.trainable_weights}
    clustered.compile(tf_keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    clustered.fit(x, y, batch_size=16, verbose=0)
    assert wrapper.trainable_weights
    for weight in wrapper.trainable_weights:
        assert not np.array_equal(weight, before[id(weight)]), weight.name

    stripped = strip(clustered)
    assert type(stripped.get_layer("layer")) is type(student.get_layer("layer"))
    np.testing.assert_allclose(stripped(x), clustered(x), atol=1e-5)
    for model in (clustered, stripped):
        values = [row.values for row in summary(model).kernels if row.layer == "layer"]
        assert values == [4] * LAYERS[name][1]


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("name", ["bidirectional", "attention", "grouped_attention"])
@pytest.mark.slow
def test_files(name, suffix, tmp_path):
    x, _ = data()
    clustered = cluster(student_of(name), 4)
    clustered.save(tmp_path / f"student.{suffix}")
    loaded = load(tmp_path / f"student.{suffix}")
    np.testing.assert_allclose(loaded(x), clustered(x), atol=1e-6)
    assert summary(loaded).values == summary(clustered).values


def test_dropout_inside_a_clustered_layer_drops_in_training_only():
    x, _ = data()
    clustered = cluster(student_of("lstm"), 4)
    np.testing.assert_array_equal(clustered(x, training=False), clustered(x, training=False))
    different = np.asarray(clustered(x, training=True)) != np.asarray(clustered(x, training=True))
    assert different.mean() > 0.5


def test_a_recurrent_layer_skips_what_is_masked():
    words = keras.Input((6,), dtype="int32")
    embedded = layers.Embedding(9, 8, mask_zero=True, name="words")(words)
    student = keras.Model(words, layers.LSTM(4, name="lstm")(embedded))
    clustered = cluster(student, 5)
    short, padded = np.array([[3, 4]]), np.array([[3, 4, 0, 0, 0, 0]])
    np.testing.assert_allclose(clustered(padded), strip(clustered)(padded), atol=1e-6)
    embeddings = clustered.get_layer("cluster_words")(short)
    other = clustered.get_layer("cluster_lstm")(embeddings)
    np.testing.assert_allclose(clustered(padded), other, atol=1e-6)


def test_weights_copied_layer_by_layer_bring_their_values():
    one, other = cluster(student_of("conv1d"), 4), cluster(student_of("conv1d"), 4)
    for weight in one.trainable_weights:
        weight.assign(2 * weight)
    for source, target in zip(one.layers, other.layers, strict=True):
        target.set_weights(source.get_weights())
    np.testing.assert_array_equal(one(data()[0]), other(data()[0]))
