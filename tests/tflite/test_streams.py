import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import tflite
from keras_kd.tflite import microcontroller
from keras_kd.tflite.conversion.ends import equalize_states
from keras_kd.tflite.student import Signature

STEPS = np.random.default_rng(0).normal(size=(60, 1, 4)).astype("float32")
KINDS = {
    "LSTM": (lambda of: of.LSTM(6, stateful=True, name="memory"), ["memory_h", "memory_c"]),
    "GRU": (lambda of: of.GRU(6, stateful=True, name="memory"), ["memory_h"]),
    "SimpleRNN": (lambda of: of.SimpleRNN(6, stateful=True, name="memory"), ["memory_h"]),
    "stacked cells": (
        lambda of: of.RNN([of.LSTMCell(5), of.GRUCell(6)], stateful=True, name="memory"),
        ["memory_0", "memory_1", "memory_2"],
    ),
    "both directions": (
        lambda of: of.Bidirectional(of.LSTM(3, stateful=True, name="memory")),
        [f"{way}_memory_{state}" for way in ("forward", "backward") for state in "hc"],
    ),
}

QUICK = [("keras", "LSTM"), ("tf_keras", "GRU")]


def _student(library, kind, batch_size=1, length=1):
    library.utils.set_random_seed(0)
    return library.Sequential(
        [
            library.Input((length, 4), batch_size=batch_size),
            KINDS[kind][0](library.layers),
            library.layers.Dense(3, name="scores"),
        ]
    )


def _in_keras(student, steps=STEPS):
    """What the student itself gives for a stream, from zeros on; its states stay as they are."""
    states = [
        state
        for layer in student._flatten_layers()
        for state in tf.nest.flatten(getattr(layer, "states", None) or [])
        if hasattr(state, "assign")
    ]
    count = student.inputs[0].shape[0]
    before = [np.asarray(state).copy() for state in states]
    for state in states:
        state.assign(np.zeros(state.shape))
    outputs = [
        np.asarray(student(np.repeat(step[None], count, axis=0), training=False))[:1]
        for step in steps
    ]
    for state, value in zip(states, before, strict=True):
        state.assign(value)
    return np.concatenate(outputs)


@pytest.mark.parametrize(
    ("library", "kind"),
    [
        pytest.param(library, kind, marks=[] if (library, kind) in QUICK else pytest.mark.slow)
        for library in ("keras", "tf_keras")
        for kind in KINDS
    ],
)
def test_a_stream_is_that_of_keras(library, kind):
    student = _student(__import__(library), kind)
    expected = _in_keras(student)
    # The state matters.
    assert np.abs(expected - _in_keras(student, STEPS[::-1])[::-1]).max() > 0.05
    model = tflite.convert(student)
    assert sorted(model.state_outputs) == sorted(KINDS[kind][1])
    assert model.state_outputs[KINDS[kind][1][0]] == KINDS[kind][1][0] + "_next"
    assert not model.stateful
    assert "WHILE" not in model.operators
    np.testing.assert_allclose(model.predict_stream(STEPS), expected, atol=1e-6)
    # Converting has not touched the student.
    np.testing.assert_array_equal(_in_keras(student), expected)


@pytest.mark.parametrize("kind", ["LSTM", pytest.param("GRU", marks=pytest.mark.slow)])
def test_a_stream_in_integers_on_phones_and_microcontrollers(kind):
    student = _student(keras, kind)
    expected = _in_keras(student)
    models = {
        target: tflite.convert(student, "int8", STEPS, target)
        for target in ("android", "microcontroller")
    }
    streams = [model.predict_stream(STEPS) for model in models.values()]
    model = models["microcontroller"]
    assert model.state_outputs.keys() == set(KINDS[kind][1])
    if microcontroller.is_installed():
        streams.append(microcontroller.run(model, STEPS, stream=True).outputs["scores"])
    for outputs in streams:
        # Errors of 8 bits add up, but do not run away: one that lost its state is ten times worse.
        assert np.abs(outputs - expected).max() < 0.04
    # States that are left out are zeros.
    alone = model.predict(STEPS)["scores"]
    assert np.abs(alone - expected).max() > 0.2


def test_one_step_of_a_student_trained_on_batches_of_any_length():
    student = _student(keras, "GRU", batch_size=8, length=None)
    model = tflite.convert(student)
    assert {str(tensor) for tensor in model.inputs} == {
        "input float32[1, 1, 4]",
        "memory_h float32[1, 6]",
    }
    np.testing.assert_allclose(model.predict_stream(STEPS), _in_keras(student), atol=1e-6)


def test_several_steps_at_once():
    student = _student(keras, "LSTM", length=3)
    steps = STEPS.reshape(20, 3, 4)
    model = tflite.convert(student, target="microcontroller")
    expected = _in_keras(student, steps)
    np.testing.assert_allclose(model.predict_stream(steps), expected, atol=1e-6)


def test_states_are_named_where_a_file_is_shown():
    student = _student(keras, "LSTM")
    model = tflite.convert(student)
    assert ", states in and out: " in repr(model)
    assert "memory_h is memory_h_next of the call before" in str(model.inspect())
    assert model.inspect().to_dict()["next_states"]["memory_h"] == "memory_h_next"
    labels = np.zeros(60, int)
    verification = tflite.verify(model, student, STEPS, labels)
    assert verification.largest_difference < 1e-6
    assert verification.accuracy == verification.student_accuracy


