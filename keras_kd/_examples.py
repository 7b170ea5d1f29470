"""Checked arrays of examples, by the name of the model's input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from keras_kd._checks import problem, shapes_fit


class InputInfo(Protocol):
    """The facts of one input: its shape has the batch first, unknown sizes are None."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Its shape."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        ...

    @property
    def is_quantized(self) -> bool:
        """Whether integers represent real numbers in it."""
        ...


def identifier(name: str) -> str:
    """A name that Python, Kotlin and the SavedModel format all accept: "acc_x" for "acc-x"."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return name if re.match(r"[A-Za-z]", name) else f"tensor_{name}"


def by_position(parts: Sequence[Any], inputs: Sequence[InputInfo]) -> dict[str, Any] | None:
    """Arrays for several inputs by name; None if they are something else.

    They are in the order of the inputs, or in another order that only shapes allow.

    Args:
        parts: one array for each input, shaped (examples, ...).
        inputs: what the model takes, in the order in which it takes them.
    """
    if len(parts) != len(inputs) or any(not _is_array(part) for part in parts):
        return None
    names = [tensor.name for tensor in inputs]
    fitting = [
        [n for n, part in enumerate(parts) if shapes_fit(part.shape, (None, *tensor.shape[1:]))]
        for tensor in inputs
    ]
    if all(number in numbers for number, numbers in enumerate(fitting)):
        return dict(zip(names, parts, strict=True))
    alone = [numbers[0] for numbers in fitting if len(numbers) == 1]
    if len(set(alone)) < len(inputs):
        return None
    return {name: parts[number] for name, number in zip(names, alone, strict=True)}


def _is_array(part: Any) -> bool:
    return hasattr(part, "__array__") and hasattr(part, "shape")


def examples_by_name(
    data: Any, inputs: Sequence[InputInfo], source: str = "x"
) -> dict[str, np.ndarray]:
    """The arrays of `data` by input name, shaped (examples, ...).

    Args:
        data: one array (or what numpy makes an array of) for a single input, or a dict by name;
            "acc-x" is the name of an input "acc_x", too.
        inputs: what the model takes; their batch size is ignored.
        source: what the caller named `data`, for messages.

    Returns:
        Arrays as long as one another: float32 for real-valued inputs, the type of the input for
        integers.

    Raises:
        ValueError: if names, shapes, lengths, types or values do not fit.
    """
    named = _named(data, inputs, source)
    arrays = {tensor.name: _checked(named[tensor.name], tensor, source) for tensor in inputs}
    number_of_examples(arrays, source)
    return arrays


def number_of_examples(arrays: Mapping[str, np.ndarray], source: str = "x") -> int:
    """How many examples there are.

    Args:
        arrays: one for each input, shaped (examples, ...).
        source: what the caller named them, for messages.

    Raises:
        ValueError: if the inputs have different numbers of examples.
    """
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise problem(
            f"{source} with these numbers of examples: {counts}",
            "as many examples for every input",
            "cut the arrays to the same length",
        )
    return next(iter(counts.values()))


def check_numbers(array: np.ndarray, count: int, name: str, fix: str) -> None:
    """Check that an array has numbers for each of `count` examples.

    Args:
        array: the array.
        count: how many examples there are.
        name: what the array is, for messages.
        fix: what to do if it is wrong.

    Raises:
        ValueError: if it has another length, or something else than numbers.
    """
    if array.shape[:1] != (count,) or array.dtype.kind not in "biuf":
        raise problem(
            f"{name} of shape {array.shape} and type {array.dtype} for {count} examples",
            "numbers for each example",
            fix,
        )


def check_finite(array: np.ndarray, name: str, fix: str) -> None:
    """Check that all numbers of an array are finite; arguments as for `check_numbers`.

    Raises:
        ValueError: if there are NaN or infinite values.
    """
    if not np.isfinite(array).all():
        raise problem(f"{name} with NaN or infinite values", "finite numbers", fix)


def _named(data: Any, inputs: Sequence[InputInfo], source: str) -> Mapping[str, Any]:
    names = [tensor.name for tensor in inputs]
    if isinstance(data, Mapping):
        if set(data) == set(names):
            return data
        # Users know their own names; files have names that all languages accept.
        renamed = {identifier(str(key)): array for key, array in data.items()}
        if len(renamed) < len(data) or set(renamed) != set(names):
            raise problem(
                f"{source} with the names {sorted(data)}",
                f"one array for each of {names}",
                "use the names of the model's inputs as keys",
            )
        return renamed
    if len(names) > 1:
        # By position it would go wrong silently: a file sorts its inputs by name.
        raise problem(
            f"{source} of type {type(data).__name__} for a model with {len(names)} inputs",
            f"a dict with the keys {names}",
            f"pass {{{', '.join(f'{name!r}: ...' for name in names)}}}",
        )
    return {names[0]: data}


def _checked(data: Any, tensor: InputInfo, source: str) -> np.ndarray:
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise problem(
            f"{source} for the input {tensor.name!r} with examples of several shapes",
            f"an array of shape {_wanted_shape(tensor)}",
            "bring the examples to one shape",
        ) from error
    if array.ndim == 0 or not shapes_fit(array.shape[1:], tensor.shape[1:]):
        raise problem(
            f"{source} of shape {array.shape} for the input {tensor.name!r}",
            f"the shape {_wanted_shape(tensor)}",
            _shape_fix(array.shape, tensor.shape),
        )
    if tensor.is_quantized or np.issubdtype(tensor.dtype, np.floating):
        return _checked_real(array, tensor, source)
    if not np.can_cast(array.dtype, tensor.dtype, "same_kind"):
        raise problem(
            f"{source} of type {array.dtype} for the input {tensor.name!r}",
            f"the type {tensor.dtype}",
            f"cast it: .astype({tensor.dtype.name!r})",
        )
    return array.astype(tensor.dtype, copy=False)


def _checked_real(array: np.ndarray, tensor: InputInfo, source: str) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.floating):
        # The commonest mistake: pixels of 0..255 for a student that was trained on 0..1.
        raise problem(
            f"{source} of type {array.dtype} for the input {tensor.name!r}",
            "real numbers scaled as the student was trained on",
            "pass x.astype('float32') / 255 if it was trained on 0..1, otherwise "
            "x.astype('float32')",
        )
    name = f"{source} for the input {tensor.name!r}"
    check_finite(array, name, "clean the data: numpy.isfinite finds the examples")
    return array.astype(np.float32, copy=False)


def _wanted_shape(tensor: InputInfo) -> str:
    sizes = ("any" if size is None else str(size) for size in tensor.shape[1:])
    return f"({', '.join(['examples', *sizes])})"


def _shape_fix(received: tuple[int, ...], shape: tuple[int | None, ...]) -> str:
    if shapes_fit(received, shape[1:]):
        return "add the batch in front: x[None], or dataset.batch(32)"
    if shapes_fit((*received, 1)[1:], shape[1:]):
        return "add the channel at the end: x[..., None]"
    return "reshape or resize the examples"
