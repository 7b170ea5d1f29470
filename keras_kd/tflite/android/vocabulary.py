"""The vocabulary of a text model, and its file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.android.class_names import decoded, has_control_characters, read_entries
from keras_kd.tflite.model import TFLiteModel

# What stands between words by default: space, and the punctuation of ASCII but "'".
# It means the same to Python, to Java and to RE2, which MediaPipe uses.
SEPARATOR = r"[\s!-&(-/:-@\[-`{-~]+"
# What MediaPipe calls the words that are none.
_PADDING, _UNKNOWN, _START = "<PAD>", "<UNKNOWN>", "<START>"
# What Keras and others call them.
_NAMES = {
    "": _PADDING,
    "[PAD]": _PADDING,
    _PADDING: _PADDING,
    "[UNK]": _UNKNOWN,
    "<UNK>": _UNKNOWN,
    _UNKNOWN: _UNKNOWN,
    _START: _START,
}
_MOST_BYTES = 64 * 1024 * 1024


def check_vocabulary(words: Any) -> tuple[str, ...]:
    """Return the words as a tuple, in the order of their numbers, if an app can look them up.

    Args:
        words: such as `keras.layers.TextVectorization.get_vocabulary()`: "" for padding, "[UNK]"
            for every other word, and the rest.

    Raises:
        TypeError: if they are no sequence of text.
        ValueError: if padding or the unknown word is missing, or if a word is empty, occurs twice
            or has a space in it.
    """
    fix = "pass layer.get_vocabulary() of a TextVectorization layer, or ['', '[UNK]', 'word', ...]"
    if isinstance(words, str) or not isinstance(words, Sequence) or not len(words):
        raise problem(f"a vocabulary of type {type(words).__name__}", "words", fix, kind=TypeError)
    seen: dict[str, int] = {}
    for index, word in enumerate(words):
        if not isinstance(word, str):
            raise problem(f"the word {word!r} of number {index}", "text", fix, kind=TypeError)
        word = _NAMES.get(word, word)
        if len(word.split()) != 1 or has_control_characters(word):
            raise problem(
                f"the word {word!r} of number {index}",
                "one word, without spaces or control characters in it",
                "build the vocabulary of single words: MediaPipe looks up no others",
            )
        if word in seen:
            raise problem(
                f"the word {word!r} of the numbers {seen[word]} and {index}",
                "words that differ",
                "number each word once",
            )
        seen[word] = index
    missing = [name for name in (_PADDING, _UNKNOWN) if name not in seen]
    if missing:
        raise problem(
            f"a vocabulary without {' and '.join(missing)}",
            "a number for padding, '' or '<PAD>', and one for unknown words, '[UNK]' or "
            "'<UNKNOWN>'",
            fix,
        )
    return tuple(seen)


def check_separator(separator: Any) -> str:
    """Return a regular expression for what separates words.

    Raises:
        ValueError: if it is none, or if it fits nothing at all, so that letters are words.
    """
    try:
        if re.compile(separator).fullmatch("") is None:
            return separator
        reason = "it fits the empty text"
    except (TypeError, re.error) as error:
        reason = str(error)
    raise problem(
        f"word_separator={separator!r} ({reason})",
        "a regular expression for what separates words",
        f"pass for example {SEPARATOR!r}, spaces and punctuation",
    )


def check_text(model: TFLiteModel, vocabulary: Sequence[str]) -> None:
    """Refuse a file that MediaPipe's TextClassifier would not run with these words.

    Raises:
        ValueError: if its input is no list of word numbers of a fixed length, or if it has fewer
            words.
    """
    words = model.inputs[0]
    if len(model.inputs) > 1 or len(words.shape) != 2 or words.dtype != np.dtype("int32"):
        raise problem(
            f"a vocabulary for a model with {', '.join(map(str, model.inputs))}",
            "one input of word numbers, int32 and of shape (1, length)",
            "build the student on keras.Input((length,), dtype='int32')",
        )
    if words.takes_any_length:
        raise problem(
            f"a vocabulary for the input {words}",
            "a fixed length, to which MediaPipe cuts and pads",
            "build the student on keras.Input((64,), dtype='int32'), and copy the weights",
        )
    last = np.full((1, words.shape[1]), len(vocabulary) - 1, np.int32)
    try:
        model.predict_by_name(last)
    except ValueError as error:
        raise problem(
            f"a vocabulary of {len(vocabulary)} words for a model without a number for the last",
            "the words that the student was trained on, in the order of their numbers",
            "pass the vocabulary of the training",
        ) from error


def to_bytes(vocabulary: Sequence[str]) -> bytes:
    """A word and its number on each line, as MediaPipe reads them."""
    return "".join(f"{word} {index}\n" for index, word in enumerate(vocabulary)).encode()


def from_bytes(content: bytes) -> tuple[str, ...]:
    """The words in a file, of `to_bytes` or with a word alone on each line.

    Raises:
        ValueError: if it is no such file.
    """
    lines = decoded(content, "word").removesuffix("\n").split("\n")
    lines = [line.rstrip("\r") for line in lines]
    pairs = [line.split(" ") for line in lines]
    if all(len(pair) == 2 and pair[1].isascii() and pair[1].isdigit() for pair in pairs):
        numbers = [int(number) for _, number in pairs]
        if sorted(numbers) != list(range(len(numbers))):
            raise _no_vocabulary("its numbers are not 0, 1, 2 and so on")
        lines = [word for _, (word, _) in sorted(zip(numbers, pairs, strict=True))]
    return check_vocabulary(lines)


def read_vocabulary(path: str | os.PathLike) -> tuple[str, ...]:
    """Read words from a text file in UTF-8: one on each line, in the order of their numbers.

    The first line may be empty, for padding. A number may follow each word.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not text, or if what is in it is no vocabulary.
    """
    return read_entries(path, "word", _MOST_BYTES, from_bytes)


def _no_vocabulary(reason: str) -> Exception:
    return problem(
        f"a vocabulary that cannot be read ({reason})",
        "a text file with a word on each line, in the order of their numbers",
        "write it with '\\n'.join(layer.get_vocabulary()), as UTF-8",
    )
