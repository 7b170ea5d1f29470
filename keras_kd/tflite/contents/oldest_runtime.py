"""The oldest runtime that computes what is in a file, where the file itself does not give it.

A converter writes the first version of TensorFlow Lite that has its operators. ai-edge-quantizer
changes the types of weights afterwards and leaves that version as it was, and older runtimes load
such a file and compute something else, or crash, without a word.
"""

from __future__ import annotations

from keras_kd.tflite.contents.flatbuffer import FlatBufferModel

# The first version of TensorFlow Lite that gave the outputs of LiteRT 2.3. Tried were TensorFlow
# 2.12, 2.15 to 2.19, tflite-runtime 2.14, and LiteRT 1.0.0, 1.0.1 (wrong where 2.18 is) and 1.1.1
# to 2.3.
_FIRST_WITH_4_BITS = "2.14.0"
# Operators that compute in floating point with weights of integers.
_FIRST_RIGHT = {("CONV_2D", "INT4"): "2.19.0", ("FULLY_CONNECTED", "INT8"): "2.16.2"}
# LiteRT counts its versions anew.
_FIRST_LITERT = {"2.19.0": "1.1.1"}


def oldest_runtime(model: FlatBufferModel) -> str | None:
    """The first version of TensorFlow Lite that runs the file rightly, for example "2.19.0".

    None where the file does not give it and nothing in it has been tried.
    """
    # The buffer has a fixed size, zeros behind the text.
    stored = (model.metadata("min_runtime_version") or b"").rstrip(b"\0").decode(errors="replace")
    # One scale for all of a weight is right in runtimes that have none for each channel.
    tried = {
        _FIRST_RIGHT.get((operator, weights), "")
        for operator, weights, scales in model.hybrid_weights()
        if scales > 1 or weights != "INT8"
    }
    if "INT4" in model.weight_types():
        tried.add(_FIRST_WITH_4_BITS)
    return max((stored, *tried), key=_numbers) or None


def in_words(version: str | None) -> str:
    """The version as it is shown."""
    if version is None:
        return "unknown"
    litert = _FIRST_LITERT.get(version)
    return f"TensorFlow Lite {version}" + (f" or LiteRT {litert}" if litert else "")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    is_version = all(part.isdecimal() and len(part) < 9 for part in parts)
    return tuple(map(int, parts)) if is_version else ()
