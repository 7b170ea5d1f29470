"""A model as C source, for a microcontroller's firmware."""

from __future__ import annotations

import os
import re
from pathlib import Path

from keras_kd._checks import check_integer, problem
from keras_kd._files import replacing
from keras_kd.tflite.contents.flatbuffer import ALIGNMENT
from keras_kd.tflite.microcontroller.running import run_stored
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo, random_stored

_BYTES_PER_LINE = 12
# Keywords of C and C++ could not come in front of "_data", so none has to be refused.
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

_HEADER = """\
/* {size} bytes of a TensorFlow Lite model. Made by keras_kd; do not edit. */
#ifndef {upper}_DATA_H_
#define {upper}_DATA_H_

#ifdef __cplusplus
extern "C" {{
#endif

/* The model, for tflite::GetModel(). */
extern const unsigned char {name}_data[];
extern const unsigned int {name}_data_length;

#ifdef __cplusplus
}}
#endif

/* Size of the tensor arena, as measured in TensorFlow Lite Micro on a 64-bit computer: an upper
 * bound for a 32-bit microcontroller. */
#define {upper}_ARENA_BYTES {arena_bytes}

/* Operators to add to a tflite::MicroMutableOpResolver<{upper}_OPERATOR_COUNT>:
{operators}
 */
#define {upper}_OPERATOR_COUNT {operator_count}

/* Inputs and outputs, in order; real value = scale * (stored value - zero point):
{tensors}
 */

#endif /* {upper}_DATA_H_ */
"""

_SOURCE = """\
// {size} bytes of a TensorFlow Lite model. Made by keras_kd; do not edit.
#include "{name}_data.h"

alignas({alignment}) const unsigned char {name}_data[] = {{
{values}
}};
const unsigned int {name}_data_length = {size};
"""


def write_c_source(
    model: TFLiteModel,
    directory: str | os.PathLike,
    name: str = "model",
    arena_bytes: int | None = None,
) -> tuple[Path, Path]:
    """Write a model as `<name>_data.h` and `<name>_data.cc` for TensorFlow Lite Micro.

    The source is C++11, as TFLM is; the header can also be included from C. Beside the bytes it
    has what the firmware needs to set TFLM up: the size of the arena, the operators, and the scales
    of inputs and outputs.

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
    if not (isinstance(name, str) and _IDENTIFIER.fullmatch(name)):
        raise ValueError(
            problem(
                f"name={name!r}",
                "an identifier of C: letters, digits and underscores after a letter",
                "pass a name such as 'digits'",
            )
        )
    if arena_bytes is None:
        inputs = {tensor.name: random_stored(tensor, 1) for tensor in model.inputs}
        arena_bytes = run_stored(model, inputs).arena_bytes
    fix = "leave it out to have it measured"
    arena_bytes = check_integer("arena_bytes", arena_bytes, at_least=1, fix=fix)
    content = model.flatbuffer.aligned()
    header = _HEADER.format(
        name=name,
        upper=name.upper(),
        size=len(content),
        arena_bytes=arena_bytes,
        operators="\n".join(f" *   {operator}" for operator in model.operators),
        operator_count=len(model.operators),
        tensors="\n".join(_described(tensor) for tensor in (*model.inputs, *model.outputs)),
    )
    source = _SOURCE.format(
        name=name, size=len(content), alignment=ALIGNMENT, values=_hexadecimal(content)
    )
    folder = Path(directory)
    paths = folder / f"{name}_data.h", folder / f"{name}_data.cc"
    for path, text in zip(paths, (header, source), strict=True):
        with replacing(path) as temporary:
            temporary.write_text(text)
    return paths


def _described(tensor: TensorInfo) -> str:
    quantization = f", scale {tensor.scale!r}, zero point {tensor.zero_point}"
    # A name in a foreign file could end the comment.
    text = f"{tensor}{quantization if tensor.is_quantized else ''}".replace("*/", "* /")
    return f" *   {text}"


def _hexadecimal(content: bytes) -> str:
    lines = (
        ", ".join(f"0x{byte:02x}" for byte in content[start : start + _BYTES_PER_LINE])
        for start in range(0, len(content), _BYTES_PER_LINE)
    )
    return "\n".join(f"    {line}," for line in lines)
