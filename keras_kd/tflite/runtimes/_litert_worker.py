"""What runs in LiteRT's own process: loading files, running examples, measuring.

Nothing but NumPy and LiteRT is imported here, and neither Keras nor TensorFlow.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_kd._checks import one_line, problem
from keras_kd._limits import most_seconds, renew, time_limit
from keras_kd._memory import most_alive, most_result_bytes, size_of
from keras_kd._native import CapturedText, captured_stderr
from keras_kd.tflite.runtimes.latency import measure_microseconds
from keras_kd.tflite.tensors import TensorInfo, concrete

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter


# What LiteRT calls the kernels: members of its OpResolverType.
RESOLVERS = {
    "xnnpack": "BUILTIN",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
# Models stay loaded for the calls that follow; those not used for longest leave first.
_MOST_LOADED = 32
# Measured runs may take this many times as long as the first ones, and some seconds more.
_TIMES_AS_LONG = 20
_SECONDS = 60


class Setting(NamedTuple):
    """What is run, and how."""

    content: bytes
    kernels: str
    threads: int


# Pairs of the number of an input and of the output whose value it takes in the next call.
Feedback = Sequence[tuple[int, int]]


class Unknown(NamedTuple):
    """The answer where the content of a file is needed again: this process is a new one."""


_loaded: OrderedDict[tuple[str, str, int], _Interpreter] = OrderedDict()


def load(
    key: tuple[str, str, int], content: bytes
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Load a file under a key, and return its inputs and outputs.

    Raises:
        ValueError: if the bytes are not a model that LiteRT can load.
    """
    if key not in _loaded:
        _loaded[key] = _Interpreter(Setting(content, *key[1:]))
        while len(_loaded) > _MOST_LOADED:
            _loaded.popitem(last=False)
    return _loaded[key].inputs, _loaded[key].outputs


def run_each(
    key: tuple[str, str, int],
    inputs: Sequence[np.ndarray],
    feedback: Feedback | None = None,
    is_first: bool = True,
) -> list[np.ndarray] | Unknown:
    """Run examples on a file that was loaded under a key; see `LiteRTInterpreter.run_each`."""
    if key not in _loaded:
        return Unknown()
    _loaded.move_to_end(key)
    return _loaded[key].run_each(inputs, feedback, is_first)


def measure(
    settings: Sequence[Setting], inputs: Sequence[Sequence[np.ndarray]], runs: int
) -> list[np.ndarray]:
    """How many microseconds each of the runs takes, in turns; see `measure_microseconds`.

    Args:
        settings: files, kernels, threads.
        inputs: for each of them one example.
        runs: how many runs of each are measured.
    """
    interpreters = [_Interpreter(setting) for setting in settings]
    for interpreter, example in zip(interpreters, inputs, strict=True):
        interpreter.run(example)
    started = time.monotonic()
    for interpreter in interpreters:
        renew()
        interpreter.invoke()
    # To begin the time again in each run would be measured too.
    usual = _SECONDS + _TIMES_AS_LONG * runs * (time.monotonic() - started)
    with time_limit(most_seconds(usual)):
        return measure_microseconds([each.invoke for each in interpreters], runs)


def outside_xnnpack(content: bytes, inputs: Sequence[np.ndarray]) -> tuple[str, ...]:
    """The operators that XNNPACK leaves to LiteRT's own kernels; see `Benchmark`."""
    interpreter = _Interpreter(Setting(content, "xnnpack", 1))
    interpreter.run(inputs)
    return interpreter.operators_outside_delegates()


def peaks(
    smallest: bytes, path: str, inputs: Sequence[np.ndarray], kernels: str
) -> tuple[int, int]:
    """The most bytes that this process has held after the smallest model, and after another.

    Args:
        smallest: the bytes of the smallest model, which takes one float32.
        path: the file of the other: its bytes come with it.
        inputs: one example for it.
        kernels: as in `RESOLVERS`.
    """
    ones = [np.ones(1, np.float32)]
    models = [_run_twice(smallest, ones, kernels)]
    before = _peak_bytes()
    models.append(_run_twice(Path(path).read_bytes(), inputs, kernels))
    # Neither is freed before the peak is read.
    return before, _peak_bytes()


def _run_twice(content: bytes, inputs: Sequence[np.ndarray], kernels: str) -> _Interpreter:
    interpreter = _Interpreter(Setting(content, kernels, 1))
    for _ in range(2):
        interpreter.run(inputs)
    return interpreter


