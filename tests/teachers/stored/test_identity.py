"""Keys, fingerprints and digests."""

import hashlib

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import teachers
from keras_kd._keras import tf_keras
from keras_kd.teachers.stored import identity
from keras_kd.teachers.stored.identity import Keys


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (np.array([3, 1], "int32"), "integer"),
        (np.array([3, 1], "uint8"), "integer"),
        ([2**40], "integer"),
        (["a.png", "b.png"], "string"),
        ([b"a.png"], "string"),
        (np.array([b"a", "b"], dtype=object), "string"),
    ],
)
def test_the_kind_of_keys_is_seen(keys, kind):
    assert Keys.of(keys) == Keys(kind)


@pytest.mark.parametrize(
    "keys",
    [
        [1.0],
        [True],
        [None],
        np.array([b"a", 3.0], dtype=object),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
    ],
)
def test_what_is_no_key_is_refused(keys):
    with pytest.raises(TypeError, match=r"keys of dtype .*Expected integers, strings or bytes"):
        Keys.of(keys)


def test_an_unknown_kind():
    with pytest.raises(ValueError, match=r"kind='float'. Expected one of 'position'"):
        Keys("float")


@pytest.mark.parametrize("kind", ["position", "integer"])
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64"])
def test_integers_stay_what_they_are(kind, dtype):
    integers = Keys(kind).to_integers(np.array([[3], [1], [100]], dtype))
    assert integers.dtype == np.int64
    np.testing.assert_array_equal(integers, [3, 1, 100])


def test_an_integer_beyond_int64():
    with pytest.raises(ValueError, match=r"the key 9223372036854775808. Expected at most"):
        Keys("integer").to_integers(np.array([2**63], "uint64"))


def test_strings_become_the_start_of_their_digest():
    digest = hashlib.blake2b("Käse".encode(), digest_size=8).digest()
    expected = int.from_bytes(digest, "little", signed=True)
    for keys in (["Käse"], ["Käse".encode()], np.array(["Käse"], dtype=object)):
        np.testing.assert_array_equal(Keys("string").to_integers(keys), [expected])


def test_strings_that_end_in_zeros_are_others():
    """NumPy's own strings drop such zeros; objects keep them."""
    keys = np.array([b"a", b"a\0", b""], dtype=object)
    assert len(set(Keys("string").to_integers(keys))) == 3


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("integer", ["a"], "keys of dtype <U1, such as .*'a'.*Expected integers"),
        ("position", [1.0], "keys of dtype float64, such as .*Expected integers"),
        ("string", [1], "keys of dtype int64, such as .*Expected strings or bytes"),
        ("string", [b"a", None], "keys of dtype object.*Expected strings"),
    ],
)
def test_keys_of_another_kind_than_was_stored(kind, keys, message):
    with pytest.raises(TypeError, match=message):
        Keys(kind).to_integers(keys)


@pytest.mark.parametrize("keys", [3, [[1, 2]], [[[1], [2]]]])
def test_not_one_key_per_example(keys):
    with pytest.raises(ValueError, match=r"keys of shape .*Expected one key per example"):
        Keys("integer").to_integers(keys)


def test_no_keys():
    assert Keys("string").to_integers(np.array([], dtype=object)).shape == (0,)
    assert Keys("integer").to_integers([]).shape == (0,)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((64, 7, 5, 3)).astype("float32")


def by_definition(words, start, factors):
    """The formula of the docstring with Python's integers."""
    total = sum(int(word) * int(factor) for word, factor in zip(words, factors, strict=True))
    return (int(start) + total) % 2**64 >> 48


def test_fingerprints_are_what_the_docstring_says(images, monkeypatch):
    found = identity.of_examples(images)
    factors = np.random.PCG64([0x6B657261735F6B64, 0]).random_raw(105)
    digest = identity.hashlib.blake2b(b"0 float32 (7, 5, 3)", digest_size=8).digest()
    words = images.reshape(64, -1).view("<u4")
    start = int.from_bytes(digest, "little")
    assert found.tolist() == [by_definition(row, start, factors) for row in words]


def test_fingerprints_never_change():
    """Stores hold them: another number would refuse every store there is."""
    x = {"image": np.arange(12, dtype="float32").reshape(2, 6), "name": np.array(["a", "b"])}
    assert identity.of_examples(x).tolist() == [13178, 21427]


def test_fingerprints_do_not_depend_on_the_batch(images):
    together = identity.of_examples({"a": images, "b": images[:, 0]})
    assert together.dtype == np.uint16
    assert together.shape == (64,)
    for batch in (1, 7, 64):
        parts = [
            identity.of_examples({"a": images[i : i + batch], "b": images[i : i + batch, 0]})
            for i in range(0, 64, batch)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), together)


def test_equal_examples_are_equal_however_they_lie_in_memory(images):
    expected = identity.of_examples(images)
    same = [
        np.asfortranarray(images),
        np.repeat(images, 2, axis=0)[::2],
        images.astype(">f4"),
        tf.constant(images),
        keras.ops.convert_to_tensor(images),
        [images],
    ]
    for other in same:
        np.testing.assert_array_equal(identity.of_examples(other), expected)


