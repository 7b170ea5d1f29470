"""The functions by which firmware runs a model: their C header and their implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from keras_kd.tflite.microcontroller.c_source import described
from keras_kd.tflite.microcontroller.templates import c_type, fill
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo

_RESOURCE_HEADERS = ("micro_allocator.h", "micro_resource_variable.h")
_STATELESS = "The model keeps nothing from one call to the next; this does nothing that is seen."
_STATEFUL = (
    "The model keeps state: ${name}_invoke continues where the last one ended. This brings\n"
    " * back the state of ${name}_init."
)


def interface_source(model: TFLiteModel, name: str) -> tuple[str, str]:
    """The texts of `<name>.h` and `<name>.cc`."""
    return _Interface(model, name).texts()


class _Interface:
    """The parts of the functions that depend on the inputs and outputs of a model."""

    def __init__(self, model: TFLiteModel, name: str) -> None:
        self._model = model
        self._name = name
        self._upper = name.upper()
        self._inputs = [(f"input_{i}", t) for i, t in enumerate(model.inputs)]
        self._outputs = [(f"output_{i}", t) for i, t in enumerate(model.outputs)]
        # They need room even where they never change.
        self._resources = model.state.variables
        self._has_state = model.stateful

    def texts(self) -> tuple[str, str]:
        name, upper = self._name, self._upper
        stored = self._parameters(_stored_type)
        real = self._parameters(_real_type)
        reset = _STATEFUL.replace("${name}", name) if self._has_state else _STATELESS
        header = fill(
            "interface.h",
            name=name,
            upper=upper,
            example_arguments=", ".join(which for which, _ in self._inputs + self._outputs),
            state_of_predict=self._state_of_predict(),
            input_lines=_lines(f" *   {which}: {described(t)}" for which, t in self._inputs),
            output_lines=_lines(f" *   {which}: {described(t)}" for which, t in self._outputs),
            stored_parameters=stored,
            float_parameters=real,
            pointers=_lines(f"{declared};" for declared, _ in self._pointers()),
            state_of_reset=reset,
            has_state=int(self._has_state),
            helpers="\n\n".join(self._helpers()) + "\n",
        )
        source = fill(
            "interface.cc",
            name=name,
            upper=upper,
            resource_includes="".join(
                f'#include "tensorflow/lite/micro/{file}"\n'
                for file in (_RESOURCE_HEADERS if self._resources else ())
            ),
            operators_in_graphs=sum(self._model.operators.values()),
            make_interpreter=self._make_interpreter(),
            size_checks=self._size_checks(),
            reset=self._reset(),
            pointers="\n\n".join(
                f"{declared} {{\n"
                f"  if (interpreter == nullptr) return nullptr;\n"
                f"  return reinterpret_cast<{c_type(t.dtype)}*>"
                f"(interpreter->{_accessor(which)}->data.raw);\n"
                f"}}"
                for declared, (which, t) in self._pointers()
            ),
            stored_parameters=stored,
            float_parameters=real,
            begin=self._begin(),
            copy_in=_lines(self._copied_in(which, t) for which, t in self._inputs),
            copy_out=_lines(self._copied_out(which, t) for which, t in self._outputs),
            quantize_in=_lines(self._quantized_in(which, t) for which, t in self._inputs),
            dequantize_out=_lines(self._dequantized_out(which, t) for which, t in self._outputs),
            zero_inputs=_lines(
                f"  std::memset({name}_{which}_data(), 0, {self._bytes(which, t)});"
                for which, t in self._inputs
            ),
        )
        return header, source

    def _state_of_predict(self) -> str:
        name, lines = self._name, []
        if self._has_state:
            lines += [
                f"The model keeps state: each call begins with that of {name}_init, as in Python.",
                f"To continue a stream, use {name}_invoke.",
            ]
        for into, source in self._model.feedback:
            lines += [
                f"input_{into} is a state: give the same array for it and for output_{source},",
                "which holds the value of zero before the first call.",
            ]
        return "".join(f"\n * {line}" for line in lines)

    def _parameters(self, type_of: Callable[[TensorInfo], str]) -> str:
        parts = [f"const {type_of(t)}* {which}" for which, t in self._inputs]
        parts += [f"{type_of(t)}* {which}" for which, t in self._outputs]
        return ", ".join(parts)

    def _pointers(self) -> list[tuple[str, tuple[str, TensorInfo]]]:
        return [
            (f"{constant}{c_type(t.dtype)}* {self._name}_{which}_data(void)", (which, t))
            for constant, tensors in (("", self._inputs), ("const ", self._outputs))
            for which, t in tensors
        ]

    def _size(self, which: str) -> str:
        return f"{self._upper}_{which.upper()}_SIZE"

    def _bytes(self, which: str, tensor: TensorInfo) -> str:
        return f"{self._size(which)} * sizeof({c_type(tensor.dtype)})"

    def _make_interpreter(self) -> str:
        arguments = f"GetModel({self._name}_data), *resolver"
        if not self._resources:
            return (
                "  MicroInterpreter* made = new (interpreter_memory.bytes) MicroInterpreter(\n"
                f"      {arguments}, arena, arena_bytes, nullptr, NewProfiler());"
            )
        return (
            "  MicroAllocator* allocator = MicroAllocator::Create(arena, arena_bytes);\n"
            f"  if (allocator == nullptr) return {self._upper}_NOT_ALLOCATED;\n"
            "  MicroResourceVariables* variables =\n"
            f"      MicroResourceVariables::Create(allocator, {self._resources});\n"
            f"  if (variables == nullptr) return {self._upper}_NOT_ALLOCATED;\n"
            "  MicroInterpreter* made = new (interpreter_memory.bytes) MicroInterpreter(\n"
            f"      {arguments}, allocator, variables, NewProfiler());"
        )

    def _size_checks(self) -> str:
        checks = [
            f"HasBytes(made->{_accessor(which)}, {self._bytes(which, t)})"
            for which, t in self._inputs + self._outputs
        ]
        return "      " + " &&\n      ".join(checks) + ";"

    def _reset(self) -> str:
        if self._resources:
            # Only what a new interpreter runs gives variables their first values again.
            return f"  return {self._name}_init();"
        return (
            f"  return static_cast<int>(interpreter->Reset()) == 0 ? {self._upper}_OK "
            f": {self._upper}_NOT_RUN;"
        )

    def _begin(self) -> str:
        if not self._has_state:
            return f"  if (interpreter == nullptr) return {self._upper}_NOT_INITIALIZED;"
        return (
            f"  const {self._name}_status begun = {self._name}_reset();\n"
            f"  if (begun != {self._upper}_OK) return begun;"
        )

    def _copied_in(self, which: str, tensor: TensorInfo) -> str:
        return f"  std::memcpy({self._name}_{which}_data(), {which}, {self._bytes(which, tensor)});"

    def _copied_out(self, which: str, tensor: TensorInfo) -> str:
        return f"  CopyOut({which}, {self._name}_{which}_data(), {self._bytes(which, tensor)});"

    def _quantized_in(self, which: str, tensor: TensorInfo) -> str:
        if not tensor.is_quantized:
            return self._copied_in(which, tensor)
        stored = f"stored_{which}"
        return (
            f"  {c_type(tensor.dtype)}* const {stored} = {self._name}_{which}_data();\n"
            f"  for (size_t i = 0; i < {self._size(which)}; ++i) {{\n"
            f"    {stored}[i] = {self._name}_quantize_{which}({which}[i]);\n"
            f"  }}"
        )

    def _dequantized_out(self, which: str, tensor: TensorInfo) -> str:
        if not tensor.is_quantized:
            return self._copied_out(which, tensor)
        stored = f"stored_{which}"
        return (
            f"  const {c_type(tensor.dtype)}* const {stored} = {self._name}_{which}_data();\n"
            f"  for (size_t i = 0; {which} != nullptr && i < {self._size(which)}; ++i) {{\n"
            f"    {which}[i] = {self._name}_dequantize_{which}({stored}[i]);\n"
            f"  }}"
        )

    def _helpers(self) -> list[str]:
        texts = [self._quantize(which, t) for which, t in self._inputs if t.is_quantized]
        for which, tensor in self._outputs:
            if tensor.is_quantized:
                texts.append(self._helper("dequantize", which, tensor))
            texts.append(self._helper("argmax", which, tensor))
        return texts

    def _quantize(self, which: str, tensor: TensorInfo) -> str:
        limits = np.iinfo(tensor.dtype)
        return self._helper("quantize", which, tensor, low=limits.min, high=limits.max)

    def _helper(self, function: str, which: str, tensor: TensorInfo, **values: int) -> str:
        return fill(
            f"{function}.h",
            function=f"{self._name}_{function}_{which}",
            which=which,
            prefix=f"{self._upper}_{which.upper()}",
            type=c_type(tensor.dtype),
            **values,
        ).rstrip()


def _stored_type(tensor: TensorInfo) -> str:
    return c_type(tensor.dtype)


def _real_type(tensor: TensorInfo) -> str:
    return "float" if tensor.is_quantized else c_type(tensor.dtype)


def _accessor(which: str) -> str:
    """The method of TFLM's interpreter: `input(0)` for "input_0"."""
    return f"{which.replace('_', '(')})"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)
