"""Comparison of a file's outputs with those of the Keras model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._backends import check_tensorflow
from keras_kd._checks import check_choice, problem
from keras_kd._json import json_value
from keras_kd._keras import check_model
from keras_kd._limits import watched_batch
from keras_kd._tables import Report
from keras_kd.metrics.tasks import CLASSIFYING
from keras_kd.tflite.contents.inspection import Inspection
from keras_kd.tflite.file import TFLiteFile
from keras_kd.tflite.runtimes.litert import LiteRTInterpreter
from keras_kd.tflite.student import Signature, prepared
from keras_kd.tflite.tensors import TensorInfo
from keras_kd.tflite.verification.differences import (
    OutputDifference,
    Outputs,
    measure_differences,
    overall,
)
from keras_kd.tflite.verification.kinds import output_kinds
from keras_kd.tflite.verification.pairing import Pairing, check_names, colored, ends, pair
from keras_kd.tflite.verification.rounding import rounding_twin

_DATA = ("given", "representative", "random")
# Examples that show how the student's outputs look.
_SOME = 32


@dataclass(frozen=True)
class Verification(Report):
    """The comparison of a file with its student; `to_dataframe` has a row for each output.

    Attributes:
        examples: how many examples were compared.
        data: what they were: "given", "representative" (the data for calibration) or "random".
        largest_difference: the largest absolute difference in any output.
        mean_difference: the mean absolute difference, in the output where that is largest.
        agreement: the share of choices that are the same, in the output where that is lowest. A
            classifier makes one choice for each example (or pixel, or word): the class with the
            largest value; if there is one number only, whether it is above 0.5 (above 0 if the
            numbers are not all from 0 to 1), and likewise for each of several labels. None if no
            output chooses between classes, as in regression, reconstruction and the boxes of
            detection: see `output_kinds`.
        task: the task of the labels, one of `keras_kd.metrics.TASKS`; None without labels, or where
            several outputs have different tasks.
        score: what the file achieves in the first measure of that task: accuracy, mean absolute
            error, area under the ROC curve. The mean over the outputs with labels.
        student_score: what the student achieves, likewise.
        outputs: the same for each output.
        inspection: what is in the file.
        notes: what differs between file and student by intention, such as names and a softmax that
            only the file has, and what `convert` did beyond its arguments, a sentence each.
    """

    examples: int
    data: str
    largest_difference: float
    mean_difference: float
    agreement: float | None
    task: str | None
    score: float | None
    student_score: float | None
    outputs: tuple[OutputDifference, ...]
    inspection: Inspection
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """The share of labels that the file gets right; None where labels are no classes."""
        return self.score if self.task in CLASSIFYING else None

    @property
    def student_accuracy(self) -> float | None:
        """The share that the student gets right, likewise."""
        return self.student_score if self.task in CLASSIFYING else None

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

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types; infinite differences become None."""
        plain = {
            **super().to_dict(),
            "inspection": self.inspection.to_dict(),
            "outputs": self._records(),
            "accuracy": self.accuracy,
            "student_accuracy": self.student_accuracy,
        }
        return json_value(plain)

    def _records(self) -> list[dict[str, Any]]:
        return [_plain(output) for output in self.outputs]

    def _parts(self) -> list[str]:
        inside = len(self.float_tensors)
        lines = [
            f"{self.examples:,} {self.data} examples: {_choices(self.agreement)}differences up to "
            f"{self.largest_difference:.3g}, {self.mean_difference:.3g} on average",
        ]
        if len(self.outputs) == 1:
            lines += _scores(self.outputs[0])
        else:
            lines += [
                "; ".join(
                    [
                        f"output {output.name}: {_agreement(output)}up to "
                        f"{output.largest_difference:.3g}, {output.mean_difference:.3g} on average",
                        *_scores(output),
                    ]
                )
                for output in self.outputs
            ]
        lines += [line for output in self.outputs for line in _of_channels(output)]
        lines += self.notes
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.bytes.items())
        lines += [
            f"bytes: {self.inspection.size:,} ({kinds})",
            f"operators: {', '.join(f'{name} {n}' for name, n in self.operators.items())}",
            f"tensors in floating point: {inside or 'none'} between inputs and outputs",
        ]
        return lines


