import hashlib
import pickle

import numpy as np
import pytest

from keras_kd.teachers.stored.keys import KeyIndex, Keys, PositionIndex


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


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_every_key_finds_its_record(count):
    chance = np.random.default_rng(count)
    stored = np.unique(chance.integers(-(2**63), 2**63 - 1, count))
    chance.shuffle(stored)
    rows = chance.permutation(len(stored))
    np.testing.assert_array_equal(KeyIndex(stored).find(stored[rows]), rows)


def test_a_key_can_be_asked_for_more_than_once():
    index = pickle.loads(pickle.dumps(KeyIndex(np.array([30, 10, 20]))))
    np.testing.assert_array_equal(index.find(np.array([20, 30, 20, 10])), [2, 0, 2, 1])


@pytest.mark.parametrize("unknown", [-5, 15, 99])
def test_an_unknown_key_is_named(unknown):
    index = KeyIndex(np.array([30, 10, 20]))
    message = rf"nothing is stored \(1 of 2\): {unknown}\. Expected keys of the 3 examples"
    with pytest.raises(ValueError, match=message):
        index.find(np.array([10, unknown]))


def test_unknown_keys_are_shown_as_they_were_given():
    keys = Keys("string")
    index = KeyIndex(keys.to_integers(["a.png"]))
    given = np.array([b"b.png", b"a.png", b"c.png", b"d.png", b"e.png"], dtype=object)
    message = r"\(4 of 5\): b'b.png', b'c.png', b'd.png', \.\.\.\. Expected keys of the 1 ex"
    with pytest.raises(ValueError, match=message):
        index.find(keys.to_integers(given), given)
    with pytest.raises(ValueError, match=r"\(1 of 1\): 'x'\. Expected"):
        index.find(keys.to_integers(["x"]), ["x"])


def test_an_index_of_nothing():
    with pytest.raises(ValueError, match=r"\(1 of 1\): 3\. Expected keys of the 0 examples"):
        KeyIndex(np.array([], np.int64)).find(np.array([3]))


def test_keys_that_occur_twice_are_named():
    with pytest.raises(ValueError, match=r"more than once \(2 times\): 7 of records 0 and 2, 9 of"):
        KeyIndex(np.array([7, 9, 7, 8, 9]))


def test_a_position_is_its_record():
    np.testing.assert_array_equal(PositionIndex(5).find(np.array([4, 0, 4])), [4, 0, 4])


@pytest.mark.parametrize("position", [-1, 5])
def test_a_position_that_is_not_there(position):
    with pytest.raises(
        ValueError, match=rf"stored \(1 of 2\): {position}\. Expected keys of the 5"
    ):
        PositionIndex(5).find(np.array([0, position]))
