"""A folder that is ready to be compiled with TensorFlow Lite Micro (TFLM)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import check_number, check_type, problem
from keras_kd._files import check_output, filling, open_own
from keras_kd.tflite.contents.byte_kinds import bytes_by_kind
from keras_kd.tflite.contents.flatbuffer import ALIGNMENT
from keras_kd.tflite.microcontroller import vectors
from keras_kd.tflite.microcontroller.agreement import TOLERANCE_FLOAT, Agreement, compare_stored
from keras_kd.tflite.microcontroller.c_source import check_name, data_source
from keras_kd.tflite.microcontroller.operators import registrations
from keras_kd.tflite.microcontroller.templates import fill, string_literal
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo, random_stored

_RANDOM_EXAMPLES = 8
_DENSE = "FULLY_CONNECTED"
# Every file of a project names who made it.
_MARK = b"keras_kd"
_ALLOCATOR_HEADER = '#include "tensorflow/lite/micro/micro_allocator.h"\n'
_VARIABLES_HEADER = '#include "tensorflow/lite/micro/micro_resource_variable.h"\n'
_RESET = """\
  // Each vector starts with the state of a new interpreter.
  if (static_cast<int>(interpreter.Reset()) != 0) return false;"""
_BEGIN_ANEW = """\
  // Each vector starts with the state of a new interpreter: Reset() would set the resource
  // variables to zero, not to the values that they begin with.
  interpreter.~MicroInterpreter();
  NewInterpreter(&interpreter);
  if (static_cast<int>(interpreter.AllocateTensors()) != 0) return false;"""


def write_project(
    model: TFLiteModel,
    directory: str | os.PathLike,
    name: str = "model",
    x: Any = None,
    *,
    labels: Sequence[str] | None = None,
    margin: float = 0.2,
) -> tuple[Path, ...]:
    """Write all that firmware with TFLM needs of a model, and a test for the board.

    The folder has the model as an aligned array, an operator resolver with exactly the operators
    used, the size of the arena, three test vectors, a `main.cc` that runs them and prints PASS or
    FAIL, fragments for CMake and Makefiles, and a README with the bytes of flash and RAM. TFLM
    itself is yours. All of `x` is compared with LiteRT before anything is written.

    Args:
        model: the model, converted with `target="microcontroller"`.
        directory: where the files are written; its parent must be there.
        name: what files and variables are named after: letters, digits and underscores.
        x: real examples as for `TFLiteModel.predict`; three of them become the test vectors. By
            default random ones over the whole range of the inputs. Where the states of a stream are
            left out, `x` are its steps in their order.
        labels: what the values of the (only) output stand for, in order.
        margin: by what share the arena is larger than what was measured, for kernels that want
            more scratch memory than the reference kernels.

    Returns:
        The paths of the files, sorted.

    Raises:
        ImportError: if tflite-micro is not installed.
        FileNotFoundError, NotADirectoryError, PermissionError: if nothing can be written there.
        FileExistsError: if a file that is not of this package would be replaced.
        ValueError: if an argument does not fit, if TFLM does not know an operator or refuses the
            model, or if its outputs are not those of LiteRT (see `check_agreement`).

    Example:
        ```python
        model = tflite.convert(student, "int8", x_train[:500], "microcontroller")
        tflite.microcontroller.write_project(model, "firmware/digits", "digits", x_test[:100])
        ```
    """
    check_type("model", model, TFLiteModel, "TFLiteModel.load('student.tflite')")
    check_name(name)
    margin = check_number("margin", margin, at_least=0, at_most=10, fix="pass 0.2 for 20 %")
    _check_labels(model, labels)
    calls = registrations(model.operators)
    folder = Path(directory)
    check_output(folder)
    if x is None:
        inputs = {t.name: random_stored(t, _RANDOM_EXAMPLES) for t in model.inputs}
    else:
        inputs = model.quantize_steps(x)
    agreement, micro = compare_stored(model, inputs)
    rows = vectors.choose(inputs, micro.stored_outputs, _in_old_runtimes(model, inputs))
    project = _Project(
        model=model,
        name=name,
        calls=calls,
        labels=labels,
        agreement=agreement,
        arena_bytes=_with_margin(micro.arena_bytes, margin),
        margin=margin,
        vectors={
            "input": [inputs[tensor.name][rows] for tensor in model.inputs],
            "output": [micro.stored_outputs[tensor.name][rows] for tensor in model.outputs],
        },
        vector_origin="random values" if x is None else "of the examples given",
    )
    texts = project.texts()
    _check_own(folder / file for file in texts)
    with filling(folder) as temporary:
        for file, text in texts.items():
            (temporary / file).write_text(text, encoding="utf-8")
    return tuple(sorted(folder / file for file in texts))


def _in_old_runtimes(
    model: TFLiteModel, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """What an old TFLM computes of scales for each channel; None where there are none."""
    if model.flatbuffer.most_scales(_DENSE) <= 1:
        return None
    return TFLiteModel(model.flatbuffer.with_first_scale(_DENSE)).run_stored(inputs, "builtin")


def _check_own(files: Iterable[Path]) -> None:
    """Refuse to replace a user's own README.md or main.cc; ours say who made them."""
    for file in files:
        if not os.path.lexists(file):
            continue
        with open(open_own(file, os.O_RDONLY), "rb") as opened:
            is_own = _MARK in opened.read()
        if not is_own:
            raise FileExistsError(
                problem(
                    f"the directory {str(file.parent)!r}, whose {file.name} is not of keras_kd",
                    "an empty directory, or one that was written before",
                    "choose another directory, or move that file",
                )
            )


