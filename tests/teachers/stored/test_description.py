"""What a store says of itself is checked, not believed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from keras_kd.teachers.stored.codecs import Dense, TopK
from keras_kd.teachers.stored.contents import Contents, StoredOutput
from keras_kd.teachers.stored.description import Description

CONTENTS = Contents(StoredOutput(Dense("logits", (3,))))
AUGMENTED = Description(
    CONTENTS, "somebody", "ab", "string", "key", True, ("large",), versions=4, seed=3
)


@pytest.mark.parametrize("description", [Description(CONTENTS, "somebody"), AUGMENTED])
def test_it_is_read_again_from_json(description):
    config = json.loads(json.dumps(description.to_json()))
    again = Description.from_json(config)
    assert again.to_json() == description.to_json()
    assert again.dtype == description.dtype


def test_the_layout_of_a_record():
    assert Description(CONTENTS, "a").dtype.names == ("fingerprint", "logits:values")
    bare = Description(CONTENTS, "a", has_fingerprints=False)
    assert bare.dtype == np.dtype([("logits:values", "<f2", (3,))])
    assert AUGMENTED.dtype.names == ("key", "fingerprint", "augmented", "logits:values")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"versions": 0},
        {"versions": 2.0},
        {"versions": True},
        {"seed": None},
        {"seed": "3"},
        {"key_kind": "float"},
        {"contents": None},
        {"contents": {"outputs": None, "features": {}}},
        {"contents": {"outputs": {"set": []}, "features": {}}},
        {"contents": {"outputs": {"list": [], "dict": {}}, "features": {}}},
        {"contents": {"outputs": {"output": {}}, "features": {}}},
        {"teacher_inputs": 3},
    ],
)
def test_other_entries_are_refused(change):
    with pytest.raises(ValueError, match="does not describe a stored teacher"):
        Description.from_json({**AUGMENTED.to_json(), **change})


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"teacher": "another"}, ("the teacher", "another", "somebody")),
        ({"digest": None}, ("the teacher's weights", "unknown", "ab")),
        ({"key_name": "id"}, ("the key", "string 'id'", "string 'key'")),
        ({"key_kind": "position"}, ("the key", "position", "string 'key'")),
        ({"has_fingerprints": False}, ("fingerprints of x", "no", "yes")),
        ({"teacher_inputs": None}, ("teacher_inputs", "None", "('large',)")),
        ({"versions": 2}, ("augmentation", "2 versions from seed 3", "4 versions from seed 3")),
        ({"versions": 1, "seed": None}, ("augmentation", "none", "4 versions from seed 3")),
        (
            {"contents": Contents(StoredOutput(TopK("logits", (3,), 2)))},
            (
                "what is stored",
                "logits [3] as float16, top_k=2, temperatures=[4.0]",
                "logits [3] as float16",
            ),
        ),
        (
            {"contents": Contents(StoredOutput(Dense("logits", (3,)), "softmax"))},
            ("how the teacher ends", "softmax", "logits"),
        ),
    ],
)
def test_a_difference_is_told_in_words(change, difference):
    assert replace(AUGMENTED, **change).difference(AUGMENTED) == difference
    assert AUGMENTED.difference(AUGMENTED) is None


def test_missing_entries_are_refused():
    for name in AUGMENTED.to_json():
        config = AUGMENTED.to_json()
        del config[name]
        with pytest.raises(ValueError, match="does not describe a stored teacher"):
            Description.from_json(config)
