"""Pairing of a file's inputs and outputs with the student's, for files of any converter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from keras_kd._checks import problem, shapes_fit
from keras_kd.tflite.tensors import TensorInfo

_CHANNELS = 3
# What TensorFlow's converter and SavedModels put around a name.
_AROUND = re.compile(r"^(serving_default|serve)_|:\d+$|_u?int(8|16)$")
# What Keras 3 names outputs when it exports a model: by their place.
_PLACE = re.compile(r"output_(\d+)")
# Of the sum of probabilities: float16 has three digits.
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Pairing:
    """Which input and output of a file is which of the student's, and what differs by intention.

    Attributes:
        inputs: names of the student's inputs by those of the file.
        outputs: names of the student's outputs by those of the file.
        colored: inputs of the file that take grey images of the student in three equal channels.
        ends: by the outputs of the file the activation that it has there and the student lacks.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    colored: frozenset[str] = frozenset()
    ends: Mapping[str, str] = field(default_factory=dict)

    def for_file(self, examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The student's inputs as the file takes them, by its names."""
        return {
            name: _in_color(examples[own]) if name in self.colored else examples[own]
            for name, own in self.inputs.items()
        }

    def of_student(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The student's outputs as the file should give them, by its names."""
        return {
            name: _ACTIVATIONS[self.ends[name]](outputs[own]) if name in self.ends else outputs[own]
            for name, own in self.outputs.items()
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """The differences in sentences, for people."""
        return (
            *(
                f"{kind} {name!r} of the file is {own!r} of the student"
                for kind, names in (("input", self.inputs), ("output", self.outputs))
                for name, own in names.items()
                if name != own and len(names) > 1
            ),
            *(
                f"the input {name!r} takes color images: the file got the grey ones of the "
                "student in three equal channels"
                for name in sorted(self.colored)
            ),
            *(
                f"the output {name!r} ends in a {activation} that the student lacks: it was "
                f"compared with the {activation} of the student's output"
                for name, activation in self.ends.items()
            ),
        )


def pair(
    kind: str,
    of_file: Sequence[TensorInfo],
    of_student: Sequence[TensorInfo],
    names: Mapping[str, str],
) -> dict[str, str]:
    """The names of the student's inputs or outputs by those of the file.

    They are paired as the user asks, else by equal names, else by names that are equal but for what
    converters put around them, else by the place that Keras numbers outputs by, and the rest by
    shapes: only where one fits alone, or where one is left.

    Args:
        kind: "input" or "output".
        of_file: those of the file.
        of_student: those of the student.
        names: given by the user: names of the student by names of the file.

    Raises:
        ValueError: if there are not as many, if shapes do not fit, or if it is not clear which is
            which.
    """
    if len(of_file) != len(of_student):
        raise _other_student(
            f"a file with {len(of_file)} {kind}s ({_listed(of_file)}) for a student with "
            f"{len(of_student)} ({_listed(of_student)})",
            f"as many {kind}s",
        )
    pairs: dict[str, str] = {}

    def left() -> tuple[list[TensorInfo], list[TensorInfo]]:
        taken = set(pairs.values())
        return (
            [tensor for tensor in of_file if tensor.name not in pairs],
            [tensor for tensor in of_student if tensor.name not in taken],
        )

    pairs.update({own: other for own, other in names.items() if _has(of_file, own)})
    for equal in (lambda tensor: tensor.name, _plain_name):
        pairs.update(_by_key(*left(), equal, equal))
    places = {tensor.name: place for place, tensor in enumerate(of_student)}
    pairs.update(_by_key(*left(), _place, lambda tensor: places[tensor.name]))
    while True:
        rest, others = left()
        found = _by_shape(rest, others)
        if not found:
            break
        pairs.update(found)
    if rest:
        given = " ".join(f"--map {tensor.name}=NAME" for tensor in rest)
        raise problem(
            f"a file with the {kind}s {_listed(rest)} for a student with {_listed(others)}",
            f"{kind}s with different names or shapes",
            f"pair them by hand: {given} on the command line, or names={{{rest[0].name!r}: "
            f"{others[0].name!r}, ...}}",
        )
    _check_shapes(kind, of_file, of_student, pairs)
    return pairs


def check_names(
    names: Mapping[str, str], of_file: Iterable[TensorInfo], of_student: Iterable[TensorInfo]
) -> None:
    """Refuse pairs of names that there are not.

    Args:
        names: given by the user: names of the student by names of the file.
        of_file: all inputs, or all outputs, of the file.
        of_student: those of the student.

    Raises:
        ValueError: if one is unknown, or if a name of the student occurs twice.
    """
    known = [tensor.name for tensor in of_student]
    for own, other in names.items():
        if _has(of_file, own) and other not in known:
            raise problem(
                f"the name {other!r} for {own!r} of the file",
                f"one of {known}, the student's",
                "choose one of them",
            )


def colored(
    of_file: Sequence[TensorInfo], of_student: Sequence[TensorInfo], pairs: Mapping[str, str]
) -> frozenset[str]:
    """The inputs of a file for color images where the student takes grey ones."""
    theirs = {tensor.name: tensor for tensor in of_student}
    return frozenset(
        tensor.name for tensor in of_file if _is_colored(tensor, theirs[pairs[tensor.name]])
    )


def ends(
    activations: Mapping[str, str], outputs: Mapping[str, np.ndarray], pairs: Mapping[str, str]
) -> dict[str, str]:
    """By the name of each output of a file the activation that it has and the student lacks.

    Args:
        activations: by the names of the file's outputs, as the schema names them.
        outputs: what the student computes, by its names.
        pairs: names of the student by those of the file.
    """
    found = {}
    for name, own in pairs.items():
        values = outputs[own]
        if activations.get(name) == "SOFTMAX" and not _are_shares(values):
            found[name] = "softmax"
        if activations.get(name) == "LOGISTIC" and (values.min() < 0 or values.max() > 1):
            found[name] = "sigmoid"
    return found


def _has(tensors: Iterable[TensorInfo], name: str) -> bool:
    return any(tensor.name == name for tensor in tensors)


def _by_key(
    rest: Sequence[TensorInfo],
    others: Sequence[TensorInfo],
    key: Callable[[TensorInfo], object],
    key_of_other: Callable[[TensorInfo], object],
) -> dict[str, str]:
    """Those whose keys are equal, and equal to no other one's."""
    pairs = {}
    keys, keys_of_others = [key(each) for each in rest], [key_of_other(each) for each in others]
    for tensor, wanted in zip(rest, keys, strict=True):
        if wanted is not None and keys.count(wanted) == keys_of_others.count(wanted) == 1:
            pairs[tensor.name] = others[keys_of_others.index(wanted)].name
    return pairs


def _by_shape(rest: Sequence[TensorInfo], others: Sequence[TensorInfo]) -> dict[str, str]:
    """The first one that fits one other alone."""
    if len(rest) == 1:
        return {rest[0].name: others[0].name}
    for tensor in rest:
        fitting = [other for other in others if _fits(tensor, other)]
        if len(fitting) == 1:
            return {tensor.name: fitting[0].name}
    for other in others:
        fitting = [tensor for tensor in rest if _fits(tensor, other)]
        if len(fitting) == 1:
            return {fitting[0].name: other.name}
    return {}


def _plain_name(tensor: TensorInfo) -> str:
    name, before = tensor.name, None
    while name != before:
        name, before = _AROUND.sub("", name), name
    return re.sub(r"\W", "_", name).lower()


def _place(tensor: TensorInfo) -> int | None:
    found = _PLACE.fullmatch(tensor.name)
    return int(found[1]) if found else None


def _fits(tensor: TensorInfo, other: TensorInfo) -> bool:
    return shapes_fit(tensor.shape[1:], other.shape[1:]) or _is_colored(tensor, other)


def _is_colored(tensor: TensorInfo, grey: TensorInfo) -> bool:
    sizes = grey.shape[1:3]
    return (
        len(grey.shape) in (3, 4)
        and grey.shape[3:] in ((), (1,))
        and len(tensor.shape) == 4
        and shapes_fit(tensor.shape[1:], (*sizes, _CHANNELS))
        and tensor.shape[-1] == _CHANNELS
    )


def _check_shapes(
    kind: str,
    of_file: Sequence[TensorInfo],
    of_student: Sequence[TensorInfo],
    pairs: Mapping[str, str],
) -> None:
    theirs = {tensor.name: tensor for tensor in of_student}
    for tensor in of_file:
        other = theirs[pairs[tensor.name]]
        if not _fits(tensor, other):
            raise _other_student(
                f"a file whose {kind} is {tensor} for a student whose {kind} is {other}",
                "the same shape, but for the batch",
            )


def _listed(tensors: Iterable[TensorInfo]) -> str:
    return ", ".join(map(str, tensors))


def _other_student(received: str, expected: str) -> Exception:
    return problem(received, expected, "pass the student that the file was made from")


def _are_shares(values: np.ndarray) -> bool:
    return bool(values.min() >= 0 and np.abs(values.sum(axis=-1) - 1).max() <= _TOLERANCE)


def _in_color(images: np.ndarray) -> np.ndarray:
    images = images if images.ndim == 4 else images[..., np.newaxis]
    return np.repeat(images, _CHANNELS, axis=-1)


def _softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    # Without an overflow for large negative numbers.
    return (0.5 * (1 + np.tanh(0.5 * values))).astype(values.dtype)


_ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": _softmax,
    "sigmoid": _sigmoid,
}
