"""A folder that is ready to be compiled with TensorFlow Lite Micro (TFLM)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_kd._checks import check_number, check_type, problem
from keras_kd._files import check_output, filling, open_own
from keras_kd.tflite.contents.byte_kinds import bytes_by_kind
from keras_kd.tflite.contents.packing import ALIGNMENT
from keras_kd.tflite.microcontroller import vectors
from keras_kd.tflite.microcontroller.agreement import TOLERANCE_FLOAT, Agreement, compare_stored
from keras_kd.tflite.microcontroller.c_source import check_name, data_source
from keras_kd.tflite.microcontroller.front_end import check_front_end, front_end_source
from keras_kd.tflite.microcontroller.interface import interface_source
from keras_kd.tflite.microcontroller.operators import (
    CORE_BYTES,
    NEWLIB_BYTES,
    PRINTF_BYTES,
    kernel_bytes,
    registrations,
)
from keras_kd.tflite.microcontroller.templates import fill, string_literal
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo, random_stored

if TYPE_CHECKING:
    from keras_kd.sound import LogMel

_RANDOM_EXAMPLES = 8
# Compilers, and the sources of TFLM, would find the header of a project in their place.
_STANDARD_HEADERS = """
    assert complex ctype errno fenv float inttypes iso646 limits locale malloc math memory setjmp
    signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings
    tgmath threads time uchar unistd wchar wctype
"""
_DENSE = "FULLY_CONNECTED"
# Files for the build systems of boards, and their templates.
_MANIFESTS = {
    "CMakeLists.txt": "CMakeLists.txt",
    "idf_component.yml": "idf_component.yml",
    "library.properties": "library.properties",
    "zephyr/module.yml": "zephyr_module.yml",
    "zephyr/CMakeLists.txt": "zephyr_CMakeLists.txt",
    "zephyr/Kconfig": "zephyr_Kconfig",
}
# Every file of a project names its origin.
_MARK = b"keras_kd"


def write_project(
    model: TFLiteModel,
    directory: str | os.PathLike,
    name: str = "model",
    x: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    margin: float = 0.2,
    front_end: LogMel | None = None,
) -> tuple[Path, ...]:
    """Write all that firmware with TFLM needs of a model, and a test for the board.

    The folder has the model as an aligned array, functions for C that run it (`<name>.h`), an
    operator resolver with exactly the operators used, the size of the arena, a test with three
    vectors that prints PASS or FAIL, what CMake, Makefiles, Arduino, ESP-IDF and Zephyr need, and a
    README with the bytes of flash and RAM. TFLM itself is yours. All of `x` is compared with LiteRT
    before anything is written.

    Args:
        model: the model, converted with `target="microcontroller"`.
        directory: where the files are written; its parent must be there.
        name: what files and variables are named after: letters, digits and underscores.
        x: real examples as for `TFLiteModel.predict`; three of them become the test vectors. By
            default random ones over the whole range of the inputs. Where the states of a stream are
            left out, `x` are its steps in their order.
        class_names: what the values of the (only) output that is no state represent, in order.
        margin: by what share the arena is larger than what was measured, for kernels that need
            more scratch memory than the reference kernels.
        front_end: the layer behind which the student was trained on sound. Its features are
            written in C (`<name>_front_end.h`): from 16-bit samples to what the first input takes.

    Returns:
        The paths of the files, sorted.

    Raises:
        ImportError: if tflite-micro is not installed.
        FileNotFoundError, NotADirectoryError, PermissionError: if nothing can be written there.
        FileExistsError: if a file that is not of this package would be replaced.
        ValueError: if an argument does not fit, if TFLM lacks an operator or refuses the
            model, or if its outputs are not those of LiteRT (see `check_agreement`).

    Example:
        ```python
        model = tflite.convert(student, "int8", x_train, "microcontroller")
        tflite.microcontroller.write_project(model, "digits", "digits", x_test[:100])
        ```
    """
    check_type("model", model, TFLiteModel, "TFLiteModel.load('student.tflite')")
    _check_project_name(name)
    margin = check_number("margin", margin, at_least=0, at_most=10, fix="pass 0.2 for 20 %")
    _check_class_names(model, class_names)
    if front_end is not None:
        check_front_end(front_end, model.inputs[0].shape)
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
        class_names=class_names,
        agreement=agreement,
        arena_bytes=_with_margin(micro.arena_bytes, margin),
        margin=margin,
        vectors={
            "input": [inputs[tensor.name][rows] for tensor in model.inputs],
            "output": [micro.stored_outputs[tensor.name][rows] for tensor in model.outputs],
        },
        vector_origin="random values" if x is None else "of the examples given",
        front_end=front_end,
    )
    texts = project.texts()
    _check_own(folder / file for file in texts)
    with filling(folder) as temporary:
        for file, text in texts.items():
            path = temporary / file
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return tuple(sorted(folder / file for file in texts))


def _in_old_runtimes(
    model: TFLiteModel, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """What an old TFLM computes of scales for each channel; None where there are none."""
    if model.flatbuffer.most_scales(_DENSE) <= 1:
        return None
    return TFLiteModel(model.flatbuffer.with_first_scale(_DENSE)).run_stored(inputs, "builtin")


def _check_project_name(name: str) -> None:
    """Refuse a name whose header would replace one of the standard library."""
    check_name(name)
    if name.lower() in _STANDARD_HEADERS.split():
        raise problem(
            f"name={name!r}",
            f"a name whose header {name}.h does not belong to C",
            f"pass a name such as '{name}_model'",
        )


def _check_own(files: Iterable[Path]) -> None:
    """Refuse to replace a user's own README.md or main.cc; those of a project name their maker."""
    for file in files:
        if not os.path.lexists(file):
            continue
        with open(open_own(file, os.O_RDONLY), "rb") as opened:
            is_own = _MARK in opened.read()
        if not is_own:
            raise problem(
                f"the directory {str(file.parent)!r}, whose {file.name} was not written by "
                "keras_kd",
                "an empty directory, or one that was written before",
                "choose another directory, or move that file",
                kind=FileExistsError,
            )


