"""What comes in batches is written once, in its order."""

import numpy as np
import pytest

from keras_kd.teachers.stored.codecs import Dense
from keras_kd.teachers.stored.contents import Contents, Description, StoredOutput
from keras_kd.teachers.stored.database import Records
from keras_kd.teachers.stored.sink import Sink

X = np.arange(40.0, dtype="float32").reshape(10, 4)
LOGITS = 2 * X[:, :3]


def description(**options):
    contents = Contents(StoredOutput(Dense("logits", (3,), "float32")))
    return Description(contents, "somebody", **options)


def fill(path, about, batches, x=X, keys=None, total=None, finish=True):
    """Write the examples in these batches; return which batches were skipped."""
    skipped = []
    with Sink(path, about, total) as sink:
        for part in batches:
            own = None if keys is None else keys[part]
            skipped.append(sink.skip(len(X[part]), x[part], own))
            if not skipped[-1]:
                sink.add({"logits": LOGITS[part]}, x[part], own)
        if finish:
            sink.finish()
    return skipped


def batches(size, end=10):
    return [slice(first, min(first + size, end)) for first in range(0, end, size)]


def logits_in(path):
    return records_in(path)["logits:values"]


def records_in(path):
    store = Records(path)
    about = Description.from_json(store.description)
    return about.unpacked(store.read(np.arange(store.count)).outputs)


def test_all_is_written_in_order(tmp_path):
    fill(tmp_path / "s", description(), batches(3), total=10)
    np.testing.assert_array_equal(logits_in(tmp_path / "s"), LOGITS)
    assert Records(tmp_path / "s").complete


def test_what_is_there_is_skipped(tmp_path):
    fill(tmp_path / "s", description(), batches(3, end=6), finish=False)
    assert not Records(tmp_path / "s").complete
    # 6 are there: a batch of 4, and half of the next.
    assert fill(tmp_path / "s", description(), batches(4)) == [True, False, False]
    np.testing.assert_array_equal(logits_in(tmp_path / "s"), LOGITS)
    assert fill(tmp_path / "s", description(), batches(4)) == [True, True, True]


def test_versions_of_an_example_follow_each_other(tmp_path):
    about = description(seed=0, versions=2)
    with Sink(tmp_path / "s", about) as sink:
        doubled = np.repeat(LOGITS[:4], 2, axis=0) * np.tile([[1], [-1]], (4, 1))
        sink.add({"logits": doubled}, X[:4], augmented=np.arange(8))
        assert sink.position == 4
        sink.finish()
    np.testing.assert_array_equal(logits_in(tmp_path / "s"), doubled)
    np.testing.assert_array_equal(records_in(tmp_path / "s")["augmented"], np.arange(8))
    marks = Records(tmp_path / "s").read(np.arange(8)).fingerprints
    np.testing.assert_array_equal(marks[::2], marks[1::2])
    assert len(set(marks[::2])) == 4


def test_other_examples_are_refused(tmp_path):
    fill(tmp_path / "s", description(), batches(3, end=6), finish=False)
    with pytest.raises(ValueError, match=r"the example number 1, which is not the one that"):
        fill(tmp_path / "s", description(), batches(3), x=np.where(X == 5, 0, X))
    # In a batch of which not all are there.
    with pytest.raises(ValueError, match=r"the example number 5, which is not the one that"):
        fill(tmp_path / "s", description(), batches(10), x=np.where(X == 21, 0, X))
    keys = np.array([f"key{number}" for number in range(10)])
    about = description(key_kind="string", key_name="key", has_fingerprints=False)
    fill(tmp_path / "k", about, batches(3, end=6), keys=keys, finish=False)
    with pytest.raises(ValueError, match=r"the example number 0 with the key 'key9', which is not"):
        fill(tmp_path / "k", about, batches(3), keys=keys[::-1])
    fill(tmp_path / "k", about, batches(3), keys=keys)


def test_keys_come_once(tmp_path):
    about = description(key_kind="integer", key_name="key")
    keys = np.array([5, 6, 7, 8, 9, 10, 11, 6, 12, 13])
    message = r"the key 6 a second time, at the example number 7"
    with pytest.raises(ValueError, match=message):
        fill(tmp_path / "s", about, batches(4), keys=keys)
    assert Records(tmp_path / "s").count == 4
    # Also where the first was written before.
    with pytest.raises(ValueError, match=message):
        fill(tmp_path / "s", about, batches(4), keys=keys)


def test_without_anything_to_compare(tmp_path):
    about = description(has_fingerprints=False)
    with Sink(tmp_path / "s", about) as sink:
        sink.add({"logits": LOGITS[:5]})
    with Sink(tmp_path / "s", about) as sink:
        assert sink.skip(5)
        sink.add({"logits": LOGITS[5:]})
        sink.finish()
    np.testing.assert_array_equal(logits_in(tmp_path / "s"), LOGITS)


def test_the_number_of_examples_has_to_fit(tmp_path):
    fill(tmp_path / "s", description(), batches(5))
    with pytest.raises(ValueError, match=r"12 examples for the store .*, which has 10"):
        fill(tmp_path / "s", description(), batches(5), total=12)
    with pytest.raises(ValueError, match=r"5 examples for the store .*, which has 10"):
        fill(tmp_path / "s", description(), batches(5, end=5))
    with Sink(tmp_path / "s", description()) as sink:
        assert sink.complete
        assert sink.skip(10, X)
        with pytest.raises(ValueError, match=r"more than 10 examples .*, which is complete"):
            sink.add({"logits": LOGITS}, X)


def test_values_that_cannot_be_stored_are_named(tmp_path):
    with Sink(tmp_path / "s", description()) as sink:
        sink.add({"logits": LOGITS[:4]}, X[:4])
        wrong = np.where(LOGITS[4:] == LOGITS[7, 1], np.nan, LOGITS[4:])
        with pytest.raises(ValueError, match=r"NaN or infinite values in 'logits' of example 7"):
            sink.add({"logits": wrong}, X[4:])
    assert Records(tmp_path / "s").count == 4


def test_another_description_is_refused(tmp_path):
    fill(tmp_path / "s", description(digest="ab"), batches(3, end=6), finish=False)
    with pytest.raises(ValueError, match=r"the teacher's weights: cd, .*begun with ab"):
        fill(tmp_path / "s", description(digest="cd"), batches(3))
    with (
        Sink(tmp_path / "s", description(digest="ab")),
        pytest.raises(OSError, match=r"s'"),
        Sink(tmp_path / "s", description(digest="ab")),
    ):
        pass


def test_a_complete_store_is_only_read_by_any_number_at_once(tmp_path, monkeypatch):
    path = tmp_path / "s"
    fill(path, description(), batches(5))
    before = path.stat().st_mtime_ns

    def refused(*arguments, **options):
        pytest.fail("a writer for a complete store")

    monkeypatch.setattr("keras_kd.teachers.stored.sink.RecordWriter", refused)
    with Sink(path, description(), total=10) as one, Sink(path, description()) as other:
        assert one.complete
        assert other.complete
        assert one.examples_there == other.examples_there == 10
    assert fill(path, description(), batches(4), total=10) == [True] * 3
    with pytest.raises(ValueError, match="fingerprints of x: no"):
        fill(path, description(has_fingerprints=False), batches(5))
    assert before == path.stat().st_mtime_ns
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
