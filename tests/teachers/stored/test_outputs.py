"""What was said elsewhere, in whatever form, becomes a store."""

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.teachers import StoredTeacher
from keras_kd.teachers.stored.outputs import Predictions, check_logits, logits_of

from _models import cross_entropy

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
    stored = StoredTeacher.from_outputs(
        LOGITS, tmp_path / "t.store", x=X, dtype="float32", batch_size=6
    )
    np.testing.assert_array_equal(all_of(stored), LOGITS)
    np.testing.assert_array_equal(all_of(StoredTeacher(tmp_path / "t.store")), LOGITS)
    assert stored.name == "predictions"
    assert len(stored) == 20


def test_a_mapped_array_and_examples_on_the_disk(tmp_path):
    np.save(tmp_path / "logits.npy", LOGITS)
    np.save(tmp_path / "x.npy", X)
    stored = StoredTeacher.from_outputs(
        np.load(tmp_path / "logits.npy", mmap_mode="r"),
        tmp_path / "t.store",
        x=np.load(tmp_path / "x.npy", mmap_mode="r"),
    )
    np.testing.assert_allclose(all_of(stored), LOGITS, atol=1e-2)


def test_features_beside_the_logits_and_alone(tmp_path):
    features = GENERATOR.random((20, 3, 2), dtype="float32")
    stored = StoredTeacher.from_outputs(
        {"logits": LOGITS, "block": features}, tmp_path / "both.store"
    )
    np.testing.assert_allclose(all_of(stored, "block"), features, atol=1e-3)
    np.testing.assert_allclose(all_of(stored), LOGITS, atol=1e-2)
    alone = StoredTeacher.from_outputs(
        {"block": features}, tmp_path / "alone.store", dtype="float32"
    )
    np.testing.assert_array_equal(all_of(alone, "block"), features)
    alone.tap(["block"])


def test_top_k(tmp_path):
    stored = StoredTeacher.from_outputs(LOGITS, tmp_path / "t.store", top_k=2, temperatures=(1, 4))
    found = stored.read([3])
    expected = np.argsort(-LOGITS[3])[:2]
    np.testing.assert_array_equal(found["logits:classes"][0], expected)
    assert found["logits:rest"].shape == (1, 2)


def test_one_temperature_is_a_number(tmp_path):
    stored = StoredTeacher.from_outputs(LOGITS, tmp_path / "t.store", top_k=2, temperatures=2)
    assert stored.read([0])["logits:rest"].shape == (1, 1)


def test_a_stream_with_keys(tmp_path):
    pairs = ((NAMES[part], LOGITS[part]) for part in (slice(0, 7), slice(7, 20)))
    stored = StoredTeacher.from_outputs(pairs, tmp_path / "t.store", dtype="float32")
    order = GENERATOR.permutation(20)
    np.testing.assert_array_equal(stored.read(NAMES[order])["logits"], LOGITS[order])
    with pytest.raises(ValueError, match="'image 20'"):
        stored.read(["image 20"])


