"""One LiteRT interpreter: loading, running one example, and its errors in this package's form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_kd._checks import one_line, problem
from keras_kd.tflite.runtimes.stderr import CapturedText, captured_stderr
from keras_kd.tflite.tensors import TensorInfo

KERNELS = ("xnnpack", "builtin")


class LiteRTInterpreter:
    """A model ready to run in LiteRT.

    Args:
        content: the bytes of a .tflite file.
        kernels: "xnnpack", what runs on phones, or "builtin", LiteRT's own.
        threads: how many threads it may use.

    Raises:
        ValueError: if the bytes are not a model that LiteRT can load.
    """

    def __init__(self, content: bytes, kernels: str = "xnnpack", threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolvers = {
            "xnnpack": OpResolverType.BUILTIN,
            "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        }
        with captured_stderr() as stderr:
            failure = None
            try:
                self._interpreter = Interpreter(
                    model_content=content,
                    num_threads=threads,
                    experimental_op_resolver_type=resolvers[kernels],
                )
                self._interpreter.allocate_tensors()
                self.inputs, self._input_indices = self._tensors("input")
                self.outputs, self._output_indices = self._tensors("output")
            except (RuntimeError, ValueError) as error:
                failure = error
        if failure is not None:
            raise ValueError(
                problem(
                    f"{len(content)} bytes that LiteRT cannot load ({_reason(failure, stderr)})",
                    "an undamaged .tflite model that uses built-in operators only",
                    "convert the student again, or copy the file again",
                )
            ) from failure

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run one example: stored values in, in the order of `inputs`, stored values out."""
        interpreter = self._interpreter
        # The state of an LSTM would otherwise leak from one example into the next.
        interpreter.reset_all_variables()
        for index, value in zip(self._input_indices, inputs, strict=True):
            interpreter.set_tensor(index, value)
        self.invoke()
        return [interpreter.get_tensor(index) for index in self._output_indices]

    def invoke(self) -> None:
        """Run once more on the inputs that are set already."""
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise ValueError(
                problem(
                    f"a model that LiteRT loads but cannot run ({one_line(error)})",
                    "an undamaged .tflite model",
                    "convert the student again, or copy the file again",
                )
            ) from error

    def _tensors(self, kind: str) -> tuple[tuple[TensorInfo, ...], list[int]]:
        """The inputs or outputs in the order of the file, and their indices in the interpreter."""
        details = getattr(self._interpreter, f"get_{kind}_details")()
        names = self._signature_names(kind)
        infos = tuple(
            _tensor_info(names.get(detail["index"], detail["name"]), detail) for detail in details
        )
        return infos, [detail["index"] for detail in details]

    def _signature_names(self, kind: str) -> dict[int, str]:
        """Name by index; files of other makers may have no signature."""
        signatures = list(self._interpreter.get_signature_list())
        if len(signatures) != 1:
            return {}
        runner = self._interpreter.get_signature_runner(signatures[0])
        details = getattr(runner, f"get_{kind}_details")()
        return {detail["index"]: name for name, detail in details.items()}


def _tensor_info(name: str, detail: dict) -> TensorInfo:
    scale, zero_point = detail["quantization"]
    return TensorInfo(
        name=name,
        shape=tuple(int(size) for size in detail["shape"]),
        dtype=np.dtype(detail["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _reason(error: Exception, stderr: CapturedText) -> str:
    return one_line(error) or stderr.last_lines(1)
