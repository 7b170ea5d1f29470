"""A converted model: its file, its verification, its time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.file import TFLiteFile
from keras_kd.tflite.runtimes.benchmark import Benchmark, run_benchmark
from keras_kd.tflite.tensors import random_stored

if TYPE_CHECKING:
    # It imports Keras, which running a file does not need.
    from keras_kd.tflite.verification.verification import Verification


class TFLiteModel(TFLiteFile):
    """A model as it runs on a device: what `keras_kd.tflite.convert` returns.

    `predict` takes and returns real numbers, even if the file computes in integers. Examples go
    through the file one by one, as on the device.

    Args:
        content: the bytes of a .tflite file, with a batch size of 1.
        verification: the comparison with the student that the file was made from, if there is one.

    Attributes:
        content: those bytes.
        verification: the evidence of the `convert` that made them; None for a file from elsewhere.
        inputs: the inputs, a `TensorInfo` each, in the order of the file.
        outputs: the outputs, likewise.

    Raises:
        TypeError: if the content is not bytes.
        ValueError: if LiteRT cannot load the bytes, or if they have another batch size.

    Example:
        ```python
        model = keras_kd.tflite.convert(student, "int8", representative_data=x_train)
        model.save("student.tflite")
        probabilities = model.predict(x_test)
        ```
    """

    def __init__(self, content: bytes, verification: Verification | None = None) -> None:
        super().__init__(content)
        self.verification = verification

    def benchmark(
        self,
        runs: int = 200,
        threads: int | Sequence[int] | None = None,
        kernels: str | Sequence[str] | None = None,
        x: Any = None,
        *,
        memory: bool = True,
    ) -> Benchmark:
        """Measure how long LiteRT takes for one example here, and how much memory.

        Args:
            runs: how many runs are measured in each setting.
            threads: how many threads LiteRT may use, or several such numbers. None: 1, and as many
                as there are cores.
            kernels: as in `predict`, or several of them. None: XNNPACK and LiteRT's own.
            x: what is run: the first of these examples. None: random numbers; a file that takes
                sequences of any length gets one of length 32.
            memory: whether memory is measured, too, which takes a separate process.

        Raises:
            ValueError: if an option is out of range, or if `x` does not fit.
        """
        return run_benchmark(self.content, self._one_example(x), runs, threads, kernels, memory)

    def _one_example(self, x: Any) -> list[np.ndarray]:
        """Stored values for each input, in the order of the file."""
        if x is None:
            return [random_stored(tensor, 1) for tensor in self.inputs]
        stored = self.quantize_inputs(x)
        if len(next(iter(stored.values()))) == 0:
            raise problem("x without an example", "at least one", "pass x_test[:1]")
        return [stored[tensor.name][:1] for tensor in self.inputs]

    def __reduce__(self) -> tuple:
        return TFLiteModel, (self.content, self.verification)
