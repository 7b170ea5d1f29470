import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import teachers
from keras_kd._keras import tf_keras
from keras_kd.teachers.stored import fingerprint


@pytest.fixture
def images():
    return np.random.default_rng(0).random((64, 7, 5, 3)).astype("float32")


def by_definition(words, start, factors):
    """The formula of the docstring with Python's integers."""
    total = sum(int(word) * int(factor) for word, factor in zip(words, factors, strict=True))
    return (int(start) + total) % 2**64 >> 48


def test_fingerprints_are_what_the_docstring_says(images, monkeypatch):
    found = fingerprint.of_examples(images)
    factors = np.random.PCG64([0x6B657261735F6B64, 0]).random_raw(105)
    digest = fingerprint.hashlib.blake2b(b"0 float32 (7, 5, 3)", digest_size=8).digest()
    words = images.reshape(64, -1).view("<u4")
    start = int.from_bytes(digest, "little")
    assert found.tolist() == [by_definition(row, start, factors) for row in words]


def test_fingerprints_never_change():
    """Stores hold them: another number would refuse every store there is."""
    x = {"image": np.arange(12, dtype="float32").reshape(2, 6), "name": np.array(["a", "b"])}
    assert fingerprint.of_examples(x).tolist() == [13178, 21427]


def test_fingerprints_do_not_depend_on_the_batch(images):
    together = fingerprint.of_examples({"a": images, "b": images[:, 0]})
    assert together.dtype == np.uint16
    assert together.shape == (64,)
    for batch in (1, 7, 64):
        parts = [
            fingerprint.of_examples({"a": images[i : i + batch], "b": images[i : i + batch, 0]})
            for i in range(0, 64, batch)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), together)


def test_equal_examples_are_equal_however_they_lie_in_memory(images):
    expected = fingerprint.of_examples(images)
    same = [
        np.asfortranarray(images),
        np.repeat(images, 2, axis=0)[::2],
        images.astype(">f4"),
        tf.constant(images),
        keras.ops.convert_to_tensor(images),
        [images],
    ]
    for other in same:
        np.testing.assert_array_equal(fingerprint.of_examples(other), expected)


def test_any_bit_counts():
    """One chance in 900 that one of 72 does not; with the constants there are, each does."""
    examples = np.zeros((73, 9), dtype="uint8")
    for bit in range(72):
        examples[bit + 1, bit // 8] = 1 << bit % 8
    found = fingerprint.of_examples(examples)
    assert (found[1:] != found[0]).all()


def test_different_examples_seldom_agree():
    """Neighbours, permutations and sign bits are what a weak hash takes for the same."""
    eye = np.eye(300, dtype="float32")
    examples = np.concatenate([eye, -eye, eye * 2, np.cumsum(eye, axis=0), np.zeros_like(eye[:1])])
    found = fingerprint.of_examples(examples)
    pairs = len(found) * (len(found) - 1) / 2
    same = sum(count * (count - 1) / 2 for count in np.unique(found, return_counts=True)[1])
    # The mean number of equal pairs is 11; more than 30 is one chance in a million.
    assert pairs / 2**16 < 11.1
    assert same < 30


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float64", "complex64"]
)
def test_every_dtype_and_its_name_count(dtype):
    x = np.zeros((2, 3), dtype)
    found = fingerprint.of_examples(x)
    assert found[0] == found[1]
    assert found[0] != fingerprint.of_examples(np.zeros((2, 3), "float32"))[0]


def test_bfloat16():
    x = np.ones((2, 3), ml_dtypes.bfloat16)
    assert fingerprint.of_examples(x)[0] != fingerprint.of_examples(x.view("uint16"))[0]


def test_the_shape_counts(images):
    flat = images.reshape(64, -1)
    assert (fingerprint.of_examples(flat) != fingerprint.of_examples(images)).mean() > 0.9


def test_which_input_it_was_counts(images):
    a, b = images[..., 0], images[..., 1]
    found = fingerprint.of_examples((a, b))
    assert (found != fingerprint.of_examples((b, a))).mean() > 0.9
    np.testing.assert_array_equal(found, fingerprint.of_examples({"first": a, "second": b}))