def _check_class_names(model: TFLiteModel, names: Sequence[str] | None) -> None:
    if names is None:
        return
    states = model.state_outputs.values()
    outputs = [tensor for tensor in model.outputs if tensor.name not in states]
    expected = outputs[0].shape[-1] if len(outputs) == 1 else None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise problem(
            f"class_names={names!r}", "a list of names", "pass ['zero', 'one', ...]", kind=TypeError
        )
    if len(names) != expected:
        raise problem(
            f"{len(names)} class names for the outputs {', '.join(map(str, outputs))}",
            "a name for each value of the only output",
            "leave class_names out, or pass one for each class of the student",
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
    class_names: Sequence[str] | None
    agreement: Agreement
    arena_bytes: int
    margin: float
    vectors: dict[str, list[np.ndarray]]
    vector_origin: str
    front_end: LogMel | None

    def texts(self) -> dict[str, str]:
        """The texts of the files by their names."""
        name = self.name
        origin = (
            f"{self.agreement.arena_bytes} bytes measured in TensorFlow Lite Micro on a 64-bit\n"
            f" * computer, and a margin of {self._margin_percent()} %."
        )
        header, source = data_source(self.model, name, self.arena_bytes, origin)
        vectors_header, vectors_text = vectors.vectors_source(name, self.vectors, TOLERANCE_FLOAT)
        interface_header, interface = interface_source(self.model, name)
        texts = {
            f"{name}_data.h": header,
            f"{name}_data.cc": source,
            f"{name}_ops.h": self._operators(),
            f"{name}_vectors.h": vectors_header,
            f"{name}_vectors.cc": vectors_text,
            f"{name}.h": interface_header,
            f"{name}.cc": interface,
            f"{name}_test.h": self._filled("test.h"),
            f"{name}_test.cc": self._test(),
            "main.cc": self._filled("main.cc"),
            f"{name}.mk": self._filled("fragment.mk"),
            **{file: self._filled(template) for file, template in _MANIFESTS.items()},
            "README.md": self._readme(),
        }
        if self.class_names is not None:
            texts[f"{name}_class_names.h"] = self._class_names(self.class_names)
        if self.front_end is not None:
            frames = self.model.inputs[0].shape[1]
            header, source = front_end_source(self.front_end, name, frames)
            texts |= {f"{name}_front_end.h": header, f"{name}_front_end.cc": source}
        return texts

    def _filled(self, template: str) -> str:
        sources = self._sources()
        files = (*sources, f"{self.name}_test.cc", f"{self.name}_vectors.cc")
        paths = "\n".join(f"    ${{{self.name}_directory}}/{file}" for file in files)
        gaps = {"sources": " ".join(sources), "paths": paths}
        return fill(template, name=self.name, upper=self.name.upper(), **gaps)

    def _sources(self) -> list[str]:
        """The files that firmware compiles."""
        front_end = [f"{self.name}_front_end.cc"] if self.front_end is not None else []
        return [f"{self.name}.cc", f"{self.name}_data.cc", *front_end]

    def _operators(self) -> str:
        lines = (f"  failures += static_cast<int>(resolver.{call}()) != 0;" for call in self.calls)
        return fill(
            "ops.h",
            name=self.name,
            upper=self.name.upper(),
            operator_count=len(self.calls),
            registrations="\n".join(lines),
        )

    def _test(self) -> str:
        name, outputs = self.name, self.model.outputs
        arguments = [f"{name}_input_{i}[vector]" for i in range(len(self.model.inputs))]
        check_outputs = (
            f"  passed &= CheckOutput({string_literal(tensor.name)}, {name}_output_{i}_data(),\n"
            f"                        {name}_output_{i}[vector]);"
            for i, tensor in enumerate(outputs)
        )
        return fill(
            "test.cc",
            name=name,
            upper=name.upper(),
            count=vectors.COUNT,
            vector_arguments=", ".join([*arguments, *("nullptr" for _ in outputs)]),
            check_outputs="\n".join(check_outputs),
        )

    def _class_names(self, names: Sequence[str]) -> str:
        return fill(
            "class_names.h",
            name=self.name,
            upper=self.name.upper(),
            count=len(names),
            class_names="\n".join(f"    {string_literal(name)}," for name in names),
        )

    def _readme(self) -> str:
        model, measured = self.model, self.agreement.arena_bytes
        content = model.flatbuffer.aligned()
        flash = (f"| model: {kind} | {count} |" for kind, count in bytes_by_kind(content).items())
        is_float = any(t.dtype.name.startswith("float") for t in model.outputs)
        class_names_row = ""
        if self.class_names is not None:
            class_names_row = (
                f"| `{self.name}_class_names.h` | what the values of the output represent |\n"
            )
        front_end_row = ""
        if self.front_end is not None:
            files = f"`{self.name}_front_end.h`, `{self.name}_front_end.cc`"
            front_end_row = f"| {files} | features of 16-bit samples, for the first input |\n"
        *others, last = (f"`{file}`" for file in self._sources())
        return fill(
            "README.md",
            name=self.name,
            upper=self.name.upper(),
            front_end_row=front_end_row,
            source_list=f"{', '.join(others)} and {last}",
            version=self._version(),
            state=self._state(),
            example_arguments=", ".join(
                [f"input_{i}" for i in range(len(model.inputs))]
                + [f"output_{i}" for i in range(len(model.outputs))]
            ),
            core_bytes=CORE_BYTES,
            kernel_bytes=kernel_bytes(model.operators),
            cmsis_nn_bytes=kernel_bytes(model.operators, cmsis_nn=True),
            printf_bytes=PRINTF_BYTES,
            newlib_bytes=NEWLIB_BYTES,
            sha256=hashlib.sha256(content).hexdigest(),
            alignment=ALIGNMENT,
            operator_count=len(self.calls),
            operator_list=", ".join(f"{count} {name}" for name, count in model.operators.items()),
            vector_count=vectors.COUNT,
            vector_origin=self.vector_origin,
            vector_bytes=sum(a.nbytes for arrays in self.vectors.values() for a in arrays),
            class_names_row=class_names_row,
            tensors="\n".join(map(_row, (*model.inputs, *model.outputs))),
            flash="\n".join(flash),
            size=len(content),
            measured=measured,
            margin_percent=self._margin_percent(),
            margin_bytes=self.arena_bytes - measured,
            arena_bytes=self.arena_bytes,
            promise=f"to {TOLERANCE_FLOAT:g} of the largest output" if is_float else "bit for bit",
            agreement=self.agreement,
        )

    def _state(self) -> str:
        """What the firmware has to do with what is kept between calls."""
        model, name = self.model, self.name
        if model.stateful:
            return (
                f"{model.state}. `{name}_predict` begins each call with the state of "
                f"`{name}_init`, as `predict` does in Python. To continue from one call to the "
                f"next use `{name}_invoke`, and `{name}_reset` before each new sequence: the state "
                "that is left from the one before changes the outputs."
            )
        pairs = ", ".join(f"`{i}` and `{o}`" for i, o in model.state_outputs.items())
        if pairs:
            return (
                "The model is one step of a stream. Give the same array for the input and the "
                f"output of each of these pairs: {pairs}. A new stream begins with zeros: the zero "
                "points above."
            )
        return "None: the outputs of a call depend on its inputs alone."

    def _version(self) -> str:
        if self.model.flatbuffer.most_scales(_DENSE) > 1:
            return (
                "TFLM of 2024-09-27 (commit 47b545074) or later: dense layers have a scale for "
                "each channel here, which older versions refuse, or compute as if all had the "
                "first one, without an error. The test vectors of `main.cc` show it. Converted "
                "with `per_tensor='dense'`, the default for microcontrollers, the model needs no "
                "such version."
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
