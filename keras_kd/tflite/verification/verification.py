"""Whether a file computes what the student computed in Keras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._examples import examples_by_name
from keras_kd._keras import check_model
from keras_kd.tflite.conversion.signature import Signature
from keras_kd.tflite.conversion.students import in_float32
from keras_kd.tflite.model import TFLiteModel

_BATCH_SIZE = 256


@dataclass(frozen=True)
class Verification:
    """How far the outputs of a file are from those of the student.

    Attributes:
        examples: how many examples were compared.
        largest_difference: the largest absolute difference in any output.
        mean_difference: the mean absolute difference over all outputs.
        agreement: the share of examples for which every output has its largest value at the same
            place: for a classifier, the same class.
    """

    examples: int
    largest_difference: float
    mean_difference: float
    agreement: float


def verify(model: TFLiteModel, student: Any, x: Any) -> Verification:
    """Compare a file in LiteRT with the student that it was made from.

    Args:
        model: what `convert` returned for `student`.
        student: the Keras 3 or tf_keras model.
        x: examples, as for `TFLiteModel.predict`.

    Raises:
        ValueError: if `x` does not fit the inputs, if there is no example in it, or if the file has
            other inputs or outputs than the student.
    """
    check_model("student", student)
    signature = Signature(in_float32(student))
    examples = examples_by_name(x, signature.inputs)
    count = len(next(iter(examples.values())))
    if count == 0:
        raise ValueError(problem("x without an example", "at least one", "pass x_test[:500]"))
    received = model.predict_by_name(examples)
    expected = _student_outputs(signature, examples, count)
    _check_same_outputs(received, expected)
    differences = [np.abs(received[name] - expected[name]).reshape(count, -1) for name in expected]
    same = [_largest(received[name]) == _largest(expected[name]) for name in expected]
    return Verification(
        examples=count,
        largest_difference=float(max(difference.max() for difference in differences)),
        mean_difference=float(np.concatenate(differences, axis=1).mean()),
        agreement=float(np.all(same, axis=0).mean()),
    )


def _student_outputs(
    signature: Signature, examples: dict[str, np.ndarray], count: int
) -> dict[str, np.ndarray]:
    batches = [
        signature({name: array[start : start + _BATCH_SIZE] for name, array in examples.items()})
        for start in range(0, count, _BATCH_SIZE)
    ]
    return {
        name: np.concatenate([np.asarray(batch[name], np.float32) for batch in batches])
        for name in batches[0]
    }


def _check_same_outputs(received: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    shapes = [{name: array.shape for name, array in each.items()} for each in (received, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            problem(
                f"a file with the outputs {shapes[0]}",
                f"those of the student, {shapes[1]}",
                "pass the student that the file was made from",
            )
        )


def _largest(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).argmax(axis=1)
