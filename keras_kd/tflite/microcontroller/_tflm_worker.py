"""Run one model in TensorFlow Lite Micro. A process of its own: a damaged model ends it.

It is started by its path, so that nothing of keras_kd (and with it TensorFlow) is imported.
Arguments: a directory with `model.tflite` and `inputs.npz` (arrays "0", "1", ... in the order of
the model's inputs, shaped (examples, ...)), and the number of outputs. Writes `outputs.npz` there:
the outputs likewise, and "arena", the bytes of the smallest arena in which the model runs.
"""

import os
import re
import sys
import tempfile

# Python puts the directory of this file first, and its modules must not hide others of their name.
del sys.path[0]

import numpy as np  # noqa: E402
from tflite_micro.python.tflite_micro import runtime  # noqa: E402

# What a model does not use costs nothing here; 256 bytes or less end the process.
ARENA_BYTES = 64 * 1024 * 1024
ARENA_STEP = 64
ARENA_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")


def main(directory: str, output_count: int) -> None:
    """Run every example and write what comes out."""
    with open(os.path.join(directory, "model.tflite"), "rb") as file:
        content = file.read()
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=ARENA_BYTES)
    with np.load(os.path.join(directory, "inputs.npz")) as stored:
        inputs = [stored[str(index)] for index in range(len(stored.files))]
    outputs = [[] for _ in range(output_count)]
    for example in range(len(inputs[0])):
        run(interpreter, inputs, example)
        for index, collected in enumerate(outputs):
            collected.append(interpreter.get_output(index))
        interpreter.reset()
    arrays = {str(index): np.concatenate(output) for index, output in enumerate(outputs)}
    arena = smallest_arena(content, inputs, allocated(interpreter))
    np.savez(os.path.join(directory, "outputs.npz"), arena=arena, **arrays)


def run(interpreter: runtime.Interpreter, inputs: list[np.ndarray], example: int) -> None:
    """Run one example."""
    for index, array in enumerate(inputs):
        interpreter.set_input(array[example : example + 1], index)
    interpreter.invoke()


def allocated(interpreter: runtime.Interpreter) -> int:
    """What stays allocated, in bytes; TFLM says so on file descriptor 2 only."""
    original = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                interpreter.print_allocations()
            finally:
                os.dup2(original, 2)
            file.seek(0)
            text = file.read().decode(errors="replace")
    finally:
        os.close(original)
    total = ARENA_TOTAL.search(text)
    if total is None:
        raise RuntimeError(f"print_allocations did not say 'Arena allocation total': {text[:200]}")
    return int(total.group(1))


def smallest_arena(content: bytes, inputs: list[np.ndarray], at_least: int) -> int:
    """The smallest arena in which the first example runs, to 64 bytes.

    While the memory is planned some kernels, LSTMs for example, take more than stays allocated.
    """
    if runs_in(content, inputs, at_least):
        return at_least
    low, high = at_least, 2 * at_least
    while not runs_in(content, inputs, high):
        if high > ARENA_BYTES:
            raise RuntimeError("the model runs in no arena of a limited size")
        low, high = high, 2 * high
    while high - low > ARENA_STEP:
        middle = (low + high) // 2
        low, high = (low, middle) if runs_in(content, inputs, middle) else (middle, high)
    return high


def runs_in(content: bytes, inputs: list[np.ndarray], arena: int) -> bool:
    """Whether the first example runs in an arena. A child tries: in too small a one it may die."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            run(runtime.Interpreter.from_bytes(content, arena_size=arena), inputs, 0)
        except RuntimeError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
