"""Masks behind layers and operations that drop them: padding counts in no distillation loss."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops as K

import keras_kd
from keras_kd._masks import Lost, mask_or_lost
from keras_kd.losses import Hint, SoftTargets
from keras_kd.taps import Tap

TOKENS = np.random.default_rng(0).integers(1, 9, (6, 5))
TOKENS[0, 3:] = TOKENS[1, 1:] = TOKENS[4, 2:] = 0
REAL = TOKENS > 0


def attend(x, name=None):
    return L.MultiHeadAttention(2, 3, name=name)(x, x)


def layer_sum(x):
    return L.LayerNormalization(name="features")(L.Add()([x, attend(x)]))


def operator_sum(x):
    return L.LayerNormalization(name="features")(x + attend(x))


def operations(x):
    return L.LayerNormalization(name="features")(K.gelu(K.add(2.0 * x, attend(x))))


def norm_first(x):
    for _ in range(2):
        x = x + attend(L.LayerNormalization()(x))
    return L.Dense(4, name="features")(x)


def positions_added(x):
    x = L.Add()([x, L.Embedding(5, 4)(K.arange(5)[None])])
    return layer_sum(x)


def nested(x):
    inner = keras.Input((None, 4))
    block = keras.Model(inner, layer_sum(inner), name="block")
    first = keras.Input((None, 4))
    return block(keras.Model(first, L.Add()([first, attend(first)]))(x))


def attended_features(x):
    """The features themselves are wiped by what comes after."""
    x = L.Dense(4, name="features")(x)
    return L.Add()([x, attend(x)])


class Block(L.Layer):
    """As in the tutorials: operations between layers."""

    def __init__(self, **options):
        super().__init__(**options)
        self.attention = L.MultiHeadAttention(2, 3)
        self.normalization = L.LayerNormalization()
        self.supports_masking = True

    def call(self, x):
        return self.normalization(x + self.attention(x, x))


def custom_blocks(x):
    return Block(name="features")(Block()(x))


def token_model(hidden, seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None,), dtype="int32")
    x = L.Embedding(9, 4, mask_zero=True, embeddings_initializer="random_normal")(inputs)
    return keras.Model(inputs, L.Dense(3, kernel_initializer="random_normal")(hidden(x)))


class Subclassed(keras.Model):
    def __init__(self, add):
        super().__init__()
        self.embedding = L.Embedding(9, 4, mask_zero=True)
        self.attention = L.MultiHeadAttention(2, 3)
        self.add = add
        self.features = L.LayerNormalization(name="features")
        self.logits = L.Dense(3)

    def call(self, tokens):
        x = self.embedding(tokens)
        return self.logits(self.features(self.add([x, self.attention(x, x)])))


def masks_of(model, names=("features",), x=TOKENS):
    tapped = Tap(model, names, follow_masks=True)(x, training=False)
    return [mask_or_lost(one) for one in (tapped.outputs, *tapped.features.values())]


GRAPHS = [
    layer_sum,
    operator_sum,
    operations,
    norm_first,
    positions_added,
    nested,
    attended_features,
    custom_blocks,
]


@pytest.mark.parametrize("hidden", GRAPHS)
def test_the_mask_is_that_of_the_tokens(hidden):
    name = "block/features" if hidden is nested else "features"
    with warnings.catch_warnings():
        # Keras warns of each nested model that is given a mask.
        warnings.simplefilter("ignore" if hidden is nested else "error")
        model = token_model(hidden, 1)
        found = masks_of(model, [name])
    for mask in found:
        np.testing.assert_array_equal(mask, REAL)


def test_a_subclassed_model_of_layers():
    for mask in masks_of(Subclassed(L.Add())):
        np.testing.assert_array_equal(mask, REAL)


def test_no_output_changes_and_nothing_stays_on_the_layers():
    model = token_model(norm_first, 1)
    before = [set(vars(layer)) for layer in model._flatten_layers()]
    expected = model(TOKENS)
    tapped = Tap(model, follow_masks=True)(TOKENS, training=False)
    np.testing.assert_array_equal(tapped.outputs, expected)
    assert getattr(tapped.outputs, "_keras_mask", None) is None
    assert [set(vars(layer)) for layer in model._flatten_layers()] == before
    assert "convert_input" not in vars(model.layers[1].dtype_policy)


def test_a_layer_of_another_precision_keeps_the_mask():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        keras.utils.set_random_seed(1)
        inputs = keras.Input((5,), dtype="int32")
        hidden = layer_sum(L.Embedding(9, 4, mask_zero=True)(inputs))
        model = keras.Model(inputs, L.Dense(3, dtype="float32")(hidden))
    finally:
        keras.config.set_dtype_policy("float32")
    for mask in masks_of(model):
        np.testing.assert_array_equal(mask, REAL)


@pytest.fixture(scope="module")
def teachers():
    return {hidden: token_model(hidden, 7) for hidden in (layer_sum, operator_sum)}


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("hidden", [layer_sum, operator_sum])
def test_padding_behind_attention_counts_in_no_distillation_loss(
    teachers, formulas, hard_loss, hidden, flavour
):
    teacher, student = teachers[hidden], token_model(hidden, 2)
    tensors = [
        keras.Model(model.input, [model.output, model.get_layer("features").output])(TOKENS)
        for model in (teacher, student)
    ]
    (teacher_logits, teacher_features), (logits, features) = tensors
    if flavour == "tf_keras":
        student = keras_kd.compression.to_tf_keras(student)
    distiller = keras_kd.Distiller(
        teacher, student, [SoftTargets(2.0), Hint("features", "features")], [1.0, 1e-3]
    )
    distiller.compile("sgd", hard_loss)
    labels = np.zeros_like(TOKENS)
    logs = distiller.evaluate(TOKENS, labels, verbose=0, return_dict=True)
    soft = formulas.soft_targets(teacher_logits.numpy(), logits.numpy(), 2.0)
    hints = np.square(teacher_features - features).mean(axis=-1)
    expected = (soft + 1e-3 * hints)[REAL].mean()
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-4)
    assert abs(expected - (soft + 1e-3 * hints).mean()) > 1e-2 * expected
    # The loss on labels is that of Keras.
    student.compile(loss=student_loss(hard_loss, flavour))
    assert logs["student_loss"] == pytest.approx(
        student.evaluate(TOKENS, labels, verbose=0), rel=1e-4
    )


def student_loss(loss, flavour):
    if flavour == "keras":
        return loss
    return keras_kd._keras.tf_keras().losses.SparseCategoricalCrossentropy(from_logits=True)


class Unmasked(L.Layer):
    def call(self, x):
        return 2.0 * x


LOSING = {
    "a custom layer": (Unmasked, "unmasked"),
    "a convolution": (lambda: L.Conv1D(4, 3, padding="same", name="conv"), "conv"),
    "an operation": (lambda: lambda x: K.flip(x, axis=1), "flip"),
}


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize("case", LOSING)
def test_a_lost_mask_is_told_and_the_advice_helps(teachers, case):
    make, place = LOSING[case]
    operation = make()
    student = token_model(lambda x: layer_sum(operation(x)), 2)
    found = masks_of(student)
    assert all(isinstance(mask, Lost) and place in mask.place for mask in found)
    distiller = keras_kd.Distiller(teachers[layer_sum], student, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    with pytest.warns(UserWarning, match=rf"SoftTargets .* mask was lost in '{place}.*weights of"):
        distiller.evaluate(TOKENS, verbose=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Received")
        labels, weights = np.zeros_like(TOKENS), REAL.astype("float32")
        distiller.evaluate(TOKENS, labels, sample_weight=weights, verbose=0)
        if isinstance(operation, L.Layer):
            operation.supports_masking = True
            distiller.evaluate(TOKENS, verbose=0)
            np.testing.assert_array_equal(masks_of(student)[0], REAL)


def test_operations_inside_a_subclassed_model_lose_it():
    student = Subclassed(lambda pair: pair[0] + pair[1])
    student(TOKENS)
    assert all(isinstance(mask, Lost) for mask in masks_of(student))


def test_what_has_no_positions_has_lost_no_mask():
    keras.utils.set_random_seed(1)
    tokens, image = keras.Input((5,), dtype="int32"), keras.Input((8, 8, 1))
    x = layer_sum(L.Embedding(9, 4, mask_zero=True)(tokens))
    pooled = L.GlobalAveragePooling1D(name="pooled")(x)
    last = L.LSTM(4, name="last")(x)
    pixels = L.Conv2D(2, 3, name="pixels")(image)
    model = keras.Model(
        [tokens, image],
        L.Concatenate()([pooled, last, L.GlobalAveragePooling2D()(pixels)]),
    )
    names = ["pooled", "last", "pixels"]
    found = masks_of(model, names, [TOKENS, np.zeros((6, 8, 8, 1), "float32")])
    assert found == [None] * 4
