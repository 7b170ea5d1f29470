"""Whether a file computes what the student computed in Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_kd._checks import check_choice, problem
from keras_kd._examples import examples_by_name
from keras_kd._keras import check_model
from keras_kd.tflite.contents.inspection import Inspection
from keras_kd.tflite.conversion.signature import Signature
from keras_kd.tflite.conversion.students import in_float32
from keras_kd.tflite.verification.differences import DifferenceMeter, OutputDifference

if TYPE_CHECKING:
    from keras_kd.tflite.model import TFLiteModel

# Of dense outputs (a class for every pixel) not many fit into memory at once.
_BATCH_SIZE = 32
_DATA = ("given", "representative", "random")


@dataclass(frozen=True)
class Verification:
    """The evidence that a file is the student: how they compare, and what is in the file.

    Attributes:
        examples: how many examples were compared.
        data: what they were: "given", "representative" (the data for calibration) or "random".
        largest_difference: the largest absolute difference in any output.
        mean_difference: the mean absolute difference, in the output where that is largest.
        agreement: the share of choices that are the same, in the output where that is lowest. A
            classifier makes one choice for each example (or pixel, or word): the class with the
            largest value; if there is one number only, whether it is above 0.5 (above 0 if the
            numbers are not all from 0 to 1).
        accuracy: the share of labels that the file gets right; None without labels.
        student_accuracy: the share that the student gets right, likewise.
        outputs: the same for each output.
        inspection: what is in the file.
    """

    examples: int
    data: str
    largest_difference: float
    mean_difference: float
    agreement: float
    accuracy: float | None
    student_accuracy: float | None
    outputs: tuple[OutputDifference, ...]
    inspection: Inspection

    @property
    def float_tensors(self) -> tuple[str, ...]:
        """The tensors between inputs and outputs that stayed in floating point."""
        return self.inspection.float_tensors

    @property
    def operators(self) -> dict[str, int]:
        """How often each operator occurs in the file."""
        return self.inspection.operators

    @property
    def bytes(self) -> dict[str, int]:
        """How many bytes of the file are what; see `Inspection`."""
        return self.inspection.bytes

    def to_json(self) -> dict[str, Any]:
        """All of it, in types that JSON knows; infinite differences become None."""
        plain = {**asdict(self), "inspection": self.inspection.to_json()}
        return _without_infinity(plain)

    def __str__(self) -> str:
        inside = len(self.float_tensors)
        lines = [
            f"{self.examples:,} {self.data} examples: {_percent(self.agreement)} of the choices "
            f"are the student's; differences up to {self.largest_difference:.3g}, "
            f"{self.mean_difference:.3g} on average",
        ]
        if self.accuracy is not None and self.student_accuracy is not None:
            lines.append(
                f"accuracy: {_percent(self.accuracy)}, the student's "
                f"{_percent(self.student_accuracy)}"
            )
        if len(self.outputs) > 1:
            lines += [
                f"output {output.name}: {_percent(output.agreement)}, up to "
                f"{output.largest_difference:.3g}, {output.mean_difference:.3g} on average"
                for output in self.outputs
            ]
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.bytes.items())
        lines += [
            f"bytes: {self.inspection.size:,} ({kinds})",
            f"operators: {', '.join(f'{name} {n}' for name, n in self.operators.items())}",
            f"tensors in floating point: {inside or 'none'} between inputs and outputs",
        ]
        return "\n".join(lines)


def verify(
    model: TFLiteModel, student: Any, x: Any, labels: Any = None, *, data: str = "given"
) -> Verification:
    """Compare a file in LiteRT with the student that it was made from.

    The student computes on the CPU: GPUs round float32 to fewer digits.

    Args:
        model: what `convert` returned for `student`.
        student: the Keras 3 or tf_keras model.
        x: examples, as for `TFLiteModel.predict`.
        labels: the right classes of a classifier: numbers shaped (examples,), or one-hot rows; a
            dict by output name if there are several outputs, not necessarily all of them.
        data: what the examples are, for `Verification.data`.

    Raises:
        ValueError: if `x` does not fit the inputs, if there is no example in it, if the labels do
            not fit, or if the file has other inputs or outputs than the student.
    """
    check_model("student", student)
    check_choice("data", data, _DATA)
    signature = Signature(in_float32(student))
    examples = examples_by_name(x, signature.inputs)
    count = len(next(iter(examples.values())))
    if count == 0:
        raise ValueError(problem("x without an example", "at least one", "pass x_test[:500]"))
    steps = dict(zip((t.name for t in model.outputs), model.flatbuffer.output_steps(), strict=True))
    meters = {name: DifferenceMeter(name, step) for name, step in steps.items()}
    classes = _labels_by_output(labels, list(meters), count)
    for chosen in _batches(count):
        batch = {name: array[chosen] for name, array in examples.items()}
        received, expected = model.predict_by_name(batch), _student_outputs(signature, batch)
        _check_same_outputs(received, expected)
        for name, meter in meters.items():
            of_batch = classes[name][chosen] if name in classes else None
            meter.add(received[name], expected[name], of_batch)
    return _summary(model, tuple(meter.result() for meter in meters.values()), count, data)


def _summary(
    model: TFLiteModel, outputs: tuple[OutputDifference, ...], count: int, data: str
) -> Verification:
    rights = [output.right for output in outputs if output.right is not None]
    by_student = [o.student_right for o in outputs if o.student_right is not None]
    return Verification(
        examples=count,
        data=data,
        largest_difference=max(output.largest_difference for output in outputs),
        mean_difference=max(output.mean_difference for output in outputs),
        agreement=min(output.agreement for output in outputs),
        accuracy=float(np.mean(rights)) if rights else None,
        student_accuracy=float(np.mean(by_student)) if by_student else None,
        outputs=outputs,
        inspection=model.inspect(),
    )


def _batches(count: int) -> Iterator[slice]:
    for start in range(0, count, _BATCH_SIZE):
        yield slice(start, start + _BATCH_SIZE)


def _student_outputs(signature: Signature, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import tensorflow as tf

    with tf.device("CPU:0"):
        return {name: np.asarray(value) for name, value in signature(batch).items()}


def _labels_by_output(labels: Any, names: list[str], count: int) -> dict[str, np.ndarray]:
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        if len(names) > 1:
            raise ValueError(
                problem(
                    f"labels of type {type(labels).__name__} for a file with {len(names)} outputs",
                    f"a dict with some of the keys {names}",
                    f"pass labels={{{names[0]!r}: ...}}",
                )
            )
        labels = {names[0]: labels}
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise ValueError(
            problem(
                f"labels for the outputs {unknown}",
                f"some of {names}",
                "use the names of the file's outputs as keys",
            )
        )
    arrays = {name: np.asarray(values) for name, values in labels.items()}
    for name, array in arrays.items():
        if array.shape[:1] != (count,) or array.dtype.kind not in "biuf":
            raise ValueError(
                problem(
                    f"labels of shape {array.shape} and type {array.dtype} for the output "
                    f"{name!r} and {count} examples",
                    "the number of a class for each example",
                    "pass as many labels as examples: x[:500], labels[:500]",
                )
            )
    return arrays


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


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinity(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