def test_any_bit_counts():
    """One chance in 900 that one of 72 does not; with the constants there are, each does."""
    examples = np.zeros((73, 9), dtype="uint8")
    for bit in range(72):
        examples[bit + 1, bit // 8] = 1 << bit % 8
    found = identity.of_examples(examples)
    assert (found[1:] != found[0]).all()


def test_different_examples_seldom_agree():
    """Neighbours, permutations and sign bits are what a weak hash takes for the same."""
    eye = np.eye(300, dtype="float32")
    examples = np.concatenate([eye, -eye, eye * 2, np.cumsum(eye, axis=0), np.zeros_like(eye[:1])])
    found = identity.of_examples(examples)
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
    found = identity.of_examples(x)
    assert found[0] == found[1]
    assert found[0] != identity.of_examples(np.zeros((2, 3), "float32"))[0]


def test_bfloat16():
    x = np.ones((2, 3), ml_dtypes.bfloat16)
    assert identity.of_examples(x)[0] != identity.of_examples(x.view("uint16"))[0]


def test_the_shape_counts(images):
    flat = images.reshape(64, -1)
    assert (identity.of_examples(flat) != identity.of_examples(images)).mean() > 0.9


def test_which_input_it_was_counts(images):
    a, b = images[..., 0], images[..., 1]
    found = identity.of_examples((a, b))
    assert (found != identity.of_examples((b, a))).mean() > 0.9
    np.testing.assert_array_equal(found, identity.of_examples({"first": a, "second": b}))


def test_strings_count_by_what_they_say():
    words = ["one", "two", "", "two"]
    found = identity.of_examples(np.array(words))
    for same in (
        np.array(words, dtype=object),
        np.array([word.encode() for word in words]),
        tf.constant(words),
    ):
        np.testing.assert_array_equal(identity.of_examples(same), found)
    assert found[1] == found[3]
    assert len(set(found.tolist())) == 3
    several = identity.of_examples(np.array([["a", "b"], ["b", "a"]]))
    assert several[0] != several[1]


def test_objects_that_are_no_strings():
    with pytest.raises(TypeError, match=r"3 among strings. Expected strings or bytes"):
        identity.of_examples(np.array(["a", 3], dtype=object))


def test_nothing_in_an_example_and_no_examples():
    assert identity.of_examples(np.zeros((3, 0))).shape == (3,)
    assert identity.of_examples(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize("x", [(np.zeros((2, 3)), np.zeros((3, 3))), np.float32(1), [], {}])
def test_not_the_same_number_of_examples(x):
    with pytest.raises(
        ValueError, match=r"inputs of shapes .*Expected arrays with the same number"
    ):
        identity.of_examples(x)


def test_the_digest_of_a_model_is_of_its_weights(dense_model):
    digest = identity.of_teacher(dense_model(seed=1))
    assert len(digest) == 32
    assert digest == identity.of_teacher(dense_model(seed=1, name="other"))
    assert digest != identity.of_teacher(dense_model(seed=2))
    assert digest != identity.of_teacher(dense_model(seed=1, units=5))


@pytest.mark.parametrize("place", range(4))
def test_every_weight_counts(dense_model, place):
    model = dense_model(seed=1)
    digest = identity.of_teacher(model)
    weight = model.weights[place]
    value = weight.numpy().copy()
    value.flat[-1] = np.nextafter(value.flat[-1], np.float32(9))
    weight.assign(value)
    assert identity.of_teacher(model) != digest


def test_statistics_of_batch_normalization_count(dense_model):
    model = dense_model(seed=1, batch_normalization=True)
    digest = identity.of_teacher(model)
    model.get_layer("normalization").moving_mean.assign_add([1.0] * 4)
    assert identity.of_teacher(model) != digest


def test_training_state_does_not_count(dense_model):
    model = dense_model(seed=1)
    digest = identity.of_teacher(model)
    model.compile("adam", "mse", metrics=["mae"])
    model.evaluate(np.zeros((2, 5)), np.zeros((2, 3)), verbose=0)
    assert identity.of_teacher(model) == digest


def test_a_model_of_tf_keras_has_the_digest_of_its_weights(dense_model):
    model = dense_model(seed=1)
    legacy = tf_keras().Sequential([tf_keras().layers.Dense(4), tf_keras().layers.Dense(3)])
    legacy.build((None, 5))
    legacy.set_weights(model.get_weights())
    assert identity.of_teacher(legacy) == identity.of_teacher(model)


def test_weights_in_half_precision_and_scalars():
    half = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="bfloat16")])
    single = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    single.set_weights([keras.ops.cast(weight, "float32") for weight in half.weights])
    assert identity.of_teacher(half) != identity.of_teacher(single)
    scale = keras.layers.Normalization(axis=None)
    scale.adapt(np.arange(6.0))
    assert len(identity.of_teacher(keras.Sequential([keras.Input((3,)), scale]))) == 32


def test_a_teacher_is_its_models(dense_model):
    model, other = dense_model(seed=1), dense_model(seed=2)
    digest = identity.of_teacher(model)
    assert identity.of_teacher(teachers.ModelTeacher(model)) == digest
    both = identity.of_teacher(teachers.Ensemble([model, other]))
    assert both not in (digest, identity.of_teacher(other))
    assert both != identity.of_teacher(teachers.Ensemble([other, model]))


def test_where_no_weights_are_seen():
    assert identity.of_teacher(lambda x: x) is None
    assert identity.of_teacher(teachers.as_teacher(lambda x: x)) is None
    assert identity.of_teacher(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])) is None
