"""What runs in the process of TensorFlow Lite Micro (TFLM): a damaged model ends it.

Nothing but NumPy and TFLM is imported here, and neither Keras nor TensorFlow.
"""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_kd._native import captured_stderr

if TYPE_CHECKING:
    from tflite_micro.python.tflite_micro import runtime

# What a model does not use costs nothing here; 256 bytes or less end the process.
ARENA_BYTES = 64 * 1024 * 1024
# TFLM aligns the ends of the arena to it.
ARENA_STEP = 16
ARENA_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
SECONDS_IN_AN_ARENA = 60


def run_examples(
    content: bytes,
    inputs: list[np.ndarray],
    output_count: int,
    has_variables: bool = False,
    feedback: Sequence[tuple[int, int]] | None = None,
) -> tuple[list[np.ndarray], int]:
    """Run every example.

    Args:
        content: the bytes of a file that LiteRT has run before.
        inputs: arrays in the order of the model's inputs, shaped (examples, ...).
        output_count: how many outputs it has.
        has_variables: whether the file has resource variables: `reset` sets them to zero, not to
            the values that they begin with.
        feedback: for a stream; see `LiteRTInterpreter.run_each`.

    Returns:
        The outputs likewise, and the bytes of the smallest arena in which the model runs.

    Raises:
        ValueError: if TFLM refuses the model; its text is the reason.
    """
    with captured_stderr() as stderr:
        failure = None
        try:
            result = _run_examples(content, inputs, output_count, has_variables, feedback)
        except (RuntimeError, ValueError, TypeError) as error:
            failure = error
    if failure is not None:
        # TFLM gives its reason on standard error only.
        lines = stderr.last_lines(20)
        last = f"{type(failure).__name__}: {failure}"
        raise ValueError(f"{lines}; {last}" if lines else last)
    return result


def _run_examples(
    content: bytes,
    inputs: list[np.ndarray],
    output_count: int,
    has_variables: bool,
    feedback: Sequence[tuple[int, int]] | None,
) -> tuple[list[np.ndarray], int]:
    interpreter = _interpreter(content, ARENA_BYTES)
    outputs = [[] for _ in range(output_count)]
    for example in range(len(inputs[0])):
        if example and feedback is None:
            if has_variables:
                interpreter = _interpreter(content, ARENA_BYTES)
            else:
                interpreter.reset()
        values = [array[example : example + 1] for array in inputs]
        for into, source in feedback or () if example else ():
            values[into] = outputs[source][-1]
        run(interpreter, values)
        for index, collected in enumerate(outputs):
            collected.append(interpreter.get_output(index))
    arena = smallest_arena(content, inputs, allocated(interpreter))
    return [np.concatenate(output) for output in outputs], arena


def _interpreter(content: bytes, arena: int) -> runtime.Interpreter:
    from tflite_micro.python.tflite_micro import runtime

    return runtime.Interpreter.from_bytes(content, arena_size=arena)


def run(interpreter: runtime.Interpreter, example: list[np.ndarray]) -> None:
    """Run one example: arrays in the order of the model's inputs."""
    for index, array in enumerate(example):
        interpreter.set_input(array, index)
    interpreter.invoke()


def allocated(interpreter: runtime.Interpreter) -> int:
    """What stays allocated, in bytes; TFLM prints it to file descriptor 2 only."""
    with captured_stderr() as stderr:
        interpreter.print_allocations()
    total = ARENA_TOTAL.search(stderr.text)
    if total is None:
        raise RuntimeError(
            f"print_allocations did not print 'Arena allocation total': {stderr.text[:200]}"
        )
    return int(total.group(1))


def smallest_arena(content: bytes, inputs: list[np.ndarray], at_least: int) -> int:
    """The smallest arena in which the first example runs, a multiple of 16 bytes.

    While the memory is planned more is taken than stays allocated: for the planner itself, and by
    some kernels, LSTMs for example.
    """
    low = high = math.ceil(at_least / ARENA_STEP)
    while not runs_in(content, inputs, high * ARENA_STEP):
        if high * ARENA_STEP > ARENA_BYTES:
            raise RuntimeError("the model runs in no arena of a limited size")
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        runs = runs_in(content, inputs, middle * ARENA_STEP)
        low, high = (low, middle) if runs else (middle, high)
    return high * ARENA_STEP


def runs_in(content: bytes, inputs: list[np.ndarray], arena: int) -> bool:
    """Whether the first example runs in an arena. A child tries: in too small a one it may die."""
    child = os.fork()
    if child == 0:
        # It does not inherit the timer of this process.
        signal.alarm(SECONDS_IN_AN_ARENA)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            run(_interpreter(content, arena), [array[:1] for array in inputs])
        except RuntimeError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