@pytest.mark.parametrize("keys", [NAMES, np.arange(20) * 10**12, NAMES.tolist()])
def test_keys_beside_the_outputs(keys, tmp_path):
    stored = StoredTeacher.from_outputs(LOGITS, tmp_path / "t.store", keys=keys, dtype="float32")
    found = stored.read([keys[7], keys[2]])
    np.testing.assert_array_equal(found["logits"], LOGITS[[7, 2]])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_become_logits(activation, tmp_path):
    probabilities = softmax(LOGITS) if activation == "softmax" else 1 / (1 + np.exp(-LOGITS))
    stored = StoredTeacher.from_outputs(
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
        StoredTeacher.from_outputs(softmax(LOGITS), tmp_path / "t.store")
    assert not (tmp_path / "t.store").exists()


def test_an_interrupted_stream_goes_on(tmp_path):
    def broken():
        yield LOGITS[:8]
        yield LOGITS[8:11]
        raise ConnectionError

    path = tmp_path / "t.store"
    with pytest.raises(ConnectionError):
        StoredTeacher.from_outputs(broken(), path, x=X, dtype="float32")
    with pytest.raises(ValueError, match="it has the first 11 examples"):
        StoredTeacher(path)
    assert StoredTeacher(path, partial=True).examples == 11
    stored = StoredTeacher.from_outputs(
        iter([LOGITS[:15], LOGITS[15:]]), path, x=X, dtype="float32"
    )
    np.testing.assert_array_equal(all_of(stored), LOGITS)
    whole = StoredTeacher.from_outputs(LOGITS, tmp_path / "whole.store", x=X, dtype="float32")
    np.testing.assert_array_equal(all_of(whole), LOGITS)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t.store", "whole.store"]


def test_once_more_changes_nothing(tmp_path):
    StoredTeacher.from_outputs(LOGITS, tmp_path / "t.store", x=X)
    before = (tmp_path / "t.store").read_bytes()
    StoredTeacher.from_outputs(LOGITS, tmp_path / "t.store", x=X)
    assert before == (tmp_path / "t.store").read_bytes()


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
    StoredTeacher.from_outputs(**arguments)
    with pytest.raises(ValueError, match=message):
        StoredTeacher.from_outputs(**(arguments | change))


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
        StoredTeacher.from_outputs(
            **({"outputs": LOGITS, "path": tmp_path / "t.store"} | arguments)
        )
    assert not (tmp_path / "t.store").exists()


def test_a_key_that_comes_twice(tmp_path):
    with pytest.raises(ValueError, match="the key 'image 3' a second time"):
        StoredTeacher.from_outputs(LOGITS[:2], tmp_path / "t.store", keys=NAMES[[3, 3]])
    assert not (tmp_path / "t.store").exists()


def test_without_examples_only_keys_are_checked(tmp_path):
    stored = StoredTeacher.from_outputs(LOGITS, tmp_path / "t.store")
    (batch, *_) = stored.join((X + 1, LOGITS), batch_size=20, shuffle=False)
    np.testing.assert_array_equal(
        batch[0]["teacher_outputs"]["logits:values"], LOGITS.astype("float16")
    )
    checked = StoredTeacher.from_outputs(LOGITS, tmp_path / "checked.store", x=X)
    with pytest.raises(Exception, match="Received"):
        list(checked.join((X + 1, LOGITS), batch_size=20, shuffle=False))


def test_float64_examples_are_those_that_a_model_sees(tmp_path):
    stored = StoredTeacher.from_outputs(LOGITS, tmp_path / "t.store", x=X.astype("float64"))
    assert len(list(stored.join((X, LOGITS), batch_size=20))) == 1


def test_a_student_learns_from_predictions(tmp_path):
    import keras

    stored = StoredTeacher.from_outputs(LOGITS, tmp_path / "t.store", x=X, top_k=3)
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    distiller = keras_kd.Distiller(stored, student)
    distiller.compile("adam", cross_entropy(), run_eagerly=True)
    labels = LOGITS.argmax(axis=1)
    history = distiller.fit(stored.join((X, labels), batch_size=10), epochs=3, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]


PREDICTIONS = np.arange(20.0).reshape(10, 2)
NUMBERS = np.arange(10)


def batches(outputs, x=None, keys=None, batch_size=4):
    return list(Predictions(outputs, x, keys, batch_size))


def test_an_array_is_cut_into_batches():
    found = batches(PREDICTIONS)
    assert [batch.count for batch in found] == [4, 4, 2]
    np.testing.assert_array_equal(
        np.concatenate([batch.outputs["logits"] for batch in found]), PREDICTIONS
    )
    assert Predictions(PREDICTIONS, None, None, 4).total == 10


def test_a_mapped_array_is_not_read_before_its_turn(tmp_path):
    np.save(tmp_path / "logits.npy", PREDICTIONS)
    (first, *_) = batches(np.load(tmp_path / "logits.npy", mmap_mode="r"))
    assert isinstance(first.outputs["logits"].base, np.memmap)


def test_a_data_set_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "said.h5", "w") as file:
        file["logits"] = PREDICTIONS
        file["x"] = NUMBERS
        found = batches(file["logits"], file["x"])
        assert [batch.count for batch in found] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate([batch.x for batch in found]), NUMBERS)


