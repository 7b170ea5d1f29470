"""Other forms of a student that is refused: the same numbers from other operators."""

from __future__ import annotations

from collections.abc import Callable

from keras_kd._keras import is_keras_model
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.student import Signature

_Notes = tuple[str, ...]
_AS_TF_KERAS = "converted as keras_kd.compression.to_tf_keras(student)"
# What a message advises that was done here.
_ADVICE = "pass keras_kd.compression.to_tf_keras(student)"
_LONGEST_REASON = 160


def first_accepted(
    signature: Signature,
    file_of: Callable[[Signature], FlatBufferModel],
    finished: Callable[[FlatBufferModel, _Notes], TFLiteModel],
    rewritten: Callable[[bytes], tuple[bytes, _Notes]] | None,
) -> TFLiteModel:
    """The file of a student; where it is refused, of the first other form that is not.

    First comes the student as it is, then as tf_keras computes it, then both with operators that
    the target lacks written as others.

    Args:
        signature: the student.
        file_of: from a form of the student to the file that the converter makes of it.
        finished: from this file, and notes for the user, to a checked model.
        rewritten: from bytes to those without operators that the target lacks, and the names of
            what was replaced; None where nothing is.

    Raises:
        ValueError: why the student as it is was refused, if every form of it is; why its other form
            was, if the advice is to take that one.
    """
    made: list[tuple[FlatBufferModel, _Notes]] = []
    refusals: list[ValueError] = []
    try:
        made.append((file_of(signature), ()))
        return finished(*made[-1])
    except ValueError as error:
        refusals.append(error)
    reason = _reason(refusals[0])
    other = _in_tf_keras(signature)
    if other is not None:
        try:
            made.append((file_of(other), (f"{_AS_TF_KERAS}{reason}",)))
            return finished(*made[-1])
        except ValueError as error:
            refusals.append(error)
    if rewritten is not None:
        for file, notes in made:
            content, names = rewritten(file.content)
            if not names:
                continue
            how = f"{' and '.join(names)} written as CONCATENATION of ten inputs at most"
            try:
                return finished(FlatBufferModel(content), (*notes, how if notes else how + reason))
            except ValueError as error:
                refusals.append(error)
    raise next((each for each in refusals if _ADVICE not in str(each)), refusals[0])


def _in_tf_keras(signature: Signature) -> Signature | None:
    if not is_keras_model(signature.model):
        return None
    # Where Keras runs on another backend than TensorFlow, this package cannot be imported.
    from keras_kd.compression.bridge.rebuilding import to_tf_keras

    try:
        other = Signature(to_tf_keras(signature.model), named_as=signature.model)
    except (ValueError, TypeError, NotImplementedError):
        # Subclassed models cannot be rebuilt.
        return None
    return other if set(other.inputs) == set(signature.inputs) else None


def _reason(refusal: ValueError) -> str:
    """What was refused, in short: the converter's own words fill a page."""
    received = str(refusal).removeprefix("Received ").split(". Expected")[0]
    if len(received) > _LONGEST_REASON:
        received = received[: _LONGEST_REASON - 3] + "..."
    return f"; refused as it is: {received}"
