"""One LiteRT interpreter: loading, running one example, and its errors in this package's form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_kd._checks import one_line, problem
from keras_kd._memory import most_alive, most_result_bytes, size_of
from keras_kd.tflite.runtimes.stderr import CapturedText, captured_stderr
from keras_kd.tflite.tensors import TensorInfo, concrete

KERNELS = ("xnnpack", "builtin", "reference")
# What LiteRT calls them: members of its OpResolverType.
RESOLVERS = {
    "xnnpack": "BUILTIN",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


class LiteRTInterpreter:
    """A model ready to run in LiteRT.

    Args:
        content: the bytes of a .tflite file.
        kernels: "xnnpack", what runs on phones, "builtin", LiteRT's own, or "reference", its
            slow and plain ones.
        threads: how many threads it may use.

    Raises:
        ValueError: if the bytes are not a model that LiteRT can load.
    """

    def __init__(self, content: bytes, kernels: str = "xnnpack", threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        with captured_stderr() as stderr:
            failure = None
            self._shapes: list[tuple[int, ...]] | None = None
            try:
                self._interpreter = Interpreter(
                    model_content=content,
                    num_threads=threads,
                    experimental_op_resolver_type=OpResolverType[RESOLVERS[kernels]],
                )
                self.inputs, self._input_indices = self._tensors("input")
                self.outputs, self._output_indices = self._tensors("output")
                self._operators = self._interpreter._get_ops_details()
                self._check_memory()
                if not any(tensor.takes_any_length for tensor in self.inputs):
                    # Otherwise the sizes in the file say nothing, and may be too small to run.
                    self._interpreter.allocate_tensors()
                    # Kernels know sizes that the file does not have right.
                    self._check_memory()
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
        """Run one example: stored values in, in the order of `inputs`, stored values out.

        Raises:
            ValueError: if the model cannot be run, or not on inputs of these sizes.
        """
        interpreter = self._interpreter
        self._resize([value.shape for value in inputs])
        # The state of an LSTM would otherwise leak from one example into the next.
        interpreter.reset_all_variables()
        for index, value in zip(self._input_indices, inputs, strict=True):
            interpreter.set_tensor(index, value)
        self.invoke()
        return [interpreter.get_tensor(index) for index in self._output_indices]

    def run_each(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As `run`, on any number of examples, one by one: arrays shaped (examples, ...)."""
        results = [
            self.run([array[index : index + 1] for array in inputs])
            for index in range(len(inputs[0]))
        ]
        if results:
            return [np.concatenate(of_examples) for of_examples in zip(*results, strict=True)]
        # They show the shapes where there is no example.
        return [np.empty((0, *concrete(t.shape[1:])), t.dtype) for t in self.outputs]

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        """Lay out memory for inputs of these shapes, if it is not for them already."""
        if shapes == self._shapes or not any(t.takes_any_length for t in self.inputs):
            return
        self._shapes = None
        try:
            with captured_stderr():
                for index, shape in zip(self._input_indices, shapes, strict=True):
                    self._interpreter.resize_tensor_input(index, shape, strict=True)
                self._interpreter.allocate_tensors()
            self._check_memory()
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                problem(
                    f"inputs of the shapes {shapes}, which the model cannot take "
                    f"({one_line(error)})",
                    f"sizes that fit {', '.join(map(str, self.inputs))} and its layers",
                    "pass longer examples: kernels and pooling need some length",
                )
            ) from error
        self._shapes = shapes

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

    def operators_outside_delegates(self) -> tuple[str, ...]:
        """The operators that LiteRT's own kernels run, each named once, in the order of the file.

        LiteRT keeps those that a delegate such as XNNPACK has replaced in its list: the ones that
        run are found by going back from the outputs.
        """
        makers: dict[int, dict] = {}
        # Delegates come last in the list and take the place of what they replaced.
        for operator in self._interpreter._get_ops_details():
            makers.update((int(index), operator) for index in operator["outputs"])
        running: dict[int, str] = {}
        tensors = list(self._output_indices)
        while tensors:
            operator = makers.get(tensors.pop())
            if operator is not None and operator["index"] not in running:
                running[operator["index"]] = operator["op_name"]
                tensors += [int(index) for index in operator["inputs"]]
        names = dict.fromkeys(name for _, name in sorted(running.items()))
        return tuple(name for name in names if name != "DELEGATE")

    def _check_memory(self) -> None:
        """Refuse a model whose tensors would fill the memory when it runs."""
        sizes = {
            int(detail["index"]): size_of(map(int, detail["shape"]), np.dtype(detail["dtype"]).name)
            for detail in self._interpreter.get_tensor_details()
        }
        steps = [
            (
                operator["op_name"],
                [int(index) for index in operator["inputs"]],
                {int(index): sizes.get(int(index), 0) for index in operator["outputs"]},
                0,
            )
            for operator in self._operators
        ]
        inputs = {index: sizes.get(index, 0) for index in self._input_indices}
        size, name = most_alive(inputs, steps, self._output_indices)
        if size > most_result_bytes():
            raise ValueError(f"its tensors take {size} bytes at one time, at {name}")

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
        shape=_shape(detail),
        dtype=np.dtype(detail["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _shape(detail: dict) -> tuple[int | None, ...]:
    """The shape, None where any size can be fed; the batch is the one in the file."""
    sizes = [int(size) for size in detail["shape"]]
    free = [int(size) == -1 for size in detail.get("shape_signature", [])] or [False] * len(sizes)
    return tuple(
        None if any_size and axis else size
        for axis, (size, any_size) in enumerate(zip(sizes, free, strict=True))
    )


def _reason(error: Exception, stderr: CapturedText) -> str:
    return one_line(error) or stderr.last_lines(1)
