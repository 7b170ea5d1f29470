"""A model as C source, for a microcontroller's firmware."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from keras_kd._checks import check_integer, problem
from keras_kd._files import replacing
from keras_kd.tflite.contents.packing import ALIGNMENT
from keras_kd.tflite.microcontroller.running import check_sizes, run_stored
from keras_kd.tflite.microcontroller.templates import c_type, fill, lines_of, string_literal
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo, random_stored

# What it names gets an ending, so that no keyword of C or C++ has to be refused.
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MEASURED = (
    "as measured in TensorFlow Lite Micro on a 64-bit computer, an upper\n"
    " * bound for the reference kernels on a 32-bit microcontroller."
)


def write_c_source(
    model: TFLiteModel,
    directory: str | os.PathLike,
    name: str = "model",
    arena_bytes: int | None = None,
) -> tuple[Path, Path]:
    """Write a model as `<name>_data.h` and `<name>_data.cc` for TensorFlow Lite Micro.

    The source is C++11, as TFLM is; the header can also be included from C. Beside the bytes it
    has what the firmware needs to set TFLM up: the size of the arena, the operators, and the scales
    of inputs and outputs. `write_project` writes these and all that goes with them.

    Args:
        model: the model, converted with `target="microcontroller"`.
        directory: where the files are written; it is made if it is missing.
        name: what the files and the variables are named after.
        arena_bytes: the size of the arena; by default it is measured in TFLM.

    Returns:
        The paths of the header and of the source.

    Raises:
        ImportError: if the arena is to be measured and tflite-micro is not installed.
        ValueError: if `name` is not an identifier, or if TFLM refuses the model.
    """
    check_name(name)
    check_sizes(model)
    origin = "as given."
    if arena_bytes is None:
        inputs = {tensor.name: random_stored(tensor, 1) for tensor in model.inputs}
        arena_bytes = run_stored(model, inputs).arena_bytes
        origin = _MEASURED
    fix = "leave it out to have it measured"
    arena_bytes = check_integer("arena_bytes", arena_bytes, at_least=1, fix=fix)
    texts = data_source(model, name, arena_bytes, origin)
    folder = Path(directory)
    paths = folder / f"{name}_data.h", folder / f"{name}_data.cc"
    for path, text in zip(paths, texts, strict=True):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def check_name(name: str) -> None:
    """Refuse a name that C could not use.

    Raises:
        ValueError: if it is not an identifier.
    """
    if not (isinstance(name, str) and _IDENTIFIER.fullmatch(name)):
        raise problem(
            f"name={name!r}",
            "an identifier of C: letters, digits and underscores after a letter",
            "pass a name such as 'digits'",
        )


def data_source(
    model: TFLiteModel, name: str, arena_bytes: int, arena_origin: str
) -> tuple[str, str]:
    """The texts of the header and of the source that hold the model."""
    content = model.flatbuffer.aligned()
    upper = name.upper()
    tensors = (*model.inputs, *model.outputs)
    header = fill(
        "data.h",
        name=name,
        upper=upper,
        size=len(content),
        arena_bytes=arena_bytes,
        arena_origin=arena_origin,
        operators="\n".join(f" *   {operator}" for operator in model.operators),
        operator_count=len(model.operators),
        tensors="\n".join(f" *   {described(tensor)}" for tensor in tensors),
        constants=_constants(model, upper),
    )
    values = lines_of((f"0x{byte:02x}" for byte in content), "    ")
    source = fill("data.cc", name=name, size=len(content), alignment=ALIGNMENT, values=values)
    return header, source


def described(tensor: TensorInfo) -> str:
    """An input or output as a line of a comment."""
    quantization = f", scale {tensor.scale!r}, zero point {tensor.zero_point}"
    # A name in a foreign file could end the comment.
    return f"{tensor}{quantization if tensor.is_quantized else ''}".replace("*/", "* /")


def _constants(model: TFLiteModel, upper: str) -> str:
    """What each input and output is, by its number."""
    lines = []
    for kind, tensors in (("INPUT", model.inputs), ("OUTPUT", model.outputs)):
        lines.append(f"#define {upper}_{kind}_COUNT {len(tensors)}")
        for number, tensor in enumerate(tensors):
            prefix = f"#define {upper}_{kind}_{number}"
            shape = ", ".join(map(str, tensor.shape))
            lines += [
                f"{prefix}_NAME {string_literal(tensor.name)}",
                f"{prefix}_TYPE {c_type(tensor.dtype)}",
                f'{prefix}_DTYPE "{tensor.dtype.name}"',
                f"{prefix}_RANK {len(tensor.shape)}",
                f"{prefix}_SHAPE {{{shape}}}",
                f"{prefix}_SIZE {math.prod(tensor.shape)}",
                # The last axis: the classes of a classifier, the columns of a regression.
                f"{prefix}_CHANNELS {tensor.shape[-1]}",
            ]
            if tensor.is_quantized:
                lines.append(f"{prefix}_SCALE {tensor.scale!r}f")
                lines.append(f"{prefix}_ZERO_POINT ({tensor.zero_point})")
    return "\n".join(lines)
