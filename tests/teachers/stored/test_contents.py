"""What a store says of itself: it is checked, not believed."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_kd._logits import recognise_logits
from keras_kd.teachers.stored.codecs import Dense, TopK
from keras_kd.teachers.stored.contents import Contents, Description, StoredOutput

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], "float32")


def plain(name):
    return StoredOutput(Dense(name, (3,), "float32"))


ENSEMBLE = StoredOutput(
    Dense("logits", (2, 3), "float32"),
    "softmax",
    True,
    (0.25, 0.75),
    ((True, True, False), (True, True, True)),
)


@pytest.mark.parametrize(
    "contents",
    [
        Contents(plain("logits")),
        Contents([plain("a"), plain("b")], {"backbone/block3": Dense("backbone/block3", (4, 4))}),
        Contents((plain("a"), {"b": plain("b"), "c": [plain("c")]})),
        Contents(None, {"block": Dense("block", (7,), "uint8")}),
        Contents(StoredOutput(TopK("logits", (10,), 3, "float16", (1.0, 4.0)), "softmax", False)),
        Contents(ENSEMBLE),
    ],
)
def test_it_is_read_again_from_json(contents):
    again = Contents.from_json(json.loads(json.dumps(contents.to_json())))
    assert again.outputs == contents.outputs
    assert type(again.outputs) is type(contents.outputs)
    assert again.features == contents.features
    assert np.dtype(again.fields) == np.dtype(contents.fields)
    assert again.decoded == contents.decoded


def decoded(contents, tensors):
    records = np.zeros(2, np.dtype(contents.fields))
    for name, values in contents.encode(tensors).items():
        records[name] = values
    return contents.decode(records)


def test_outputs_in_their_structure():
    contents = Contents({"one": plain("a"), "other": [plain("b")]}, {"f": Dense("f", (3,))})
    rebuilt = contents.rebuilt(decoded(contents, {"a": LOGITS, "b": 2 * LOGITS, "f": 3 * LOGITS}))
    np.testing.assert_array_equal(rebuilt.outputs["one"], LOGITS)
    np.testing.assert_array_equal(rebuilt.outputs["other"][0], 2 * LOGITS)
    np.testing.assert_allclose(rebuilt.features["f"], 3 * LOGITS, rtol=1e-3)
    assert rebuilt.features["f"].dtype == "float32"
    shapes = contents.shapes()
    assert shapes.outputs["other"][0].shape == shapes.features["f"].shape == (None, 3)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_with_their_logits(activation):
    contents = Contents(StoredOutput(Dense("logits", (3,), "float32"), activation, False))
    output = contents.rebuilt(decoded(contents, {"logits": LOGITS})).outputs
    expected = getattr(keras.ops, activation)(LOGITS)
    np.testing.assert_allclose(output, expected, atol=1e-6)
    seen = recognise_logits(output)
    assert seen.activation == activation
    np.testing.assert_array_equal(seen.logits, LOGITS)


def test_members_at_any_temperature():
    contents = Contents(ENSEMBLE)
    members = np.stack([LOGITS, -LOGITS], axis=1)
    output = contents.rebuilt(decoded(contents, {"logits": members})).outputs
    seen = recognise_logits(output)
    np.testing.assert_array_equal(seen.members, np.moveaxis(members, 1, 0))
    first, second = (keras.ops.softmax(sign * LOGITS / 3.0) for sign in (1, -1))
    first = np.array(first)
    first[:, 2] = 0
    first /= first.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(
        keras.ops.softmax(seen.at(3.0, "softmax") / 3.0), 0.25 * first + 0.75 * second, atol=1e-6
    )
    np.testing.assert_allclose(output, seen.at(1.0, "softmax"))
    assert contents.shapes().outputs.shape == (None, 3)


def test_the_largest_logits():
    codec = TopK("logits", (3,), 2, "float32", (1.0,))
    contents = Contents(StoredOutput(codec, "softmax", False))
    for output in (
        contents.rebuilt(decoded(contents, {"logits": LOGITS})).outputs,
        contents.shapes().outputs,
    ):
        top = recognise_logits(output).top
        assert top.number_of_classes == 3
        assert list(top.rest) == [1.0]
        assert output.shape[1:] == (2,)


@pytest.mark.parametrize(
    "arguments",
    [(), (None, {}), ([plain("a"), plain("a")],), (plain("a"), {"x": Dense("a", (1,))})],
)
def test_names_are_needed_and_differ(arguments):
    with pytest.raises(ValueError, match=r"tensors of the names .* to store"):
        Contents(*arguments)


CONTENTS = Contents(StoredOutput(Dense("logits", (3,))))
AUGMENTED = Description(
    CONTENTS, "somebody", "ab", "string", "key", True, ("large",), versions=4, seed=3
)


@pytest.mark.parametrize("description", [Description(CONTENTS, "somebody"), AUGMENTED])
def test_a_description_is_read_again_from_json(description):
    config = json.loads(json.dumps(description.to_json()))
    again = Description.from_json(config)
    assert again.to_json() == description.to_json()
    assert again.dtype == description.dtype


def test_the_layout_of_a_record():
    assert Description(CONTENTS, "a").dtype == np.dtype([("logits:values", "<f2", (3,))])
    assert AUGMENTED.dtype.names == ("augmented", "logits:values")


def test_records_come_back_from_their_bytes():
    logits = np.arange(12, dtype="float32").reshape(4, 3)
    records = AUGMENTED.packed({"logits": logits}, np.array([0.5, np.nan, -1, 2]))
    again = AUGMENTED.unpacked([record.tobytes() for record in records])
    np.testing.assert_array_equal(again["augmented"], [0.5, np.nan, -1, 2])
    np.testing.assert_array_equal(again["logits:values"], logits)
    with pytest.raises(ValueError, match=r"a record of 9 bytes. Expected 10"):
        AUGMENTED.unpacked([b"x" * 10, b"x" * 9])


DENSE = AUGMENTED.to_json()["contents"]["outputs"]["output"]
SHAPES = [[0], [-1], [1.5], [True], ["3"], [2**31], [2**62] * 2, [10**4000], [1] * 100, [], "3"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape!r:.20}")
def test_shapes_that_no_record_can_have(shape):
    """The size of a record is known before memory is taken for it."""
    output = {**DENSE, "codec": {**DENSE["codec"], "shape": shape}}
    config = {**AUGMENTED.to_json(), "contents": {"outputs": {"output": output}, "features": {}}}
    if shape == []:
        assert Description.from_json(config).dtype["logits:values"].shape == ()
        return
    with pytest.raises(ValueError, match="a description that is not that of a stored teacher"):
        Description.from_json(config)


@pytest.mark.parametrize("config", [None, [], "text", 5, {}, {"teacher": 1}, [[[]]]])
def test_what_is_no_description(config):
    with pytest.raises(ValueError, match="a description that is not that of a stored teacher"):
        Description.from_json(config)


def test_outputs_within_outputs_without_an_end():
    outputs = DENSE
    for _ in range(900):
        outputs = {"list": [outputs]}
    config = {**AUGMENTED.to_json(), "contents": {"outputs": outputs, "features": {}}}
    with pytest.raises(ValueError, match="a description that is not that of a stored teacher"):
        Description.from_json(config)


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
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
    with pytest.raises(ValueError, match="a description that is not that of a stored teacher"):
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
        with pytest.raises(ValueError, match="a description that is not that of a stored teacher"):
            Description.from_json(config)