def test_the_states_of_the_examples_are_those_of_the_stream():
    signature = Signature(_student(keras, "GRU"))
    examples = signature.examples(STEPS)
    assert examples["memory_h"].shape == (60, 6)
    np.testing.assert_array_equal(examples["memory_h"][0], 0)
    outputs = signature(examples)
    np.testing.assert_allclose(outputs["memory_h_next"][:-1], examples["memory_h"][1:], atol=1e-6)
    assert signature.examples(examples).keys() == examples.keys()


def test_states_go_in_as_they_come_out():
    model = tflite.convert(_student(keras, "LSTM"), "int8", STEPS, "microcontroller")
    ends = {tensor.name: tensor for tensor in (*model.inputs, *model.outputs)}
    for name in ("memory_h", "memory_c"):
        assert ends[name].scale == ends[f"{name}_next"].scale > 0
    assert model.flatbuffer.changed(equalize_states) is model.flatbuffer


@pytest.mark.parametrize(
    ("input_type", "output_type"), [("uint8", None), ("float32", "uint8"), ("int8", "float32")]
)
def test_a_state_has_the_type_of_the_outputs_at_both_ends(input_type, output_type):
    student = _student(keras, "GRU")
    model = tflite.convert(
        student,
        "int8",
        STEPS,
        "microcontroller",
        input_type=input_type,
        output_type=output_type,
        input_range=(-4, 4),
    )
    ends = {tensor.name: tensor for tensor in (*model.inputs, *model.outputs)}
    assert ends["input"].dtype == input_type
    assert ends["scores"].dtype == ends["memory_h"].dtype == (output_type or "int8")
    # The range of the input is not that of the state.
    assert ends["memory_h"].scale == ends["memory_h_next"].scale < 1.1 * 2 / 255
    assert ends["memory_h"].zero_point == ends["memory_h_next"].zero_point
    expected = _in_keras(student)
    streams = [model.predict_stream(STEPS)]
    if microcontroller.is_installed():
        streams.append(microcontroller.run(model, STEPS, stream=True).outputs["scores"])
    for outputs in streams:
        assert np.abs(outputs - expected).max() < 0.04


@pytest.mark.slow
def test_ranges_are_those_of_the_whole_stream():
    # More than the examples that a conversion draws where their order does not matter.
    steps = np.repeat(np.tile([1.0, -1.0], 10), 20).reshape(-1, 1, 1).astype("float32")
    mean = keras.layers.SimpleRNN(1, activation="linear", use_bias=False, stateful=True)
    student = keras.Sequential([keras.Input((1, 1), batch_size=1), mean])
    # A running mean, which has come two thirds of the way after 20 steps.
    student.set_weights([np.array([[0.05]]), np.array([[0.95]])])
    largest = np.abs(_in_keras(student, steps)).max()
    assert largest > 0.6
    [output] = [
        tensor
        for tensor in tflite.convert(student, "int8", steps, "microcontroller").outputs
        if not tensor.name.endswith("_next")
    ]
    assert output.dequantize(np.array([127], "int8"))[0] > 0.9 * largest


@pytest.mark.parametrize("target", ["android", "microcontroller"])
def test_an_output_that_is_a_state_is_an_output_of_its_own(target):
    steps = keras.Input((1, 4), batch_size=1, name="steps")
    memory = keras.layers.GRU(3, stateful=True, name="memory")(steps)
    student = keras.Model(steps, {"now": memory, "again": memory})
    for form, tolerance in (("float32", 1e-6), ("int8", 0.05)):
        model = tflite.convert(student, form, STEPS if form == "int8" else None, target)
        assert {tensor.name for tensor in model.outputs} == {"now", "again", "memory_h_next"}
        states = student.predict(STEPS, batch_size=1, verbose=0)["now"]
        for tensor in student.layers[-1].states:
            tensor.assign(np.zeros((1, 3)))
        streams = [model.predict_stream(STEPS)]
        if target == "microcontroller" and microcontroller.is_installed():
            streams.append(microcontroller.run(model, STEPS, stream=True).outputs)
        for outputs in streams:
            np.testing.assert_array_equal(outputs["now"], outputs["again"])
            np.testing.assert_allclose(outputs["now"], states, atol=tolerance)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_several_steps_of_a_stream_are_a_loop(kind):
    student = _student(keras, kind, length=3)
    with pytest.raises(ValueError, match=r"a loop over time.*unroll=True"):
        tflite.convert(student, "int8", STEPS.reshape(20, 3, 4))


def test_the_steps_of_a_stream_have_the_states_that_the_file_gives():
    model = tflite.convert(_student(keras, "GRU"), "int8", STEPS, "microcontroller")
    stored, given = model.quantize_steps(STEPS), model.quantize_inputs(STEPS)
    np.testing.assert_array_equal(stored["memory_h"][0], given["memory_h"][0])
    outputs = model.run_stored(stored, "builtin")
    np.testing.assert_array_equal(outputs["memory_h_next"][:-1], stored["memory_h"][1:])
    assert not np.array_equal(given["memory_h"], stored["memory_h"])
    if microcontroller.is_installed():
        assert microcontroller.check_agreement(model, STEPS).equal == 1
