"""Test vectors for a microcontroller, in C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.microcontroller.templates import c_type, fill, lines_of, literal

COUNT = 3


def choose(
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    others: Mapping[str, np.ndarray] | None = None,
) -> list[int]:
    """The numbers of the three most informative examples: first those with other answers.

    Args:
        inputs: values as the inputs store them, shaped (examples, ...).
        outputs: values as the outputs store them, likewise.
        others: outputs of a runtime that is known to be wrong: only examples whose outputs
            differ are chosen, if there are enough.

    Raises:
        ValueError: if there are not three different examples.
    """
    questions = _rows(inputs)
    if others is not None:
        telling = [
            row
            for row in questions
            if any(not np.array_equal(outputs[name][row], others[name][row]) for name in outputs)
        ]
        questions = telling if len(telling) >= COUNT else questions
    answers = [tuple(array[row].argmax() for array in outputs.values()) for row in questions]
    firsts = dict(zip(reversed(answers), reversed(list(questions)), strict=True))
    chosen = sorted(firsts.values())[:COUNT]
    chosen += [row for row in questions if row not in chosen][: COUNT - len(chosen)]
    if len(chosen) < COUNT:
        raise problem(
            f"{len(chosen)} different examples for the test vectors",
            f"at least {COUNT}",
            "pass x with real examples, such as x_test[:100]",
        )
    return sorted(chosen)


def _rows(inputs: Mapping[str, np.ndarray]) -> list[int]:
    """The number of the first of each of the different examples."""
    seen: dict[bytes, int] = {}
    for row in range(len(next(iter(inputs.values())))):
        seen.setdefault(b"".join(array[row].tobytes() for array in inputs.values()), row)
    return list(seen.values())


def vectors_source(
    name: str, arrays: Mapping[str, Sequence[np.ndarray]], tolerance: float
) -> tuple[str, str]:
    """The texts of the header and of the source that hold the vectors.

    Args:
        name: what the files are named after.
        arrays: under "input" and "output" the values of each tensor, shaped (3, ...).
        tolerance: how far floats may be off.
    """
    declarations, definitions = [], []
    for kind, tensors in arrays.items():
        for number, array in enumerate(tensors):
            flat = array.reshape(len(array), -1)
            declaration = (
                f"const {c_type(array.dtype)} {name}_{kind}_{number}[{len(flat)}][{flat.shape[1]}]"
            )
            declarations.append(f"extern {declaration};")
            rows = [f"    {{\n{lines_of(map(literal, row), ' ' * 8)}\n    }}," for row in flat]
            definitions.append("\n".join([f"{declaration} = {{", *rows, "};"]))
    header = fill(
        "vectors.h",
        upper=name.upper(),
        count=COUNT,
        tolerance=f"{tolerance:g}f",
        declarations="\n".join(declarations),
    )
    return header, fill("vectors.cc", name=name, definitions="\n\n".join(definitions))
