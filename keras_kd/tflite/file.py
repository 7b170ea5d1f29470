"""A .tflite file: its bytes, its tensors, and running it in LiteRT."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from keras_kd._checks import check_choice, problem
from keras_kd._examples import examples_by_name
from keras_kd._files import replacing
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel
from keras_kd.tflite.contents.inspection import Inspection, inspect_file, read_file
from keras_kd.tflite.contents.state import State, state_outputs
from keras_kd.tflite.runtimes.litert import KERNELS, LiteRTInterpreter
from keras_kd.tflite.tensors import check_scale

_File = TypeVar("_File", bound="TFLiteFile")


class TFLiteFile:
    """The bytes of a .tflite file, run by the names of its inputs and outputs.

    `predict` takes and returns real numbers also when the file computes in integers. Whatever the
    number of examples, they go through the file one by one, as on the device.

    Args:
        content: the bytes of a .tflite file, with a batch size of 1.

    Attributes:
        content: those bytes.
        inputs: the inputs, a `TensorInfo` each, in the order of the file.
        outputs: the outputs, likewise.

    Raises:
        TypeError: if the content is not bytes.
        ValueError: if LiteRT cannot load the bytes, or if they have another batch size.
    """

    def __init__(self, content: bytes) -> None:
        if not isinstance(content, bytes | bytearray | memoryview):
            raise problem(
                f"content of type {type(content).__name__}",
                "the bytes of a .tflite file",
                "read a file with TFLiteModel.load('student.tflite')",
                kind=TypeError,
            )
        self.content = bytes(content)
        self._interpreters: dict[tuple[str, int], LiteRTInterpreter] = {}
        interpreter = self._interpreter("xnnpack", 1)
        self.inputs = interpreter.inputs
        self.outputs = interpreter.outputs
        self._check_ends()

    def _check_ends(self) -> None:
        """Refuse what cannot be fed example by example, or gives nothing."""
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            names = [tensor.name for tensor in tensors]
            if not names or len(set(names)) < len(names):
                raise problem(
                    f"a model with the {kind}s {names}",
                    f"at least one {kind}, and a different name for each",
                    "convert the student with keras_kd.tflite.convert",
                )
        for tensor in self.inputs:
            if tensor.shape[:1] != (1,):
                raise problem(
                    f"an input {tensor.name!r} of shape {tensor.shape}",
                    "a batch size of 1 in front",
                    "convert the student with keras_kd.tflite.convert",
                )

    @classmethod
    def load(cls: type[_File], path: str | os.PathLike) -> _File:
        """Read a .tflite file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged.
        """
        content = read_file(path)
        try:
            return cls(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike) -> Path:
        """Write the bytes to `path`, whole or not at all, and return it."""
        path = Path(path)
        with replacing(path) as temporary:
            temporary.write_bytes(self.content)
        return path

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return len(self.content)

    @cached_property
    def compressed_size(self) -> int:
        """The size in bytes after gzip: what a download costs, and where pruning shows."""
        return len(gzip.compress(self.content, mtime=0))

    @cached_property
    def operators(self) -> dict[str, int]:
        """How often each operator occurs, sorted by its name in the schema ("CONV_2D")."""
        return self.flatbuffer.operator_counts()

    @cached_property
    def flatbuffer(self) -> FlatBufferModel:
        """What is written in the file."""
        return FlatBufferModel(self.content)

    @property
    def state(self) -> State:
        """What the file keeps from one call to the next; see `keras_kd.tflite.State`.

        It is read from the bytes. `predict` and all other methods begin each example with the
        initial state; an app has to see to that itself: it calls the file for one sequence after
        another, and resets its interpreter in between.
        """
        return self.flatbuffer.state

    @property
    def stateful(self) -> bool:
        """Whether the result of a call depends on the calls before it; see `state`."""
        return bool(self.state)

    @cached_property
    def state_outputs(self) -> dict[str, str]:
        """By the name of each input that is a state, the output that the next call takes it from.

        `keras_kd.tflite.convert` makes them of recurrent layers with `stateful=True`: the output
        "lstm_h_next" is fed to the input "lstm_h" of the next call.
        """
        return state_outputs(self.inputs, self.outputs)

    @property
    def feedback(self) -> list[tuple[int, int]]:
        """`state_outputs` as the numbers of inputs and outputs."""
        inputs, outputs = ([t.name for t in ends] for ends in (self.inputs, self.outputs))
        return [(inputs.index(i), outputs.index(o)) for i, o in self.state_outputs.items()]

    def predict_stream(
        self, x: Any, kernels: str = "xnnpack"
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Run the steps of one stream in LiteRT, each with the state that the one before it left.

        Args:
            x: as for `predict`: the steps in their order, without the inputs that are states. The
                first one begins with the initial state.
            kernels: as for `predict`.

        Returns:
            As `predict`, without the outputs that are states.

        Raises:
            ValueError: as `predict`.
        """
        stored = self._run(self.quantize_inputs(x), kernels, self.feedback)
        states = self.state_outputs.values()
        outputs = {
            tensor.name: tensor.dequantize(stored[tensor.name])
            for tensor in self.outputs
            if tensor.name not in states
        }
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def predict(self, x: Any, kernels: str = "xnnpack") -> np.ndarray | dict[str, np.ndarray]:
        """Run the model in LiteRT on any number of examples.

        Args:
            x: an array shaped (examples, ...), or a dict of them by input name. Inputs that are
                states may be left out: they are zeros then.
            kernels: "xnnpack", which phones run, or "builtin", LiteRT's own kernels, closest to
                those of microcontrollers.

        Returns:
            Real numbers shaped (examples, ...); a dict by output name if there are several outputs.

        Raises:
            ValueError: if names, shapes, types or values do not fit the inputs of the model.
        """
        outputs = self.predict_by_name(x, kernels)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def predict_by_name(self, x: Any, kernels: str = "xnnpack") -> dict[str, np.ndarray]:
        """As `predict`, but always a dict by output name."""
        stored = self.run_stored(self.quantize_inputs(x), kernels)
        return {tensor.name: tensor.dequantize(stored[tensor.name]) for tensor in self.outputs}

    def quantize_inputs(self, x: Any) -> dict[str, np.ndarray]:
        """The real numbers `x` as the inputs store them, by input name, shaped (examples, ...).

        States that `x` leaves out are zeros: each example begins a stream.
        """
        arrays = self._with_zeros(x)
        for tensor, limits in zip(self.inputs, self._input_ranges, strict=True):
            if limits is not None:
                check_scale(arrays[tensor.name], tensor.name, limits)
        return {tensor.name: tensor.quantize(arrays[tensor.name]) for tensor in self.inputs}

    def quantize_steps(self, x: Any) -> dict[str, np.ndarray]:
        """As `quantize_inputs`; states that `x` leaves out are those of the stream of its steps.

        They are what LiteRT's own kernels leave.
        """
        inputs = self.quantize_inputs(x)
        if not self._leaves_states_out(x):
            return inputs
        outputs = self._run(inputs, "builtin", self.feedback)
        for name, source in self.state_outputs.items():
            inputs[name] = np.concatenate([inputs[name][:1], outputs[source][:-1]])
        return inputs

    def _leaves_states_out(self, x: Any) -> bool:
        states = self.state_outputs
        return bool(states) and not (isinstance(x, Mapping) and set(states) <= set(x))

    def _with_zeros(self, x: Any) -> dict[str, np.ndarray]:
        if not self._leaves_states_out(x):
            return examples_by_name(x, self.inputs)
        states = [tensor for tensor in self.inputs if tensor.name in self.state_outputs]
        arrays = examples_by_name(x, [tensor for tensor in self.inputs if tensor not in states])
        count = len(next(iter(arrays.values())))
        zeros = {t.name: np.zeros((count, *t.shape[1:]), np.float32) for t in states}
        return {**arrays, **zeros}

    def run_stored(
        self, inputs: Mapping[str, np.ndarray], kernels: str = "xnnpack"
    ) -> dict[str, np.ndarray]:
        """Run on values as the inputs store them, and return them as the outputs store them.

        Without rounding in between, results can be compared bit by bit.

        Args:
            inputs: arrays by input name, shaped (examples, ...), of the types of the inputs.
            kernels: as in `predict`.

        Returns:
            Arrays by output name, shaped (examples, ...).
        """
        return self._run(inputs, kernels, None)

    def _run(
        self,
        inputs: Mapping[str, np.ndarray],
        kernels: str,
        feedback: Sequence[tuple[int, int]] | None,
    ) -> dict[str, np.ndarray]:
        interpreter = self._interpreter(check_choice("kernels", kernels, KERNELS), 1)
        outputs = interpreter.run_each([inputs[tensor.name] for tensor in self.inputs], feedback)
        return {tensor.name: output for tensor, output in zip(self.outputs, outputs, strict=True)}

    def inspect(self) -> Inspection:
        """What is in the file: its bytes by kind, its operators, its tensors. `print` shows it."""
        return inspect_file(self.content, self.flatbuffer)

    @cached_property
    def _input_ranges(self) -> list[tuple[float, float] | None]:
        return self.flatbuffer.input_ranges()

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        state = f", stateful: {self.state}" if self.stateful else ""
        if self.state_outputs:
            state += f", states in and out: {', '.join(self.state_outputs)}"
        outputs = ", ".join(map(str, self.outputs))
        return f"<{type(self).__name__} {self.size} bytes{state}: {inputs} -> {outputs}>"

    def _interpreter(self, kernels: str, threads: int) -> LiteRTInterpreter:
        key = kernels, threads
        if key not in self._interpreters:
            self._interpreters[key] = LiteRTInterpreter(self.content, kernels, threads)
        return self._interpreters[key]
