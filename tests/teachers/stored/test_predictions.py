import h5py
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.teachers.stored.predictions import Predictions

LOGITS = np.arange(20.0).reshape(10, 2)
X = np.arange(10)


def batches(outputs, x=None, keys=None, batch_size=4):
    return list(Predictions(outputs, x, keys, batch_size))


def test_an_array_is_cut_into_batches():
    found = batches(LOGITS)
    assert [batch.count for batch in found] == [4, 4, 2]
    np.testing.assert_array_equal(
        np.concatenate([batch.tensors["logits"] for batch in found]), LOGITS
    )
    assert Predictions(LOGITS, None, None, 4).total == 10


def test_a_mapped_array_is_not_read_before_its_turn(tmp_path):
    np.save(tmp_path / "logits.npy", LOGITS)
    (first, *_) = batches(np.load(tmp_path / "logits.npy", mmap_mode="r"))
    assert isinstance(first.tensors["logits"].base, np.memmap)


def test_a_data_set_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "said.h5", "w") as file:
        file["logits"] = LOGITS
        file["x"] = X
        found = batches(file["logits"], file["x"])
        assert [batch.count for batch in found] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate([batch.x for batch in found]), X)


def test_a_dict_of_arrays():
    found = batches({"logits": LOGITS, "block": LOGITS[:, :, None]})
    assert {name: array.shape for name, array in found[0].tensors.items()} == {
        "logits": (4, 2),
        "block": (4, 2, 1),
    }


@pytest.mark.parametrize(
    "outputs",
    [
        lambda: iter([LOGITS[:3], LOGITS[3:]]),
        lambda: [LOGITS[:3], LOGITS[3:], LOGITS[:0]],
        lambda: ({"logits": part} for part in (LOGITS[:3], LOGITS[3:])),
        lambda: tf.data.Dataset.from_tensor_slices(LOGITS).batch(3),
    ],
)
def test_batches_of_any_size_meet_their_examples(outputs):
    predictions = Predictions(outputs(), {"a": X, "b": [X]}, None, 4)
    assert predictions.total is None
    found = list(predictions)
    for name in ("a", "b"):
        x = np.concatenate([np.ravel(batch.x[name]) for batch in found])
        np.testing.assert_array_equal(x, X)
    logits = np.concatenate([batch.tensors["logits"] for batch in found])
    np.testing.assert_array_equal(logits, LOGITS)


def test_keys_beside_the_outputs_or_with_them():
    keys = [f"image {number}" for number in range(10)]
    beside = batches(LOGITS, keys=keys)
    pairs = batches((keys[at : at + 4], LOGITS[at : at + 4]) for at in (0, 4, 8))
    for found in (beside, pairs):
        assert [key for batch in found for key in batch.keys.tolist()] == keys
    with pytest.raises(ValueError, match=r"Received keys=... and pairs"):
        batches([(X, LOGITS)], keys=X)


@pytest.mark.parametrize(
    ("x", "keys"), [(X[:9], None), (None, X[:9]), ({"a": X, "b": X[:9]}, None)]
)
@pytest.mark.parametrize("outputs", [LOGITS, [LOGITS]])
def test_as_many_examples_as_predictions(outputs, x, keys):
    with pytest.raises(ValueError, match="predictions of 10 examples, and x or keys of 9"):
        batches(outputs, x, keys)


def test_too_many_examples_are_noticed_at_the_end_of_a_stream():
    stream = iter(Predictions(iter([LOGITS]), np.arange(11), None, 4))
    assert next(stream).count == 10
    with pytest.raises(ValueError, match="predictions of 10 examples, and x or keys of 11"):
        next(stream)


@pytest.mark.parametrize("outputs", [LOGITS[:0], [], [LOGITS[:0]], iter(())])
def test_nothing(outputs):
    with pytest.raises(ValueError, match="Received no predictions"):
        batches(outputs)


@pytest.mark.parametrize(
    "outputs",
    [None, 3, "logits.npy", np.float32(3), [[1.0, 2.0]], {}, {"logits": [1.0]}, {3: LOGITS}],
)
def test_something_else(outputs):
    with pytest.raises(TypeError, match=r"Expected an array \(examples, \.\.\.\).*store"):
        batches(outputs)


@pytest.mark.parametrize(
    "outputs", [np.array([["a"]]), np.array([[None]]), np.ones((2, 2), complex)]
)
def test_what_are_no_numbers(outputs):
    with pytest.raises(TypeError, match=r"Received 'logits' of type .*Expected numbers"):
        batches(outputs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "bool"])
def test_numbers_of_any_kind(dtype):
    (batch,) = batches([tf.cast(LOGITS, dtype)])
    assert batch.tensors["logits"].dtype == dtype


def test_lengths_within_a_batch():
    with pytest.raises(ValueError, match=r"different numbers of examples: \{'logits': 10, 'a': 9"):
        batches({"logits": LOGITS, "a": LOGITS[:9]})


@pytest.mark.parametrize(
    "second", [{"block": LOGITS}, (X, LOGITS), {"logits": LOGITS, "a": LOGITS}]
)
def test_batches_bring_the_same(second):
    with pytest.raises(ValueError, match=r"a batch of \[.*\] after one of \['logits'\]"):
        batches([LOGITS, second])


def test_examples_without_an_axis():
    with pytest.raises(TypeError, match="Received x with 3"):
        batches(LOGITS, x=[1, 2, 3][2])
