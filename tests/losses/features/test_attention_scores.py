"""Attention of transformers: which pairs count, which heads belong together, what is refused."""

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_kd
from keras_kd.losses import AttentionScores, AttentionTransfer, FactorTransfer, Hint
from keras_kd.taps import Tap

TOKENS = np.random.default_rng(0).integers(1, 9, (6, 5))
TOKENS[0, 3:] = TOKENS[1, 1:] = 0
REAL = TOKENS > 0
PAIRS = REAL[:, None, :, None] & REAL[:, None, None, :]
NAMES = ["block/self_attention_layer", "attention"]


class Block(L.Layer):
    """An attention layer inside another one, as in KerasHub."""

    def __init__(self, heads, **options):
        super().__init__(**options)
        self.attention = L.MultiHeadAttention(heads, 3, name="self_attention_layer")
        self.feed_forward = L.Dense(4, name="ff")
        self.supports_masking = True

    def call(self, x):
        return self.feed_forward(x + self.attention(x, x))


def transformer(seed, heads=2, kind="multi_head", **options):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,), dtype="int32")
    wide = keras.initializers.RandomNormal(stddev=1.0)
    x = L.Embedding(9, 4, mask_zero=True, embeddings_initializer=wide)(inputs)
    x = Block(heads, name="block")(x)
    if kind == "multi_head":
        attention = L.MultiHeadAttention(heads, 3, name="attention")
    else:
        attention = L.GroupQueryAttention(3, heads, 1, name="attention")
    return keras.Model(inputs, L.Dense(3)(attention(x, x, **options)))