def _peak_bytes() -> int:
    # Linux hands ru_maxrss down: it would be the peak of the process that started this one.
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["VmHWM"].split()[0]) * 1024
    # macOS counts in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class _Interpreter:
    """A model ready to run in LiteRT."""

    def __init__(self, setting: Setting) -> None:
        with captured_stderr() as stderr:
            failure = None
            self._setting = setting
            self._shapes: list[tuple[int, ...]] | None = None
            try:
                self._interpreter = self._new_interpreter()
                self._has_variables = _has_variables(setting.content)
                self._is_new = True
                self.inputs, self._input_indices = self._tensors("input")
                self.outputs, self._output_indices = self._tensors("output")
                self._operators = self._interpreter._get_ops_details()
                check_operands((each["op_name"], each["inputs"]) for each in self._operators)
                self._check_memory()
                if not any(tensor.takes_any_length for tensor in self.inputs):
                    # Otherwise the sizes in the file mean nothing, and may be too small to run.
                    self._interpreter.allocate_tensors()
                    # Kernels compute sizes that are wrong in the file.
                    self._check_memory()
            except Exception as error:  # Damage shows as errors of many types.
                failure = error
        if failure is not None:
            raise problem(
                f"{len(setting.content)} bytes that LiteRT cannot load "
                f"({_reason(failure, stderr)})",
                "an undamaged .tflite model that uses built-in operators only",
                "convert the student again, or copy the file again",
            ) from failure

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run one example: stored values in, in the order of `inputs`, stored values out.

        Raises:
            ValueError: if the model cannot be run, or not on inputs of these sizes.
        """
        renew()
        self._begin([value.shape for value in inputs])
        return self._run(inputs)

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on memory that is laid out, from the state that is there."""
        interpreter = self._interpreter
        self._is_new = False
        try:
            for index, value in zip(self._input_indices, inputs, strict=True):
                interpreter.set_tensor(index, value)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._output_indices]
        except Exception as error:
            raise problem(
                f"a model that LiteRT loads but cannot run ({one_line(error)})",
                "an undamaged .tflite model, and words within its vocabulary if it reads words",
                "check the inputs; convert the student again, or copy the file again",
            ) from error

    def run_each(
        self,
        inputs: Sequence[np.ndarray],
        feedback: Feedback | None = None,
        is_first: bool = True,
    ) -> list[np.ndarray]:
        """As `run`, on any number of examples, one by one: arrays shaped (examples, ...).

        Args:
            inputs: stored values in the order of `inputs`, shaped (examples, ...).
            feedback: for a stream, in which each example begins with what the one before it left,
                which input then takes the value of which output. None: no stream.
            is_first: whether this is the beginning of a stream.
        """
        results: list[list[np.ndarray]] = []
        for index in range(len(inputs[0])):
            example = [array[index : index + 1] for array in inputs]
            for into, source in feedback or () if index else ():
                example[into] = results[-1][source]
            if feedback is None or (is_first and index == 0):
                results.append(self.run(example))
            else:
                renew()
                results.append(self._run(example))
        if results:
            return [np.concatenate(of_examples) for of_examples in zip(*results, strict=True)]
        # They show the shapes where there is no example.
        return [np.empty((0, *concrete(t.shape[1:])), t.dtype) for t in self.outputs]

    def _begin(self, shapes: list[tuple[int, ...]]) -> None:
        """Lay out memory for inputs of these shapes and set what is kept between calls back."""
        if self._has_variables and not self._is_new:
            # `reset_all_variables` leaves resource variables as they are, and initializes none.
            with captured_stderr():
                self._interpreter = self._new_interpreter()
                if not any(t.takes_any_length for t in self.inputs):
                    self._interpreter.allocate_tensors()
            self._shapes = None
        self._resize(shapes)
        # The state of an LSTM would otherwise leak from one example into the next.
        self._interpreter.reset_all_variables()

    def _new_interpreter(self) -> Interpreter:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        return Interpreter(
            model_content=self._setting.content,
            num_threads=self._setting.threads,
            experimental_op_resolver_type=OpResolverType[RESOLVERS[self._setting.kernels]],
        )

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
        except Exception as error:
            raise problem(
                f"inputs of the shapes {shapes}, which the model cannot take ({one_line(error)})",
                f"sizes that fit {', '.join(map(str, self.inputs))} and its layers",
                "pass longer examples: kernels and pooling need some length",
            ) from error
        self._shapes = shapes

    def invoke(self) -> None:
        """Run once more on the inputs that are set already."""
        self._interpreter.invoke()

    def operators_outside_delegates(self) -> tuple[str, ...]:
        """The operators that LiteRT's own kernels run, each named once, in the order of the file.

        LiteRT keeps those that a delegate such as XNNPACK has replaced in its list: the ones that
        run are found by going back from the outputs.
        """
        makers: dict[int, dict] = {}
        # Delegates come last in the list and represent the operators that they replaced.
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
        steps: list[tuple[str, Iterable[Hashable], Mapping[Hashable, int], int]] = [
            (
                operator["op_name"],
                [int(index) for index in operator["inputs"]],
                {int(index): sizes.get(int(index), 0) for index in operator["outputs"]},
                0,
            )
            for operator in self._operators
        ]
        inputs: dict[Hashable, int] = {index: sizes.get(index, 0) for index in self._input_indices}
        size, name = most_alive(inputs, steps, self._output_indices)
        if size > most_result_bytes():
            raise ValueError(f"its tensors take {size} bytes at one time, at {name}")

    def _tensors(self, kind: str) -> tuple[tuple[TensorInfo, ...], list[int]]:
        """The inputs or outputs in the order of the file, and their indices in the interpreter."""
        details = getattr(self._interpreter, f"get_{kind}_details")()
        names = self._signature_names(kind)
        infos = tuple(
            _tensor_info(names.get(detail["index"]) or detail["name"], detail) for detail in details
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


def _has_variables(content: bytes) -> bool:
    """Whether a file that LiteRT has loaded has resource variables."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator, Model

    model = Model.GetRootAs(content)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    return any(c is not None and c.BuiltinCode() == BuiltinOperator.VAR_HANDLE for c in codes)


def _reason(error: Exception, stderr: CapturedText) -> str:
    return one_line(error) or stderr.last_lines(1)


# By the number of inputs that they need. LiteRT reads inputs before it counts them: a kernel that
# gets too few reads memory beside its tensors and crashes, refuses, or computes from that memory.
# Counts and optional inputs are those of the kernels of LiteRT 2; operators that are not here need
# one input, or check their number.
_NEEDED = {
    2: (
        "ADD", "ARG_MAX", "ARG_MIN", "ATAN2", "BATCH_MATMUL", "BITWISE_XOR", "BROADCAST_TO",
        "CONV_2D", "CONV_3D", "CUMSUM", "DEPTHWISE_CONV_2D", "DIV", "EMBEDDING_LOOKUP", "EQUAL",
        "EXPAND_DIMS", "FILL", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED", "GATHER", "GATHER_ND",
        "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_OR", "MAXIMUM",
        "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NOT_EQUAL", "PAD", "POW", "PRELU", "REDUCE_ALL",
        "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR", "REVERSE_SEQUENCE", "REVERSE_V2", "RIGHT_SHIFT", "SEGMENT_SUM",
        "SPLIT", "SQUARED_DIFFERENCE", "SUB", "SUM", "TILE", "TOPK_V2", "TRANSPOSE",
    ),
    3: (
        "BATCH_TO_SPACE_ND", "CONV_3D_TRANSPOSE", "DYNAMIC_UPDATE_SLICE", "PADV2", "RANGE",
        "SCATTER_ND", "SELECT", "SELECT_V2", "SLICE", "SPACE_TO_BATCH_ND", "SPLIT_V",
        "TRANSPOSE_CONV",
    ),
    4: ("ONE_HOT", "SPARSE_TO_DENSE", "STRIDED_SLICE"),
    5: ("RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_RNN"),
}  # fmt: skip
_LEAST = {name: count for count, names in _NEEDED.items() for name in names}
# The operator works without a tensor there: a bias mostly.
_OPTIONAL = {
    "CONV_2D": (2,),
    "CONV_3D": (2,),
    "CONV_3D_TRANSPOSE": (3,),
    "DEPTHWISE_CONV_2D": (2,),
    "FULLY_CONNECTED": (2,),
    "SVDF": (3,),
    "TRANSPOSE_CONV": (3,),
}
# Most inputs of these are optional, and the kernels check the others.
_CHECKED_BY_LITERT = (
    "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "LSTM",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)  # fmt: skip


def check_operands(operators: Iterable[tuple[str, Sequence[int]]]) -> None:
    """Refuse operators that lack an input.

    Args:
        operators: the name of each, and the indices of its inputs: -1 where there is none.

    Raises:
        ValueError: if one lacks an input that it needs.
    """
    for name, inputs in operators:
        if name in _CHECKED_BY_LITERT:
            continue
        least = _LEAST.get(name, 0)
        if len(inputs) < least:
            raise ValueError(f"{name} has {len(inputs)} of the {least} inputs that it needs")
        for position, index in enumerate(inputs):
            if index < 0 and position not in _OPTIONAL.get(name, ()):
                raise ValueError(f"{name} lacks its input {position}")
