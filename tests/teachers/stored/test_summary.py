import json

import numpy as np
import pytest

from keras_kd.teachers import StoredTeacher
from keras_kd.teachers.stored.summary import summarize

LOGITS = np.random.default_rng(0).normal(0, 3, (20, 100)).astype("float32")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.store"


def test_all_values_and_features(path):
    features = np.ones((20, 4, 3), "float32")
    StoredTeacher.from_outputs({"logits": LOGITS, "block": features}, path, x=LOGITS, name="forest")
    summary = summarize(path, verify=True)
    assert (summary.examples, summary.complete, summary.versions) == (20, True, 1)
    assert summary.bytes == path.stat().st_size
    assert summary.bytes_per_example == summary.bytes / 20
    logits, block = summary.outputs
    assert (logits.name, logits.shape, logits.dtype, logits.bytes) == (
        "logits",
        (100,),
        "float16",
        200,
    )
    assert (block.name, block.shape, block.bytes) == ("block", (4, 3), 24)
    text = str(summary)
    assert "outputs of the teacher 'forest' for 20 examples, complete" in text
    assert "identified by their position, and checked by a fingerprint" in text
    assert text.splitlines()[-1].split() == ["block", "[4,", "3]", "float16", "all", "24"]


def test_the_largest_with_keys(path):
    StoredTeacher.from_outputs(
        LOGITS, path, keys=np.arange(20), key="number", top_k=16, temperatures=(1, 4.5)
    )
    summary = summarize(path)
    (logits,) = summary.outputs
    assert (logits.top_k, logits.temperatures) == (16, (1.0, 4.5))
    # 16 classes of 7 bits, 15 differences and two remainders in float16.
    assert logits.bytes == 14 + 30 + 4
    assert "by the integer 'number', and not checked by a fingerprint" in str(summary)
    assert "the 16 largest, and the rest at temperature 1, 4.5" in str(summary)


def test_probabilities(path):
    StoredTeacher.from_outputs(np.full((3, 4), 0.25), path, activation="softmax")
    assert summarize(path).outputs[0].activation == "softmax"


def test_for_json(path):
    StoredTeacher.from_outputs(LOGITS, path)
    data = json.loads(json.dumps(summarize(path).to_dict()))
    assert data["path"] == str(path)
    assert data["bytes_per_example"] == data["bytes"] / 20
    assert data["outputs"][0]["shape"] == [100]


def test_an_interrupted_store(path):
    def broken():
        yield LOGITS[:5]
        raise InterruptedError

    with pytest.raises(InterruptedError):
        StoredTeacher.from_outputs(broken(), path)
    summary = summarize(path, verify=True)
    assert (summary.examples, summary.complete) == (5, False)
    assert "5 examples, interrupted there; storing it again resumes" in str(summary)


def test_damage(path):
    StoredTeacher.from_outputs(LOGITS, path)
    content = path.read_bytes()
    value = LOGITS[7].astype("<f2").tobytes()
    # SQLite leaves what it has moved where it was.
    path.write_bytes(content.replace(value, value[::-1]))
    assert summarize(path).examples == 20
    with pytest.raises(ValueError, match=r"t\.store', which is damaged: record 7 is not"):
        summarize(path, verify=True)


def test_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the file that StoredTeacher.create wrote"):
        summarize(tmp_path / "nowhere")
