import argparse
import errno
import os
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_kd import cli, tflite
from keras_kd.cli import benchmark, inspect
from keras_kd.cli.failures import in_options, message_of


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A model of ten words, examples with one that it does not know, and labels."""
    directory = tmp_path_factory.mktemp("words")
    layers = [
        keras.Input((4,), dtype="int32", name="words"),
        keras.layers.Embedding(10, 3),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(2, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.save(directory / "words.keras")
    model.export(directory / "exported", verbose=False)
    tflite.convert(model).save(directory / "words.tflite")
    known = np.random.default_rng(0).integers(0, 10, (40, 4)).astype("int32")
    np.save(directory / "known.npy", known)
    np.save(directory / "labels.npy", np.zeros(40, int))
    known[33, 2] = 99
    np.save(directory / "unknown.npy", known)
    return directory


STORE = "store {words}/words.keras --data {words}/unknown.npy --output t.store"
REPORT = "report {words}/words.keras --data {words}/unknown.npy --labels {words}/labels.npy"
VERIFY = "verify {words}/words.tflite --against {words}/words.keras --data {words}/unknown.npy"
CONVERT = "convert {words}/words.keras --verification-data {words}/unknown.npy --output x.tflite"


@pytest.mark.parametrize(
    "command",
    [
        STORE,
        REPORT,
        VERIFY,
        CONVERT,
        STORE.replace("words.keras", "exported"),
        REPORT.replace("words.keras", "exported"),
    ],
)
def test_a_word_outside_the_vocabulary(words, folder, command, capfd):
    assert cli.main(command.format(words=words).split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("keras-kd: error: ")
    assert "99" in line
    assert len(line) < 1000
    assert "words or categories from 0 to 9" in line
    assert "unknown.npy" in line


def test_known_words_pass(words, folder):
    command = STORE.replace("unknown", "known").format(words=words)
    assert cli.main(command.split()) == 0


def raising(monkeypatch, error, command=inspect, name="_inspect_file"):
    def fail(*_):
        raise error

    monkeypatch.setattr(command, name, fail)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no\nsuch kernel"),
        KeyError("layers"),
        IndexError("list index out of range"),
        AttributeError("'NoneType' object has no attribute 'shape'"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        RecursionError("maximum recursion depth exceeded"),
        NotImplementedError(),
        ZeroDivisionError("division by zero"),
        AssertionError(),
        StopIteration(),
        EOFError(),
        MemoryError(),
        OSError("something with a disk"),
        OverflowError("too large"),
        ArithmeticError("x"),
        Exception("anything"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_is_one_line_that_names_the_file(monkeypatch, folder, capfd, error):
    Path("model.tflite").touch()
    raising(monkeypatch, error)
    assert cli.main(["inspect", "model.tflite"]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("keras-kd: error: ")
    if not isinstance(error, ValueError):
        assert "Received 'model.tflite', " in err
        assert "Expected" in err
        assert "To fix it" in err


def test_a_traceback_is_shown_to_who_asks_for_it(monkeypatch, folder, capfd):
    raising(monkeypatch, KeyError("layers"))
    cli.main(["inspect", "model.tflite"])
    assert "KERAS_KD_DEBUG=1" in capfd.readouterr().err
    monkeypatch.setenv("KERAS_KD_DEBUG", "1")
    cli.main(["inspect", "model.tflite"])
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert "in fail" in err


def arguments(**values):
    return argparse.Namespace(**values)


def test_a_full_disk_names_what_was_written():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "new/x.keras")
    assert "a disk that is full while 'new/x.keras' was written" in message_of(error, None)
    given = arguments(output=Path("results"), model="m.keras")
    for error in (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("Unable to write (error message = 'No space left on device')"),
    ):
        line = message_of(error, given)
        assert "full while 'results' was written" in line
        assert "free space" in line
    outer = RuntimeError("cannot convert")
    outer.__cause__ = OSError(errno.ENOSPC, "full", "/tmp/x")
    assert "'/tmp/x'" in message_of(outer, given)
    refused = ValueError(
        "Received a student, which the converter refuses. Expected x. To fix it: y."
    )
    refused.__cause__ = OSError(errno.ENOSPC, "full", "/tmp/x")
    assert "a disk that is full while '/tmp/x' was written" in message_of(refused, given)


def test_a_message_of_this_package_stays():
    message = "Received a. Expected b. To fix it: free space."
    assert message_of(OSError(errno.ENOSPC, message), None).endswith(message)
    assert message_of(KeyError(message), None) == repr(message)


def test_tensorflow_says_where_it_came_up_and_that_is_left_out():
    import tensorflow as tf

    text = (
        "Graph execution error:\n\nDetected at node model/cut defined at (most recent call last):\n"
        '  File "/usr/lib/x.py", line 3, in y\n<stack traces unavailable>\n'
        "Expected begin[0] in [0, 3], but got 7\n\t [[{{node model/cut}}]] [Op:__inference_f_12]"
    )
    given = arguments(model=Path(__file__), data=None, output="x")
    line = message_of(tf.errors.InvalidArgumentError(None, None, text), given)
    assert "(InvalidArgumentError: Expected begin[0] in [0, 3], but got 7)" in line
    assert repr(__file__) in line


def test_several_files_are_named(tmp_path):
    files = [tmp_path / f"{number}.tflite" for number in range(6)]
    for file in files:
        file.touch()
    line = message_of(KeyError("x"), arguments(files=files, run=benchmark._run))
    assert all(repr(str(file)) in line for file in files[:4])
    assert "and others, on which this command fails (KeyError: 'x')" in line


def test_a_package_that_was_left_out_is_named():
    line = message_of(ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow"), None)
    assert "without 'tensorflow'" in line
    assert "pip install keras-kd" in line


def parsed(*words):
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
    assert in_options(message, parsed("convert", "model.keras")) == expected


def test_other_commands_have_other_options():
    given = parsed("benchmark", "a.tflite")
    assert in_options("runs=0, target='web'", given) == "--runs 0, target='web'"
    given = parsed("store", "a.keras", "--output", "b")
    assert in_options("temperatures=(0,)", given) == "--temperature 0"
    given = parsed("fit", "a.keras", "--data", "a", "--validation", "b", "--output", "c")
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


def words_of(*given):
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
    assert cli.main(words_of("convert", logits, *given)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert cli.main(words_of("convert", logits, *given, *added)) == 0, capsys.readouterr().err


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