def verify(
    model: TFLiteFile,
    student: Any,
    x: Any,
    y: Any = None,
    *,
    data: str = "given",
    names: Mapping[str, str] | None = None,
) -> Verification:
    """Compare a file in LiteRT with the student that it was made from, by any converter.

    Inputs and outputs are paired by their names, also where a converter has changed them
    ("serving_default_x:0", "x_int8", "output_0"); a single one by its position, others by their
    shapes. A softmax or sigmoid that only the file has at its end is applied to the student's
    output, and grey images go in three equal channels into a file of color images: `notes` of the
    result lists these. The student computes on the CPU: GPUs round float32 to fewer digits.

    Args:
        model: the file, from `convert` or from any other converter.
        student: the Keras 3 or tf_keras model.
        x: examples, as for `TFLiteModel.predict`; of a student with stateful layers the steps of a
            stream in their order, as for `predict_stream`. The keys of a dict are the names of the
            student's inputs, or those of the file's.
        y: the right classes of a classifier (numbers shaped (examples,), or one-hot rows), the
            right labels (0 or 1) or targets in the shape of the output, or for a reconstruction 1
            for each anomaly; a dict by output name if there are several outputs, not necessarily
            all of them.
        data: what the examples are, for `Verification.data`.
        names: where names and shapes are ambiguous: names of the student's inputs and
            outputs by those of the file.

    Raises:
        ValueError: if `x` does not fit the inputs, if there is no example in it, if the labels do
            not fit, if the file has other inputs or outputs than the student, if it is not clear
            which is which, or if a weight or an output of either is NaN or infinite.
    """
    check_tensorflow("keras_kd.tflite.verify")
    check_model("student", student)
    check_choice("data", data, _DATA)
    check_finite_weights(student)
    check_finite_constants(model)
    signature = prepared(student)
    pairs = _paired_inputs(model, signature, names or {})
    examples = signature.examples(_by_student(x, pairs))
    pairing = _paired(model, signature, pairs, examples, names or {})
    verification = _compared(model, signature, pairing, examples, _by_file(y, pairing), data)
    check_finite_outputs(verification)
    return verification


def compare_with_student(
    model: TFLiteFile, signature: Signature, x: Any, y: Any, data: str
) -> Verification:
    """`verify` of a file that has the student's names; no difference is an error."""
    same = Pairing(
        {tensor.name: tensor.name for tensor in signature.inputs},
        {tensor.name: tensor.name for tensor in model.outputs},
    )
    examples = signature.examples(x)
    return _compared(model, signature, same, examples, y, data)


def _compared(
    model: TFLiteFile,
    signature: Signature,
    pairing: Pairing,
    examples: dict[str, np.ndarray],
    y: Any,
    data: str,
) -> Verification:
    rounded = _rounding_only(model)
    if y is not None and not isinstance(y, Mapping):
        # The next states have none.
        own = [t.name for t in model.outputs if t.name not in model.state_outputs.values()]
        y = {own[0]: y} if len(own) == 1 else y
    outputs = measure_differences(
        lambda batch: model.predict_by_name(pairing.for_file(batch)),
        lambda batch: pairing.of_student(_student_outputs(signature, batch)),
        examples,
        output_steps(model),
        y,
        rounded=rounded and (lambda batch: rounded(pairing.for_file(batch))),
        kinds=output_kinds(model, signature.loss),
    )
    return Verification(
        examples=len(next(iter(examples.values()))),
        data=data,
        outputs=outputs,
        inspection=model.inspect(),
        notes=pairing.notes,
        **overall(outputs),
    )


def _paired_inputs(
    model: TFLiteFile, signature: Signature, names: Mapping[str, str]
) -> dict[str, str]:
    unknown = set(names) - {tensor.name for tensor in (*model.inputs, *model.outputs)}
    if unknown:
        raise problem(
            f"the names {sorted(unknown)} of the file",
            f"some of {[tensor.name for tensor in (*model.inputs, *model.outputs)]}",
            "write FILE_NAME=MODEL_NAME; keras-kd inspect shows the names of the file",
        )
    check_names(names, model.inputs, signature.inputs)
    return pair("input", model.inputs, signature.inputs, names)


def _paired(
    model: TFLiteFile,
    signature: Signature,
    inputs: dict[str, str],
    examples: dict[str, np.ndarray],
    names: Mapping[str, str],
) -> Pairing:
    """The whole pairing, for which the student computes some examples."""
    some = {name: array[:_SOME] for name, array in examples.items()}
    if not len(next(iter(some.values()))):
        raise problem("x without an example", "at least one", "pass x_test[:500]")
    outputs = _student_outputs(signature, some)
    tensors = [
        TensorInfo(name, (1, *values.shape[1:]), values.dtype) for name, values in outputs.items()
    ]
    check_names(names, model.outputs, tensors)
    pairs = pair("output", model.outputs, tensors, names)
    activations = dict(
        zip(
            (tensor.name for tensor in model.outputs),
            model.flatbuffer.output_activations(),
            strict=True,
        )
    )
    return Pairing(
        inputs,
        pairs,
        colored(model.inputs, signature.inputs, inputs),
        ends(activations, outputs, pairs),
    )


def _by_student(x: Any, inputs: Mapping[str, str]) -> Any:
    """Examples by the names of the student's inputs, also if they come by those of the file."""
    if isinstance(x, Mapping) and set(x) == set(inputs) != set(inputs.values()):
        return {inputs[name]: array for name, array in x.items()}
    return x


def _by_file(y: Any, pairing: Pairing) -> Any:
    """Labels by the names of the file's outputs, also if they come by those of the student."""
    if not isinstance(y, Mapping) or set(y) <= set(pairing.outputs):
        return y
    of_file = {own: name for name, own in pairing.outputs.items()}
    return {of_file.get(name, name): values for name, values in y.items()}


