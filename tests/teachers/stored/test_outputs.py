import numpy as np
import pytest

import keras_kd
from keras_kd.teachers import StoredTeacher, store_outputs

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(0, 3, (20, 5)).astype("float32")
X = GENERATOR.random((20, 4), dtype="float32")
NAMES = np.array([f"image {number}" for number in range(20)])


def softmax(logits):
    powers = np.exp(logits.astype("float64") - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def all_of(stored, name="logits"):
    return stored.read(np.arange(stored.examples))[name]


def test_an_array_comes_back(tmp_path):
    stored = store_outputs(LOGITS, tmp_path / "t.store", x=X, dtype="float32", batch_size=6)
    np.testing.assert_array_equal(all_of(stored), LOGITS)
    np.testing.assert_array_equal(all_of(StoredTeacher(tmp_path / "t.store")), LOGITS)
    assert stored.name == "predictions"
    assert len(stored) == 20


def test_a_mapped_array_and_examples_on_the_disk(tmp_path):
    np.save(tmp_path / "logits.npy", LOGITS)
    np.save(tmp_path / "x.npy", X)
    stored = store_outputs(
        np.load(tmp_path / "logits.npy", mmap_mode="r"),
        tmp_path / "t.store",
        x=np.load(tmp_path / "x.npy", mmap_mode="r"),
    )
    np.testing.assert_allclose(all_of(stored), LOGITS, atol=1e-2)


def test_features_beside_the_logits_and_alone(tmp_path):
    features = GENERATOR.random((20, 3, 2), dtype="float32")
    stored = store_outputs({"logits": LOGITS, "block": features}, tmp_path / "both.store")
    np.testing.assert_allclose(all_of(stored, "block"), features, atol=1e-3)
    np.testing.assert_allclose(all_of(stored), LOGITS, atol=1e-2)
    alone = store_outputs({"block": features}, tmp_path / "alone.store", dtype="float32")
    np.testing.assert_array_equal(all_of(alone, "block"), features)
    alone.tap(["block"])


def test_top_k(tmp_path):
    stored = store_outputs(LOGITS, tmp_path / "t.store", top_k=2, temperatures=(1, 4))
    found = stored.read([3])
    expected = np.argsort(-LOGITS[3])[:2]
    np.testing.assert_array_equal(found["logits:classes"][0], expected)
    assert found["logits:rest"].shape == (1, 2)


def test_one_temperature_is_a_number(tmp_path):
    stored = store_outputs(LOGITS, tmp_path / "t.store", top_k=2, temperatures=2)
    assert stored.read([0])["logits:rest"].shape == (1, 1)


def test_a_stream_with_keys(tmp_path):
    pairs = ((NAMES[part], LOGITS[part]) for part in (slice(0, 7), slice(7, 20)))
    stored = store_outputs(pairs, tmp_path / "t.store", dtype="float32")
    order = GENERATOR.permutation(20)
    np.testing.assert_array_equal(stored.read(NAMES[order])["logits"], LOGITS[order])
    with pytest.raises(ValueError, match="'image 20'"):
        stored.read(["image 20"])


@pytest.mark.parametrize("keys", [NAMES, np.arange(20) * 10**12, NAMES.tolist()])
def test_keys_beside_the_outputs(keys, tmp_path):
    stored = store_outputs(LOGITS, tmp_path / "t.store", keys=keys, dtype="float32")
    found = stored.read([keys[7], keys[2]])
    np.testing.assert_array_equal(found["logits"], LOGITS[[7, 2]])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_become_logits(activation, tmp_path):
    probabilities = softmax(LOGITS) if activation == "softmax" else 1 / (1 + np.exp(-LOGITS))
    stored = store_outputs(
        probabilities, tmp_path / "t.store", activation=activation, dtype="float32"
    )
    found = all_of(stored)
    if activation == "softmax":
        found, expected = softmax(found), softmax(LOGITS)
    else:
        expected = LOGITS
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # And the teacher puts out what it did.
    arrays = {"logits:values": all_of(stored)}
    np.testing.assert_allclose(stored(arrays, None).outputs, probabilities, atol=1e-5)


def test_probabilities_that_are_taken_for_logits(tmp_path):
    with pytest.raises(ValueError, match=r"look like probabilities.*activation='softmax'"):
        store_outputs(softmax(LOGITS), tmp_path / "t.store")
    assert not (tmp_path / "t.store").exists()


def test_an_interrupted_stream_goes_on(tmp_path):
    def broken():
        yield LOGITS[:8]
        yield LOGITS[8:11]
        raise ConnectionError

    path = tmp_path / "t.store"
    with pytest.raises(ConnectionError):
        store_outputs(broken(), path, x=X, dtype="float32")
    with pytest.raises(ValueError, match="it has the first 11 examples"):
        StoredTeacher(path)
    assert StoredTeacher(path, partial=True).examples == 11
    stored = store_outputs(iter([LOGITS[:15], LOGITS[15:]]), path, x=X, dtype="float32")
    np.testing.assert_array_equal(all_of(stored), LOGITS)
    whole = store_outputs(LOGITS, tmp_path / "whole.store", x=X, dtype="float32")
    for name in ("records.bin", "journal"):
        assert (path / name).read_bytes() == (whole.path / name).read_bytes()


def test_once_more_changes_nothing(tmp_path):
    store_outputs(LOGITS, tmp_path / "t.store", x=X)
    before = {file.name: file.read_bytes() for file in (tmp_path / "t.store").iterdir()}
    store_outputs(LOGITS, tmp_path / "t.store", x=X)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "t.store").iterdir()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": LOGITS + 1}, "other predictions than those with which the store"),
        ({"x": X + 1}, "the example number 0, which is not the one"),
        ({"dtype": "float32"}, "float16"),
        ({"x": None}, "fingerprints of x: no, .*begun with yes"),
        ({"top_k": 2}, "top_k"),
        ({"name": "forest"}, "the teacher: forest, .*begun with predictions"),
    ],
)
def test_another_store_is_not_mixed_with_this_one(change, message, tmp_path):
    arguments = {"outputs": LOGITS, "path": tmp_path / "t.store", "x": X}
    store_outputs(**arguments)
    with pytest.raises(ValueError, match=message):
        store_outputs(**(arguments | change))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X[:9]}, "predictions of 20 examples, and x or keys of 9"),
        ({"activation": "relu"}, "activation='relu'"),
        ({"activation": "softmax"}, "no softmax gives"),
        ({"outputs": np.full((3, 2), np.nan)}, "NaN or infinite values in 'logits' of example 0"),
        ({"outputs": np.full((3, 2), 7e4)}, "dtype='float32'"),
        ({"outputs": softmax(LOGITS), "activation": "sigmoid", "top_k": 2}, "a sigmoid"),
        ({"outputs": {"block": LOGITS}, "top_k": 2}, "'logits' among the outputs"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"dtype": "int4"}, "dtype='int4'"),
        ({"keys": X[:, 0]}, "keys of dtype float32"),
        ({"outputs": np.array([["a"]])}, "'logits' of type <U1"),
        ({"outputs": np.arange(20.0)}, "one number for each example.*outputs\\[:, None\\]"),
        ({"outputs": {"logit": LOGITS}}, "outputs\\['logit'\\].*call it 'logits'"),
        ({"outputs": {"Logits": LOGITS}}, "call it 'logits'"),
        ({"temperatures": 4.0}, "temperatures=4.0 without top_k"),
    ],
)
def test_what_cannot_be_stored_leaves_nothing_behind(arguments, message, tmp_path):
    with pytest.raises((TypeError, ValueError), match=message):
        store_outputs(**({"outputs": LOGITS, "path": tmp_path / "t.store"} | arguments))
    assert not (tmp_path / "t.store").exists()


