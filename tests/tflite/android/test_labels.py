import codecs

import numpy as np
import pytest

from keras_kd.tflite import android
from keras_kd.tflite.android.labels import check_labels

# The family emoji is made of people and of characters that join them; Persian needs one as well.
WORDS = (
    "straße",
    "苹果",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "a b",
)


def test_labels_are_kept_as_they_are():
    assert check_labels(list(WORDS)) == WORDS


def test_labels_that_occur_twice_are_read_and_warned_of_when_written(tmp_path, color_model):
    """ImageNet's cranes: a bird and a machine."""
    path = tmp_path / "labels.txt"
    path.write_text("crane\nheron\ncrane\n")
    labels = android.read_labels(path)
    assert labels == ("crane", "heron", "crane")
    metadata = android.Metadata(labels)
    with pytest.warns(UserWarning, match=r"'crane' of the classes 0 and 2.*'crane \(2\)'"):
        model = android.add_metadata(color_model, metadata)
    assert android.read_metadata(model) == metadata


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(WORDS).encode(),
        ("\n".join(WORDS) + "\n\n").encode(),
        ("\r\n".join(WORDS) + "\r\n").encode(),
        codecs.BOM_UTF8 + " \t\n".join(WORDS).encode(),
    ],
    ids=["plain", "empty lines at the end", "Windows", "mark and spaces"],
)
def test_files_of_several_editors(tmp_path, content):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    assert android.read_labels(path) == WORDS
    assert android.read_labels(str(path)) == WORDS


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ("cat", TypeError, "labels of type str.*list of class names"),
        (np.array(["a"]), TypeError, "labels of type ndarray"),
        ([], ValueError, "no labels"),
        (["a", 1], TypeError, "label 1 of class 1.*pass '1'"),
        (["a", ""], ValueError, "label '' of class 1"),
        (["a", " b"], ValueError, "label ' b' of class 1"),
        (["a\nb"], ValueError, r"label 'a\\nb' of class 0.*on one line"),
        (["a\x1b[31m"], ValueError, "control characters"),
        (["a\ud800"], ValueError, "control characters"),
    ],
)
def test_what_cannot_be_labels(labels, error, message):
    with pytest.raises(error, match=message):
        check_labels(labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "label '' of class 0"),
        (b"a\n\nb\n", "label '' of class 1"),
        (b"cat\n\xff\xfe", r"not UTF-8 \(byte 4\)"),
        ("Katze\nHünd".encode("utf-16"), "not UTF-8"),
        (b"a\x00\nb", "control characters"),
        (b"a\n" * 2_500_000, "5000000 bytes.*at most"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        android.read_labels(path)
    assert "labels.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    for path in (tmp_path / "labels.txt", tmp_path):
        with pytest.raises(FileNotFoundError, match="with a label on each line"):
            android.read_labels(path)
