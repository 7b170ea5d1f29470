"""Errors and warnings of commands name options, and following them works."""

import argparse

import keras
import numpy as np
import pytest

from keras_kd import cli
from keras_kd.cli.failures import in_options


def arguments(*words):
    from keras_kd.cli.program import parser

    return parser().parse_args(words)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("quantization='int8' for target='web'", "--quantization int8 for --target web"),
        ("pass representative_data=x_train[:500]", "pass --representative-data x_train.npy"),
        ("add --representative-data x_train.npy, or", "add --representative-data x_train.npy, or"),
        ("input_range=(0, 1)", "--input-range 0 1"),
        ("per_tensor=True", "--per-tensor all"),
        ("per_tensor='dense' says; leave per_tensor out", "--per-tensor dense says; leave "
         "--per-tensor out"),
        ("y without verification_data", "y without --verification-data"),
        ("verification_data=x_test, y=y_test", "--verification-data x_test.npy, "
         "--verification-labels y_test.npy"),
        ("convert keras_kd.tflite.android.with_softmax(student), or end it in a Softmax",
         "add --softmax, or end it in a Softmax"),
        ("pass keras_kd.compression.to_tf_keras(student), whose Embedding needs none",
         "convert keras_kd.compression.to_tf_keras(student) in Python, with "
         "keras_kd.tflite.convert, whose Embedding needs none"),
        ('pass name="digits of a meter"', 'pass --name "digits of a meter"'),
        ("leave name out, or leave out target", "leave --name out, or leave out --target"),
        ("the file 'my_input_range.npy'", "the file 'my_input_range.npy'"),
    ],
)  # fmt: skip
def test_pythons_words_become_options(message, expected):
    assert in_options(message, arguments("convert", "model.keras")) == expected


def test_other_commands_have_other_options():
    given = arguments("benchmark", "a.tflite")
    assert in_options("runs=0, target='web'", given) == "--runs 0, target='web'"
    given = arguments("store", "a.keras", "--output", "b")
    assert in_options("temperatures=(0,)", given) == "--temperature 0"
    given = arguments("fit", "a.keras", "--data", "a", "--validation", "b", "--output", "c")
    limits = 'pass flash="64 KB", ram="32 KB"'
    assert in_options(limits, given) == 'pass --flash "64 KB", --ram "32 KB"'
    assert in_options("pass student=build, a function of keras_tuner.HyperParameters", given) == (
        "in Python, call keras_kd.fit_to_device with student=build, a function of "
        "keras_tuner.HyperParameters that returns a model"
    )
    assert in_options("pass keras.Model(teacher.inputs, teacher.outputs[0])", given) == (
        "save keras.Model(teacher.inputs, teacher.outputs[0]) in Python and pass its file"
    )
    assert in_options("runs=0", None) == in_options("runs=0", argparse.Namespace()) == "runs=0"


def words(*given):
    return [str(word) for word in given]


@pytest.fixture
def logits(folder):
    """A model of logits, and examples for it."""
    inputs = keras.Input((6, 6, 3), name="image")
    scores = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, scores).save("logits.keras")
    np.save("x_train.npy", np.random.default_rng(0).random((30, 6, 6, 3), np.float32))
    (folder / "labels.txt").write_text("one\ntwo\nthree\n")
    return "logits.keras"


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    ("given", "message", "added"),
    [
        (["--quantization", "int8"], "add --representative-data x_train.npy",
         ["--representative-data", "x_train.npy"]),
        (["--class-names", "labels.txt"], "add --softmax", ["--softmax"]),
        (["--per-tensor"], "choose --quantization int8",
         ["--quantization", "int8", "--representative-data", "x_train.npy"]),
        (["--target", "microcontroller", "--quantization", "dynamic_int8"],
         "choose --quantization int8",
         ["--quantization", "int8", "--representative-data", "x_train.npy"]),
    ],
)  # fmt: skip
def test_advice_works(given, message, added, logits, capsys):
    assert cli.main(words("convert", logits, *given)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert cli.main(words("convert", logits, *given, *added)) == 0, capsys.readouterr().err


def test_weights_alone_get_a_model(models, folder, capsys):
    model = keras.models.load_model(models / "model.keras")
    model.save_weights("only.weights.h5")
    assert cli.main(["convert", "only.weights.h5"]) == 2
    error = capsys.readouterr().err
    assert "build the model in code, call model.load_weights('only.weights.h5'), then" in error
    assert "tf_keras" not in error
    model.load_weights("only.weights.h5")
    model.save("model.keras")
    assert cli.main(["convert", "model.keras"]) == 0
