"""Measure the memory that LiteRT takes for a model. A process of its own, with nothing else in it.

It is started by its path, so that nothing of keras_kd (and with it TensorFlow) is imported.
Arguments: a directory with `smallest.tflite`, `model.tflite` and `inputs.npz` (arrays "0", "1", ...
in the order of the model's inputs), and the name of a member of OpResolverType. Writes `memory.txt`
there: the peak in bytes after running the smallest model, and after running the model as well.
"""

import os
import resource
import sys

# Python puts the directory of this file first, and its modules must not hide others of their name.
del sys.path[0]

import numpy as np  # noqa: E402
from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: E402


def run(path: str, inputs: list, resolver: str) -> Interpreter:
    """Run a model twice and return what must not be freed before the peak is read."""
    with open(path, "rb") as file:
        interpreter = Interpreter(
            model_content=file.read(),
            num_threads=1,
            experimental_op_resolver_type=OpResolverType[resolver],
        )
    indices = [detail["index"] for detail in interpreter.get_input_details()]
    for index, value in zip(indices, inputs, strict=True):
        interpreter.resize_tensor_input(index, value.shape)
    interpreter.allocate_tensors()
    for _ in range(2):
        for index, value in zip(indices, inputs, strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
    return interpreter


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    # Linux hands ru_maxrss down: it would be the peak of the process that started this one.
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["VmHWM"].split()[0]) * 1024
    # macOS counts in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(directory: str, resolver: str) -> None:
    """Run the smallest model, then the model."""
    with np.load(os.path.join(directory, "inputs.npz")) as stored:
        inputs = [stored[str(index)] for index in range(len(stored.files))]
    smallest = run(os.path.join(directory, "smallest.tflite"), [np.ones(1, np.float32)], resolver)
    before = peak_bytes()
    model = run(os.path.join(directory, "model.tflite"), inputs, resolver)
    after = peak_bytes()
    del smallest, model
    with open(os.path.join(directory, "memory.txt"), "w", encoding="utf-8") as file:
        file.write(f"{before} {after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