def test_a_dict_of_arrays():
    found = batches({"logits": PREDICTIONS, "block": PREDICTIONS[:, :, None]})
    assert {name: array.shape for name, array in found[0].outputs.items()} == {
        "logits": (4, 2),
        "block": (4, 2, 1),
    }


@pytest.mark.parametrize(
    "outputs",
    [
        lambda: iter([PREDICTIONS[:3], PREDICTIONS[3:]]),
        lambda: [PREDICTIONS[:3], PREDICTIONS[3:], PREDICTIONS[:0]],
        lambda: ({"logits": part} for part in (PREDICTIONS[:3], PREDICTIONS[3:])),
        lambda: tf.data.Dataset.from_tensor_slices(PREDICTIONS).batch(3),
    ],
)
def test_batches_of_any_size_meet_their_examples(outputs):
    predictions = Predictions(outputs(), {"a": NUMBERS, "b": [NUMBERS]}, None, 4)
    assert predictions.total is None
    found = list(predictions)
    for name in ("a", "b"):
        x = np.concatenate([np.ravel(batch.x[name]) for batch in found])
        np.testing.assert_array_equal(x, NUMBERS)
    logits = np.concatenate([batch.outputs["logits"] for batch in found])
    np.testing.assert_array_equal(logits, PREDICTIONS)


def test_keys_beside_the_outputs_or_with_them():
    keys = [f"image {number}" for number in range(10)]
    beside = batches(PREDICTIONS, keys=keys)
    pairs = batches((keys[at : at + 4], PREDICTIONS[at : at + 4]) for at in (0, 4, 8))
    for found in (beside, pairs):
        assert [key for batch in found for key in batch.key.tolist()] == keys
    with pytest.raises(ValueError, match=r"Received keys=... and pairs"):
        batches([(NUMBERS, PREDICTIONS)], keys=NUMBERS)


@pytest.mark.parametrize(
    ("x", "keys"),
    [(NUMBERS[:9], None), (None, NUMBERS[:9]), ({"a": NUMBERS, "b": NUMBERS[:9]}, None)],
)
@pytest.mark.parametrize("outputs", [PREDICTIONS, [PREDICTIONS]])
def test_as_many_examples_as_predictions(outputs, x, keys):
    with pytest.raises(ValueError, match="predictions of 10 examples, and x or keys of 9"):
        batches(outputs, x, keys)


def test_too_many_examples_are_noticed_at_the_end_of_a_stream():
    stream = iter(Predictions(iter([PREDICTIONS]), np.arange(11), None, 4))
    assert next(stream).count == 10
    with pytest.raises(ValueError, match="predictions of 10 examples, and x or keys of 11"):
        next(stream)


@pytest.mark.parametrize("outputs", [PREDICTIONS[:0], [], [PREDICTIONS[:0]], iter(())])
def test_nothing(outputs):
    with pytest.raises(ValueError, match="Received no predictions"):
        batches(outputs)


@pytest.mark.parametrize(
    "outputs",
    [None, 3, "logits.npy", np.float32(3), [[1.0, 2.0]], {}, {"logits": [1.0]}, {3: PREDICTIONS}],
)
def test_something_else(outputs):
    with pytest.raises(TypeError, match=r"Expected an array .*StoredTeacher.create"):
        batches(outputs)


@pytest.mark.parametrize(
    "outputs", [np.array([["a"]]), np.array([[None]]), np.ones((2, 2), complex)]
)
def test_what_are_no_numbers(outputs):
    with pytest.raises(TypeError, match=r"Received 'logits' of type .*Expected numbers"):
        batches(outputs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "bool"])