def numpy_attention(model, path, x):
    """Scores from a layer's own projections, in float64."""
    layer = model.get_layer("block").attention if "/" in path else model.get_layer("attention")
    query, key = (
        np.einsum("btc,cnh->btnh", x, dense.kernel.numpy().astype("float64")) + dense.bias.numpy()
        for dense in (layer._query_dense, layer._key_dense)
    )
    key = np.repeat(key, query.shape[2] // key.shape[2], axis=2)
    return np.einsum("bqnh,bknh->bnqk", query, key) / np.sqrt(query.shape[-1])


def inputs_of(model):
    embedded = model.layers[1](TOKENS)
    values = embedded.numpy()
    # The block takes the mask off the tensor.
    return [values, model.get_layer("block")(embedded).numpy()]


def reference(model):
    return [
        numpy_attention(model, path, x) for path, x in zip(NAMES, inputs_of(model), strict=True)
    ]


def evaluated(teacher, student, *losses):
    distiller = keras_kd.Distiller(teacher, student, list(losses), student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    return distiller.evaluate(TOKENS, verbose=0, return_dict=True)["distillation_loss"]


@pytest.fixture(scope="module")
def teacher():
    return transformer(1, heads=4)


@pytest.fixture(scope="module")
def student():
    return transformer(2)


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("flavour", ["keras", "grouped", "tf_keras"])
def test_scores_of_tokens_are_compared_head_by_head(teacher, student, flavour):
    if flavour == "grouped":
        student = transformer(2, kind="grouped")
    expected = 0.0
    for taught, learned in zip(reference(teacher), reference(student), strict=True):
        taught = np.stack([taught[:, 3], taught[:, :2].mean(axis=1)], axis=1)
        expected += np.square(learned - taught)[np.broadcast_to(PAIRS, learned.shape)].mean()
    if flavour == "tf_keras":
        student = keras_kd.compression.to_tf_keras(student)
    value = evaluated(teacher, student, AttentionScores(NAMES, NAMES, heads=[3, [0, 1]]))
    assert value == pytest.approx(expected, rel=1e-4)


def test_probabilities_are_those_that_the_layers_return(student):
    other = transformer(3)
    value = evaluated(other, student, AttentionScores(NAMES[1], NAMES[1], compare="probabilities"))
    returned = []
    for model in (other, student):
        x = inputs_of(model)[1]
        mask = keras.ops.convert_to_tensor(REAL[:, :, None] & REAL[:, None, :])
        layer = model.get_layer("attention")
        returned.append(layer(x, x, attention_mask=mask, return_attention_scores=True)[1].numpy())
    squares = np.square(returned[0] - returned[1])
    expected = squares[np.broadcast_to(PAIRS, squares.shape)].mean()
    assert value == pytest.approx(expected, rel=1e-4)


def test_what_a_causal_mask_hides_does_not_count(student):
    causal = [transformer(seed, use_causal_mask=True) for seed in (1, 2)]
    value = evaluated(*causal, AttentionScores(NAMES[1], NAMES[1]))
    squares = np.square(reference(causal[0])[1] - reference(causal[1])[1])
    pairs = PAIRS & np.tril(np.ones((5, 5), bool))
    assert value == pytest.approx(squares[np.broadcast_to(pairs, squares.shape)].mean(), rel=1e-4)


@pytest.mark.slow
def test_it_trains_through_a_layer_that_fuses_its_softmax(teacher):
    student = transformer(4)
    loss = AttentionScores(NAMES, NAMES, heads=[0, 1])
    distiller = keras_kd.Distiller(teacher, student, loss, student_loss_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.05), run_eagerly=True)
    losses = distiller.fit(TOKENS, epochs=15, verbose=0).history["distillation_loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert "_compute_attention" not in vars(student.get_layer("attention"))


def test_masks_of_examples_positions_and_pairs():
    random = np.random.default_rng(0)
    teacher, student = random.normal(size=(2, 6, 3, 5, 5)).astype("float32")
    squares = np.square(teacher - student)
    loss = AttentionScores()
    for mask in (REAL, PAIRS, PAIRS[:, 0]):
        value = float(loss.compute_loss(teacher, student, mask=mask))
        expected = squares[np.broadcast_to(PAIRS, squares.shape)].mean()
        assert value == pytest.approx(expected, rel=1e-5)
    weights = random.uniform(size=(6, 5)).astype("float32")
    value = float(loss.compute_loss(teacher, student, sample_weight=weights))
    assert value == pytest.approx((squares * weights[:, None, :, None]).mean(), rel=1e-5)


def test_heads_are_said_where_their_numbers_differ(teacher, student):
    with pytest.raises(ValueError, match=r"with 4 and 2 heads.*heads=\[0, 2\]"):
        keras_kd.Distiller(teacher, student, AttentionScores(*NAMES[:1] * 2))
    keras_kd.Distiller(teacher, student, AttentionScores(*NAMES[:1] * 2, heads=[0, 2]))
    with pytest.raises(ValueError, match=r"heads=\[0, 4\] for 4 heads.*2 entries with indexes"):
        keras_kd.Distiller(teacher, student, AttentionScores(*NAMES[:1] * 2, heads=[0, 4]))


@pytest.mark.parametrize("heads", [3, [], [[]], ["a"], [0.5]])
def test_heads_that_are_none(heads):
    with pytest.raises(TypeError, match=r"heads=\[0, 4, 8\]"):
        AttentionScores("a", "a", heads=heads)
    with pytest.raises(ValueError, match=r"a head=-1.*at least 0"):
        AttentionScores("a", "a", heads=[-1])


def test_a_layer_without_attention_is_told_with_those_that_have_it(student):
    with pytest.raises(ValueError, match=r"\(Dense\).*name one of block/self_att.*, attention\."):
        Tap(student, ["block/ff:scores"])


@pytest.fixture(scope="module")
def returning():
    """A teacher and a student whose attention layers return their scores as well."""

    def build(seed, heads):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((5, 4))
        attention = L.MultiHeadAttention(heads, 3, name="attention")
        x, scores = attention(inputs, inputs, return_attention_scores=True)
        scores = L.Dropout(0.1, name="maps")(scores)
        return keras.Model(inputs, [L.Dense(3)(x), L.Flatten()(scores)])

    return build(1, 4), build(2, 2), build(3, 2)


def test_one_of_several_outputs_is_named(returning):
    _, two, other = returning
    with pytest.raises(
        ValueError, match=r"'attention' for a layer with 2 outputs.*attention:1 of.*AttentionScores"
    ):
        keras_kd.Distiller(other, two, Hint("attention", "attention"))
    x = np.random.default_rng(0).normal(size=(4, 5, 4)).astype("float32")
    maps = [
        model.get_layer("attention")(x, x, return_attention_scores=True)[1].numpy()
        for model in (other, two)
    ]
    distiller = keras_kd.Distiller(
        other, two, Hint("attention:1", "attention:1"), student_loss_weight=0.0
    )
    distiller.compile("sgd")
    value = distiller.evaluate(x, verbose=0, return_dict=True)["distillation_loss"]
    assert value == pytest.approx(np.square(maps[0] - maps[1]).mean(), rel=1e-4)


@pytest.mark.parametrize("loss", [AttentionTransfer, FactorTransfer, Hint])
@pytest.mark.parametrize("name", ["attention:1", "maps"])
def test_attention_is_not_taken_for_an_image(returning, loss, name):
    four, two, _ = returning
    with pytest.raises(ValueError, match=r"attention scores of shapes.*losses.AttentionScores"):
        keras_kd.Distiller(four, two, loss(name, name))
    keras_kd.Distiller(four, two, AttentionScores("attention", "attention", heads=[0, 2]))
