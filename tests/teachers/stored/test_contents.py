"""What is stored becomes what the teacher said, in its own structure."""

import json

import keras
import numpy as np
import pytest

from keras_kd._logits import recognise_logits
from keras_kd.teachers.stored.codecs import Dense, TopK
from keras_kd.teachers.stored.contents import Contents, StoredOutput

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
    said = contents.said(decoded(contents, {"a": LOGITS, "b": 2 * LOGITS, "f": 3 * LOGITS}))
    np.testing.assert_array_equal(said.outputs["one"], LOGITS)
    np.testing.assert_array_equal(said.outputs["other"][0], 2 * LOGITS)
    np.testing.assert_allclose(said.features["f"], 3 * LOGITS, rtol=1e-3)
    assert said.features["f"].dtype == "float32"
    shapes = contents.shapes()
    assert shapes.outputs["other"][0].shape == shapes.features["f"].shape == (None, 3)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_with_their_logits(activation):
    contents = Contents(StoredOutput(Dense("logits", (3,), "float32"), activation, False))
    output = contents.said(decoded(contents, {"logits": LOGITS})).outputs
    expected = getattr(keras.ops, activation)(LOGITS)
    np.testing.assert_allclose(output, expected, atol=1e-6)
    seen = recognise_logits(output)
    assert seen.activation == activation
    np.testing.assert_array_equal(seen.logits, LOGITS)


def test_members_at_any_temperature():
    contents = Contents(ENSEMBLE)
    members = np.stack([LOGITS, -LOGITS], axis=1)
    output = contents.said(decoded(contents, {"logits": members})).outputs
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
        contents.said(decoded(contents, {"logits": LOGITS})).outputs,
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
