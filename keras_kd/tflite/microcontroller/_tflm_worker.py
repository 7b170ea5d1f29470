"""Run one model in TensorFlow Lite Micro. A process of its own: a damaged model ends it.

It is started by its path, so that nothing of keras_kd (and with it TensorFlow) is imported.
Arguments: a directory with `model.tflite` and `inputs.npz` (arrays "0", "1", ... in the order of
the model's inputs, shaped (examples, ...)), and the number of outputs. Writes `outputs.npz` there,
and the sizes of the arena to file descriptor 2.
"""

import os
import sys

# Python puts the directory of this file first, and its modules must not hide others of their name.
del sys.path[0]

import numpy as np  # noqa: E402
from tflite_micro.python.tflite_micro import runtime  # noqa: E402

# What a model does not use costs nothing here; 256 bytes or less end the process.
ARENA_BYTES = 64 * 1024 * 1024


def main(directory: str, output_count: int) -> None:
    """Run every example and write what comes out."""
    with open(os.path.join(directory, "model.tflite"), "rb") as file:
        interpreter = runtime.Interpreter.from_bytes(file.read(), arena_size=ARENA_BYTES)
    with np.load(os.path.join(directory, "inputs.npz")) as stored:
        inputs = [stored[str(index)] for index in range(len(stored.files))]
    outputs = [[] for _ in range(output_count)]
    for example in range(len(inputs[0])):
        for index, array in enumerate(inputs):
            interpreter.set_input(array[example : example + 1], index)
        interpreter.invoke()
        for index, collected in enumerate(outputs):
            collected.append(interpreter.get_output(index))
        interpreter.reset()
    interpreter.print_allocations()
    arrays = {str(index): np.concatenate(output) for index, output in enumerate(outputs)}
    np.savez(os.path.join(directory, "outputs.npz"), **arrays)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
