import json
import os
import re
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_kd import cli, tflite
from keras_kd.tflite import android
from keras_kd.tflite.android.vocabulary import SEPARATOR, from_bytes, to_bytes

layers = keras.layers
LENGTH = 7
WORDS = ["", "[UNK]", "good", "bad", "film", "isn't", "été", "plot"]
NAMES = ["praise", "blame", "neither"]
TEXTS = [
    "Good film!",
    "a BAD, bad plot; isn't it?",
    "",
    "good good good good good good bad bad bad",
    "unheard of words",
    "film\nplot  film",
]


def numbers(text, separator=SEPARATOR):
    """The rule that the documentation gives to apps."""
    words = [word for word in re.split(separator, text.lower()) if word]
    found = [WORDS.index(word) if word in WORDS[2:] else 1 for word in words][:LENGTH]
    return found + [0] * (LENGTH - len(found))


def student(length=LENGTH, activation="softmax", words=8):
    keras.utils.set_random_seed(0)
    given = keras.Input((length,), dtype="int32", name="words")
    x = layers.Embedding(words, 16)(given)
    x = layers.Dense(16, "tanh")(layers.GlobalAveragePooling1D()(4.0 * x))
    model = keras.Model(given, layers.Dense(3, activation, name="scores")(x))
    model.set_weights([3 * weight for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def classifier():
    return tflite.convert(student())


@pytest.fixture(scope="module")
def described(classifier):
    metadata = android.Metadata(NAMES, name="Films", vocabulary=WORDS)
    return android.add_metadata(classifier, metadata)


def test_words_and_class_names_are_in_the_file(described, classifier):
    metadata = android.read_metadata(described)
    assert metadata.class_names == tuple(NAMES)
    assert metadata.vocabulary == ("<PAD>", "<UNKNOWN>", *WORDS[2:])
    assert metadata.word_separator == SEPARATOR
    given = np.array([numbers(text) for text in TEXTS], np.int32)
    np.testing.assert_array_equal(described.predict(given), classifier.predict(given))


def test_a_vocabulary_may_have_numbers():
    words = ("<PAD>", "<UNKNOWN>", "a", "b")
    assert from_bytes(to_bytes(words)) == words
    assert from_bytes(b"b 3\n<PAD> 0\na 2\n[UNK] 1\n") == words
    assert from_bytes(b"\r\n[UNK]\r\na\r\nb") == words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b"], r"without <PAD> and <UNKNOWN>.*get_vocabulary\(\)"),
        (["", "[UNK]", "a", "a"], r"'a' of the numbers 2 and 3"),
        (["", "[UNK]", "a b"], r"'a b' of number 2.*single words"),
        (["", "[UNK]", "<PAD>"], r"'<PAD>' of the numbers 0 and 2"),
    ],
)
def test_what_cannot_be_looked_up_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        android.Metadata(NAMES, vocabulary=words)


@pytest.mark.parametrize("separator", ["[", "a*"])
def test_a_separator_that_separates_nothing(separator):
    with pytest.raises(ValueError, match=r"word_separator=.*pass for example"):
        android.Metadata(NAMES, vocabulary=WORDS, word_separator=separator)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: student(length=None), r"a fixed length.*keras.Input\(\(64,\), dtype='int32'\)"),
        (lambda: student(words=5), r"8 words for a model without a number for the last"),
        (lambda: student(activation=None), r"with_softmax\(student\)"),
    ],
)
def test_models_that_mediapipe_would_not_run(model, message):
    metadata = android.Metadata(NAMES, vocabulary=WORDS)
    with pytest.raises(ValueError, match=message):
        android.add_metadata(tflite.convert(model()), metadata)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    student().save("text.keras")
    Path("labels.txt").write_text("\n".join(NAMES))
    Path("vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    words = ["convert", "text.keras", "--class-names", "labels.txt", "--vocabulary", "vocab.txt"]
    assert cli.main(words) == 0, capsys.readouterr().err
    written = android.read_metadata(tflite.TFLiteModel.load("text.tflite"))
    assert written.vocabulary[2:] == tuple(WORDS[2:])
    assert cli.main(words[:2] + words[4:]) == 2
    assert "add --class-names labels.txt" in capsys.readouterr().err


SCRIPT = """
import json, sys
from mediapipe.tasks.python.core.base_options import BaseOptions
from mediapipe.tasks.python.text import TextClassifier, TextClassifierOptions
options = TextClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
with TextClassifier.create_from_options(options) as classifier:
    found = []
    for text in json.loads(sys.stdin.read()):
        [head] = classifier.classify(text).classifications
        found.append({category.category_name: category.score for category in head.categories})
print(json.dumps(found))
"""


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_mediapipe_gives_the_scores_of_litert(form, described, tmp_path):
    python = os.environ.get("KERAS_KD_MEDIAPIPE_PYTHON", ".venv-mediapipe/bin/python")
    python = Path(__file__).parents[3] / python
    if not python.exists():
        pytest.skip("needs MediaPipe: make test-android")
    given = np.array([numbers(text) for text in TEXTS], np.int32)
    if form == "int8":
        model = tflite.convert(student(), "int8", given)
        described = android.add_metadata(model, android.Metadata(NAMES, vocabulary=WORDS))
    path = described.save(tmp_path / "text.tflite")
    done = subprocess.run(
        [python, "-c", SCRIPT, path],
        # It looks words up as they are written.
        input=json.dumps([text.lower() for text in TEXTS]),
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    expected = described.predict(given)
    assert np.ptp(expected, axis=0).max() > 0.3
    for scores, row in zip(found, expected, strict=True):
        assert [scores[name] for name in NAMES] == pytest.approx(row.tolist(), abs=1e-5)


def test_the_page(tmp_path, monkeypatch):
    """Its first block of Python runs, and its Kotlin names what is in the file."""
    page = (Path(__file__).parents[3] / "docs" / "text.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    sentences = ["a good film", "a bad plot", "good plot", "bad film"] * 10
    exec(block, {"np": np, "sentences": sentences, "labels": np.array([0, 1, 0, 1] * 10)})
    model = tflite.TFLiteModel.load("films.tflite")
    assert android.read_metadata(model).class_names == ("praise", "blame")
    assert [tensor.name for tensor in (*model.inputs, *model.outputs)] == ["words", "scores"]
    assert f'Regex("""{SEPARATOR}""")' in page
    assert f"LENGTH = {model.inputs[0].shape[1]}\n" in page
    for name in ("words", "scores"):
        assert f'Buffer("{name}")' in page
    words = from_bytes(to_bytes(android.read_metadata(model).vocabulary))
    assert set(re.findall(r"<[A-Z]+>", page)) == {"<PAD>", "<UNKNOWN>"} <= set(words)
