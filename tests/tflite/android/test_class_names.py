import codecs

import numpy as np
import pytest

from keras_kd.tflite import android
from keras_kd.tflite.android.class_names import check_class_names

# The family emoji is made of people and of characters that join them; Persian needs one as well.
WORDS = (
    "straße",
    "苹果",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "a b",
)


def test_names_are_kept_as_they_are():
    assert check_class_names(list(WORDS)) == WORDS


def test_names_that_occur_twice_are_read_and_warned_of_when_written(tmp_path, color_model):
    """ImageNet's cranes: a bird and a machine."""
    path = tmp_path / "labels.txt"
    path.write_text("crane\nheron\ncrane\n")
    names = android.read_class_names(path)
    assert names == ("crane", "heron", "crane")
    metadata = android.Metadata(names)
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
    assert android.read_class_names(path) == WORDS
    assert android.read_class_names(str(path)) == WORDS


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("cat", TypeError, "class_names of type str.*list of text"),
        (np.array(["a"]), TypeError, "class_names of type ndarray"),
        ([], ValueError, "no class names"),
        (["a", 1], TypeError, "name 1 of class 1.*pass '1'"),
        (["a", ""], ValueError, "name '' of class 1"),
        (["a", " b"], ValueError, "name ' b' of class 1"),
        (["a\nb"], ValueError, r"name 'a\\nb' of class 0.*on one line"),
        (["a\x1b[31m"], ValueError, "control characters"),
        (["a\ud800"], ValueError, "control characters"),
    ],
)
def test_what_cannot_be_names(names, error, message):
    with pytest.raises(error, match=message):
        check_class_names(names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "name '' of class 0"),
        (b"a\n\nb\n", "name '' of class 1"),
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
        android.read_class_names(path)
    assert "labels.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    for path in (tmp_path / "labels.txt", tmp_path):
        with pytest.raises(FileNotFoundError, match="with a class name on each line"):
            android.read_class_names(path)