def test_strings_count_by_what_they_say():
    words = ["one", "two", "", "two"]
    found = fingerprint.of_examples(np.array(words))
    for same in (
        np.array(words, dtype=object),
        np.array([word.encode() for word in words]),
        tf.constant(words),
    ):
        np.testing.assert_array_equal(fingerprint.of_examples(same), found)
    assert found[1] == found[3]
    assert len(set(found.tolist())) == 3
    several = fingerprint.of_examples(np.array([["a", "b"], ["b", "a"]]))
    assert several[0] != several[1]


def test_objects_that_are_no_strings():
    with pytest.raises(TypeError, match=r"3 among strings. Expected strings or bytes"):
        fingerprint.of_examples(np.array(["a", 3], dtype=object))


def test_nothing_in_an_example_and_no_examples():
    assert fingerprint.of_examples(np.zeros((3, 0))).shape == (3,)
    assert fingerprint.of_examples(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize("x", [(np.zeros((2, 3)), np.zeros((3, 3))), np.float32(1), [], {}])
def test_not_the_same_number_of_examples(x):
    with pytest.raises(
        ValueError, match=r"inputs of shapes .*Expected arrays with the same number"
    ):
        fingerprint.of_examples(x)


def test_the_digest_of_a_model_is_of_its_weights(dense_model):
    digest = fingerprint.of_teacher(dense_model(seed=1))
    assert len(digest) == 32
    assert digest == fingerprint.of_teacher(dense_model(seed=1, name="other"))
    assert digest != fingerprint.of_teacher(dense_model(seed=2))
    assert digest != fingerprint.of_teacher(dense_model(seed=1, units=5))


@pytest.mark.parametrize("place", range(4))
def test_every_weight_counts(dense_model, place):
    model = dense_model(seed=1)
    digest = fingerprint.of_teacher(model)
    weight = model.weights[place]
    value = weight.numpy().copy()
    value.flat[-1] = np.nextafter(value.flat[-1], np.float32(9))
    weight.assign(value)
    assert fingerprint.of_teacher(model) != digest


def test_statistics_of_batch_normalization_count(dense_model):
    model = dense_model(seed=1, batch_normalization=True)
    digest = fingerprint.of_teacher(model)
    model.get_layer("normalization").moving_mean.assign_add([1.0] * 4)
    assert fingerprint.of_teacher(model) != digest


def test_training_state_does_not_count(dense_model):
    model = dense_model(seed=1)
    digest = fingerprint.of_teacher(model)
    model.compile("adam", "mse", metrics=["mae"])
    model.evaluate(np.zeros((2, 5)), np.zeros((2, 3)), verbose=0)
    assert fingerprint.of_teacher(model) == digest


def test_a_model_of_tf_keras_has_the_digest_of_its_weights(dense_model):
    model = dense_model(seed=1)
    legacy = tf_keras().Sequential([tf_keras().layers.Dense(4), tf_keras().layers.Dense(3)])
    legacy.build((None, 5))
    legacy.set_weights(model.get_weights())
    assert fingerprint.of_teacher(legacy) == fingerprint.of_teacher(model)


def test_weights_in_half_precision_and_scalars():
    half = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="bfloat16")])
    single = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    single.set_weights([keras.ops.cast(weight, "float32") for weight in half.weights])
    assert fingerprint.of_teacher(half) != fingerprint.of_teacher(single)
    scale = keras.layers.Normalization(axis=None)
    scale.adapt(np.arange(6.0))
    assert len(fingerprint.of_teacher(keras.Sequential([keras.Input((3,)), scale]))) == 32


def test_a_teacher_is_its_models(dense_model):
    model, other = dense_model(seed=1), dense_model(seed=2)
    digest = fingerprint.of_teacher(model)
    assert fingerprint.of_teacher(teachers.ModelTeacher(model)) == digest
    both = fingerprint.of_teacher(teachers.Ensemble([model, other]))
    assert both not in (digest, fingerprint.of_teacher(other))
    assert both != fingerprint.of_teacher(teachers.Ensemble([other, model]))


def test_where_no_weights_are_seen():
    assert fingerprint.of_teacher(lambda x: x) is None
    assert fingerprint.of_teacher(teachers.as_teacher(lambda x: x)) is None
    assert (
        fingerprint.of_teacher(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])) is None
    )