def _check_labels(model: TFLiteModel, labels: Sequence[str] | None) -> None:
    if labels is None:
        return
    expected = model.outputs[0].shape[-1] if len(model.outputs) == 1 else None
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise TypeError(
            problem(f"labels={labels!r}", "a list of names", "pass ['zero', 'one', ...]")
        )
    if len(labels) != expected:
        raise ValueError(
            problem(
                f"{len(labels)} labels for the outputs {', '.join(map(str, model.outputs))}",
                "a label for each value of the only output",
                "leave labels out, or pass as many as the student tells apart",
            )
        )


def _with_margin(measured: int, margin: float) -> int:
    """In whole multiples of the alignment."""
    return math.ceil(measured * (1 + margin) / ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class _Project:
    """What is known when the files are written."""

    model: TFLiteModel
    name: str
    calls: Sequence[str]
    labels: Sequence[str] | None
    agreement: Agreement
    arena_bytes: int
    margin: float
    vectors: dict[str, list[np.ndarray]]
    vector_origin: str

    def texts(self) -> dict[str, str]:
        """The texts of the files by their names."""
        name = self.name
        origin = (
            f"{self.agreement.arena_bytes} bytes measured in TensorFlow Lite Micro on a 64-bit\n"
            f" * computer, and a margin of {self._margin_percent()} %."
        )
        header, source = data_source(self.model, name, self.arena_bytes, origin)
        vectors_header, vectors = self._vector_texts()
        texts = {
            f"{name}_data.h": header,
            f"{name}_data.cc": source,
            f"{name}_ops.h": self._operators(),
            f"{name}_vectors.h": vectors_header,
            f"{name}_vectors.cc": vectors,
            "main.cc": self._main(),
            "CMakeLists.txt": fill("CMakeLists.txt", name=name),
            f"{name}.mk": fill("fragment.mk", name=name, upper=name.upper()),
            "README.md": self._readme(),
        }
        if self.labels is not None:
            texts[f"{name}_labels.h"] = self._labels()
        return texts

    def _vector_texts(self) -> tuple[str, str]:
        return vectors.vectors_source(self.name, self.vectors, TOLERANCE_FLOAT)

    def _operators(self) -> str:
        lines = (f"  failures += static_cast<int>(resolver.{call}()) != 0;" for call in self.calls)
        return fill(
            "ops.h",
            name=self.name,
            upper=self.name.upper(),
            operator_count=len(self.calls),
            registrations="\n".join(lines),
        )

    def _main(self) -> str:
        name = self.name
        set_inputs = (
            f"  if (!SetInput(interpreter.input({i}), {name}_input_{i}[vector])) return false;"
            for i in range(len(self.model.inputs))
        )
        check_outputs = (
            f"  passed &= CheckOutput({string_literal(tensor.name)}, interpreter.output({i}),\n"
            f"                        {name}_output_{i}[vector]);"
            for i, tensor in enumerate(self.model.outputs)
        )
        variables = self.model.state.variables
        return fill(
            "main.cc",
            headers=_ALLOCATOR_HEADER if variables else "",
            variable_headers=_VARIABLES_HEADER if variables else "",
            new_interpreter=(
                fill("variables.cc", name=name, variables=variables)
                if variables
                else f"  return new (memory) MicroInterpreter(GetModel({name}_data), resolver, "
                "tensor_arena,\n                                       sizeof(tensor_arena));"
            ),
            begin=_BEGIN_ANEW if variables else _RESET,
            name=name,
            upper=name.upper(),
            count=vectors.COUNT,
            set_inputs="\n".join(set_inputs),
            check_outputs="\n".join(check_outputs),
        )

    def _labels(self) -> str:
        return fill(
            "labels.h",
            name=self.name,
            upper=self.name.upper(),
            count=len(self.labels),
            labels="\n".join(f"    {string_literal(label)}," for label in self.labels),
        )

    def _readme(self) -> str:
        model, measured = self.model, self.agreement.arena_bytes
        content = model.flatbuffer.aligned()
        flash = (f"| model: {kind} | {count} |" for kind, count in bytes_by_kind(content).items())
        is_float = any(t.dtype.name.startswith("float") for t in model.outputs)
        labels_row = ""
        if self.labels is not None:
            labels_row = f"| `{self.name}_labels.h` | what the values of the output stand for |\n"
        return fill(
            "README.md",
            name=self.name,
            version=self._version(),
            sha256=hashlib.sha256(content).hexdigest(),
            alignment=ALIGNMENT,
            operator_count=len(self.calls),
            operator_list=", ".join(f"{count} {name}" for name, count in model.operators.items()),
            vector_count=vectors.COUNT,
            vector_origin=self.vector_origin,
            vector_bytes=sum(a.nbytes for arrays in self.vectors.values() for a in arrays),
            labels_row=labels_row,
            tensors="\n".join(map(_row, (*model.inputs, *model.outputs))),
            flash="\n".join(flash),
            size=len(content),
            measured=measured,
            margin_percent=self._margin_percent(),
            margin_bytes=self.arena_bytes - measured,
            arena_bytes=self.arena_bytes,
            promise=f"to {TOLERANCE_FLOAT:g} of the largest output" if is_float else "bit for bit",
            agreement=self.agreement,
            state=self._state(),
        )

    def _state(self) -> str:
        """What the firmware has to do with what is kept between calls."""
        model = self.model
        if model.state.variables:
            return (
                f"{model.state}. The file has resource variables: TFLM is given room for "
                f"{model.state.variables} of them (`MicroResourceVariables`), as in `main.cc`. "
                "`Reset()` sets them to zero; their first values come back with a new interpreter "
                "and `AllocateTensors()`."
            )
        if model.stateful:
            return (
                f"{model.state}. Call `Reset()` of the interpreter before each new sequence: what "
                "is left of the one before changes the outputs."
            )
        pairs = ", ".join(f"`{o}` to `{i}`" for i, o in model.state_outputs.items())
        if pairs:
            return (
                "The model is one step of a stream. After each call, copy the bytes of the outputs "
                f"to the inputs: {pairs}. A new stream begins with zeros: the zero points above."
            )
        return "None: the outputs of a call depend on its inputs alone."

    def _version(self) -> str:
        if self.model.flatbuffer.most_scales(_DENSE) > 1:
            return (
                "TFLM of 2024-09-27 (commit 47b545074) or later: dense layers have a scale for "
                "each channel here, which older versions refuse, or compute as if all had the "
                "first one, without a word. The test vectors of `main.cc` tell. Converted with "
                "`per_tensor='dense'`, the default for microcontrollers, the model needs no such "
                "version."
            )
        return (
            "Any that has the operators listed at the end. Dense layers, which versions before "
            "2024-09-27 compute wrongly if they have a scale for each channel, have one scale here."
        )

    def _margin_percent(self) -> str:
        return f"{100 * self.margin:g}"


def _row(tensor: TensorInfo) -> str:
    quantization = f"{tensor.scale!r} | {tensor.zero_point}" if tensor.is_quantized else "- | -"
    name = tensor.name.replace("|", "\\|")
    return f"| `{name}` | {tensor.dtype.name}{list(tensor.shape)} | {quantization} |"