def check_finite_weights(student: Any, role: str = "student") -> None:
    """Refuse a model with a weight that is NaN or infinite: what it computes means nothing.

    Args:
        student: the model.
        role: what a message calls it.

    Raises:
        ValueError: if there is one.
    """
    for weight in student.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "V":  # Types that NumPy lacks, such as bfloat16.
            values = values.astype(np.float32)
        wrong = int(values.size - np.isfinite(values).sum())
        if wrong:
            name = getattr(weight, "path", None) or weight.name
            raise problem(
                f"the {role} {student.name!r} with {wrong} of {values.size} numbers NaN or "
                f"infinite in its weight {name!r}",
                "finite weights",
                "train it again, with a lower learning rate or clipped gradients, or load the "
                "weights of an earlier epoch",
            )


def check_finite_constants(model: TFLiteFile) -> None:
    """Refuse a file with a stored number that is NaN or infinite.

    Raises:
        ValueError: if there is one. An infinite constant that is no tensor of weights, such as the
            value that a PAD fills in before a maximum, may be there.
    """
    for name in model.flatbuffer.constants_that_are_not_finite():
        raise problem(
            f"a file whose tensor {name!r} has numbers that are NaN or infinite",
            "finite weights and scales",
            "convert a student with finite weights again, or copy the file again",
        )


def check_finite_outputs(verification: Verification) -> None:
    """Refuse outputs that are NaN or infinite: of them, nothing can be compared.

    Raises:
        ValueError: if there is one, of the file or of the student.
    """
    for output in verification.outputs:
        if output.not_finite:
            raise problem(
                f"NaN or infinity in the output {output.name!r} of the file or of the student, "
                f"in {output.not_finite} of {verification.examples} examples",
                "finite numbers",
                "leave out examples on which the student cannot compute, such as sentences "
                "without words, and check that data and student are finite",
            )


def output_steps(model: TFLiteFile) -> dict[str, float]:
    """By the name of each output how far apart two numbers are that the file distinguishes."""
    names = [tensor.name for tensor in model.outputs]
    return dict(zip(names, model.flatbuffer.output_steps(), strict=True))


def _student_outputs(signature: Signature, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import tensorflow as tf

    count = len(next(iter(batch.values())))
    with tf.device("CPU:0"), watched_batch(signature.model.name, count):
        return {name: np.asarray(value) for name, value in signature(batch).items()}


def _rounding_only(model: TFLiteFile) -> Callable[[dict[str, np.ndarray]], Outputs] | None:
    """What a file of 8-bit integers would compute if it cut nothing off; None if unknown."""
    if model.flatbuffer.hybrid_operators():
        return None
    try:
        content = rounding_twin(model.content)
        twin = None if content is None else LiteRTInterpreter(content, "builtin")
    except (ValueError, TypeError, LookupError):
        # An operator that has a kernel for integers alone, or tensors as no converter writes them.
        return None
    if twin is None:
        return None

    def run(batch: dict[str, np.ndarray]) -> Outputs:
        outputs = twin.run_each([_on_steps(tensor, batch[tensor.name]) for tensor in model.inputs])
        return dict(zip((tensor.name for tensor in twin.outputs), outputs, strict=True))

    return run


def _on_steps(tensor: TensorInfo, values: np.ndarray) -> np.ndarray:
    if not tensor.is_quantized:
        return values.astype(tensor.dtype, copy=False)
    return (np.round(values / tensor.scale) * tensor.scale).astype(np.float32)


def _plain(output: OutputDifference) -> dict[str, Any]:
    """An output with the channels that are lost in place of all channels."""
    values = {key: value for key, value in vars(output).items() if key != "channels"}
    return {
        **values,
        "lost_channels": list(output.lost_channels),
        "fewest_levels": output.fewest_levels,
    }


def _of_channels(output: OutputDifference) -> list[str]:
    """Remarks on the channels of an output, a line each."""
    lost, levels = output.lost_channels, output.fewest_levels
    if lost and len(output.channels) > 1:
        names = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
        return [f"output {output.name}: nothing left of the variation of channels {names}"]
    if levels is not None and levels < 256:
        return [f"output {output.name}: {levels:.0f} levels in the channel with the fewest"]
    return []


def _agreement(output: OutputDifference) -> str:
    return "" if output.agreement is None else f"{_percent(output.agreement)}, "


def _scores(output: OutputDifference) -> list[str]:
    """The scores of file and student; nothing without labels."""
    measure = output.measure
    if measure is None or output.score is None or output.student_score is None:
        return []
    return [
        f"{measure.heading}: {measure.write_with_unit(output.score)}, the student's "
        f"{measure.write_with_unit(output.student_score)}"
    ]


def _choices(agreement: float | None) -> str:
    if agreement is None:
        return ""
    return f"{_percent(agreement)} of the choices are the student's; "


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