def test_a_key_that_comes_twice(tmp_path):
    with pytest.raises(ValueError, match="the key 'image 3' a second time"):
        store_outputs(LOGITS[:2], tmp_path / "t.store", keys=NAMES[[3, 3]])
    assert not (tmp_path / "t.store").exists()


def test_what_a_user_keeps_there_stays(tmp_path):
    path = tmp_path / "t.store"
    store_outputs(LOGITS, path, keys=np.arange(20))
    (path / "notes.txt").touch()
    for name in ("journal", "records.bin"):
        (path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="a second time"):
        store_outputs(LOGITS, path, keys=np.zeros(20, int))
    assert [file.name for file in path.iterdir()] == ["notes.txt"]


def test_without_examples_only_keys_are_checked(tmp_path):
    stored = store_outputs(LOGITS, tmp_path / "t.store")
    (batch, *_) = stored.join((X + 1, LOGITS), batch_size=20, shuffle=False)
    np.testing.assert_array_equal(
        batch[0]["teacher_outputs"]["logits:values"], LOGITS.astype("float16")
    )
    checked = store_outputs(LOGITS, tmp_path / "checked.store", x=X)
    with pytest.raises(Exception, match="Received"):
        list(checked.join((X + 1, LOGITS), batch_size=20, shuffle=False))


def test_float64_examples_are_those_that_a_model_sees(tmp_path):
    stored = store_outputs(LOGITS, tmp_path / "t.store", x=X.astype("float64"))
    assert len(list(stored.join((X, LOGITS), batch_size=20))) == 1


def test_a_student_learns_from_predictions(tmp_path):
    import keras

    stored = store_outputs(LOGITS, tmp_path / "t.store", x=X, top_k=3)
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    distiller = keras_kd.Distiller(stored, student)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = LOGITS.argmax(axis=1)
    history = distiller.fit(stored.join((X, labels), batch_size=10), epochs=3, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]