def test_numbers_of_any_kind(dtype):
    (batch,) = batches([tf.cast(PREDICTIONS, dtype)])
    assert batch.outputs["logits"].dtype == dtype


def test_lengths_within_a_batch():
    with pytest.raises(ValueError, match=r"different numbers of examples: \{'logits': 10, 'a': 9"):
        batches({"logits": PREDICTIONS, "a": PREDICTIONS[:9]})


@pytest.mark.parametrize(
    "second",
    [{"block": PREDICTIONS}, (NUMBERS, PREDICTIONS), {"logits": PREDICTIONS, "a": PREDICTIONS}],
)
def test_batches_bring_the_same(second):
    with pytest.raises(ValueError, match=r"a batch of \[.*\] after one of \['logits'\]"):
        batches([PREDICTIONS, second])


def test_examples_without_an_axis():
    with pytest.raises(TypeError, match="Received x with 3"):
        batches(PREDICTIONS, x=[1, 2, 3][2])


MANY_LOGITS = GENERATOR.normal(0, 4, (50, 3, 7)).astype("float32")


def tempered_softmax(logits, temperature=1.0):
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits.astype("float64") / temperature))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_logits_behind_a_softmax_at_any_temperature(temperature):
    found = logits_of(tempered_softmax(MANY_LOGITS), "softmax")
    assert found.dtype == "float32"
    expected = tempered_softmax(MANY_LOGITS, temperature)
    np.testing.assert_allclose(tempered_softmax(found, temperature), expected, rtol=1e-5)


def test_logits_behind_a_sigmoid():
    probabilities = 1 / (1 + np.exp(-MANY_LOGITS.astype("float64")))
    np.testing.assert_allclose(logits_of(probabilities, "sigmoid"), MANY_LOGITS, atol=1e-6)


def test_a_floor_for_what_is_impossible():
    floor = np.log(1.1754944e-38)
    rows = np.array([[0.0, 1.0], [1e-300, 1.0]])
    np.testing.assert_allclose(logits_of(rows, "softmax"), [[floor, 0]] * 2, rtol=1e-6)
    np.testing.assert_allclose(logits_of(rows, "sigmoid"), [[floor, -floor]] * 2, rtol=1e-6)
    # It is no probability worth speaking of at the temperatures that are in use.
    assert tempered_softmax(logits_of(rows, "softmax"), 4.0)[0, 0] < 1e-9


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_probabilities_in_any_precision(dtype):
    probabilities = tempered_softmax(MANY_LOGITS).astype(dtype)
    found = tempered_softmax(logits_of(probabilities, "softmax"))
    np.testing.assert_allclose(found, tempered_softmax(MANY_LOGITS), atol=1e-3)
    with pytest.raises(ValueError, match="look like probabilities"):
        check_logits(probabilities)


@pytest.mark.parametrize("row", [[-0.1, 1.1], [0.5, 0.6], [np.nan, 1.0], [0.2, 0.2]])
def test_what_no_softmax_gives(row):
    rows = np.array([[0.5, 0.5], row])
    with pytest.raises(ValueError, match=r"example 11 that no softmax.*the sum 1.*'sigmoid'"):
        logits_of(rows, "softmax", first_example=10)


@pytest.mark.parametrize("row", [[-0.1, 0.5], [0.5, 1.1], [np.nan, 1.0]])
def test_what_no_sigmoid_gives(row):
    with pytest.raises(
        ValueError, match=r"example 0 that no sigmoid.*from 0 to 1.*if they are logits"
    ):
        logits_of(np.array([row]), "sigmoid")


@pytest.mark.parametrize(
    "values",
    [
        MANY_LOGITS,
        np.ones((3, 1)),
        np.zeros((0, 4)),
        np.ones(3),
        np.array([[0.5, 0.5], [0.5, 0.6]]),
    ],
)
def test_what_are_no_distributions(values):
    check_logits(values)


def test_the_advice_for_logits_that_look_like_probabilities():
    check_logits(np.array([[0.5, 0.5], [0.1, 0.9]]) - 1)
