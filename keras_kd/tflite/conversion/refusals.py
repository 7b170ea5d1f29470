"""Students that cannot be converted: the layer, the reason and the fix."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import keras

from keras_kd._checks import one_line, problem, three_parts
from keras_kd._graphs import loops_over_time
from keras_kd.tflite.conversion.forms import Form, Options
from keras_kd.tflite.conversion.layer_names import in_layers
from keras_kd.tflite.student import Signature, layers_of, tfmot_modules

# "TF Select ops: BitwiseAnd, Conv2D" and the like: what has no operator in TFLite.
_LACKING = re.compile(r"(?:TF Select|Custom) ops: ([\w, ]+)")
# The place in the student: fused["Conv2D:", "student_1/conv2d/convolution@__inference..."].
_PLACE = re.compile(r'fused\["\w+:", "([^"@]+)@')
# "Quantization to 16x8-bit not yet supported for op: 'NEG'."
_UNSUPPORTED = re.compile(r"not yet supported for op: '(\w+)'")
_UNTRACKED = "'untracked' resource"
_OPEN_SIZES = "build the student with the sizes that it will be fed, for example {}"
# What a student can do instead, by operation of TensorFlow.
_INSTEAD = {
    "BitwiseAnd": "end the student before keras.ops.argmax, and take it of the file's output",
    "ResizeBicubic": "resize with interpolation='bilinear' or 'nearest'",
    "Erf": "replace keras.ops.erf, in gelu by keras.activations.gelu",
}


def is_unsupported(error: Exception) -> bool:
    """Whether the quantizer has no such integers for an operator."""
    return _UNSUPPORTED.search(str(error)) is not None


def refusal(signature: Signature, options: Options, error: Exception, written: str) -> str:
    """The message for what the converter has raised.

    Args:
        signature: the student.
        options: those of the conversion.
        error: what was raised.
        written: what it wrote before.
    """
    name, form = signature.model.name, options.form.name
    text = f"{error} {written}"
    unsupported = _UNSUPPORTED.search(text)
    if unsupported:
        return three_parts(
            f"quantization={form!r} for the student {name!r}, which needs the operator "
            f"{unsupported[1]}",
            f"operators that the converter can turn into {form}",
            f"choose quantization='int8' or {options.fallback!r}",
        )
    if _UNTRACKED in text:
        return three_parts(
            f"the student {name!r}, which keeps a state from one call to the next"
            f"{_stateful(signature)}",
            "outputs that depend on nothing but the inputs",
            "build its recurrent layers with stateful=False and copy the weights, "
            "new.set_weights(old.get_weights()); draw random numbers in training alone",
        )
    where = in_layers(signature, _PLACE.findall(text))
    lacking = _LACKING.search(text)
    is_open = [t for t in signature.inputs if None in t.shape]
    if lacking:
        operations = [each.strip() for each in lacking[1].split(",") if each.strip()]
        return three_parts(
            f"the student {name!r}, which computes {', '.join(operations)}"
            f"{where}{' on sizes that it leaves open' if is_open else ''}",
            "operations that TFLite has operators for",
            _way_out(operations, is_open),
        )
    if is_open:
        return three_parts(
            f"the student {name!r} with open sizes in its inputs {', '.join(map(str, is_open))}, "
            f"which the converter refuses{where} ({_summary(error)})",
            "layers that compute on any size, or known sizes",
            _way_out([], is_open),
        )
    return three_parts(
        f"the student {name!r}, which the converter refuses{where} "
        f"({_summary(error)}; it wrote: {written})",
        f"a student that TensorFlow's converter can turn into {form}",
        "replace the layer that is named, or choose another quantization",
    )


def _way_out(operations: Iterable[str], is_open: list[Any]) -> str:
    ways = [_INSTEAD[each] for each in operations if each in _INSTEAD]
    if is_open:
        sizes = tuple(size or 32 for size in is_open[0].shape[1:])
        ways.append(_OPEN_SIZES.format(f"keras.Input({sizes})") + ", and copy the weights")
    return ", or ".join(ways) or "replace the layer that computes it"


def _stateful(signature: Signature) -> str:
    found = [layer.name for layer in signature.model.layers if getattr(layer, "stateful", False)]
    return f" (in the layer {', '.join(map(repr, found))}: stateful=True)" if found else ""


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)[:300]}"


def check_unwrapped(student: Any) -> None:
    """Refuse students that still carry what TF-MOT needs for pruning or clustering.

    Raises:
        ValueError: if they do.
    """
    for module in tfmot_modules(student):
        if "quantization" not in module:
            kind = "clustering" if "clustering" in module else "pruning"
            raise problem(
                f"the student {student.name!r} with {kind} wrappers around its layers",
                "a student without them: in the file they would cost time and bytes",
                "pass keras_kd.compression.strip(student)",
            )


# Tables and hashes are no operators of TFLite.
_LOOKUPS = ("Hashing", "HashedCrossing", "IntegerLookup", "StringLookup", "TextVectorization")


def check_layers(
    student: Any,
    form: Form,
    missing: Collection[str] = (),
    fallback: str = "dynamic_int8",
) -> None:
    """Refuse layers that cannot be converted, before TensorFlow raises an error for them.

    Args:
        student: the student.
        form: the requested form.
        missing: operators that the place where it will run lacks.
        fallback: a form for what integers cannot compute.

    Raises:
        ValueError: if there are some.
    """
    for layer in layers_of(student):
        kind = type(layer).__name__
        if kind in _LOOKUPS:
            raise problem(
                f"the student {student.name!r} with the layer {layer.name!r} ({kind})",
                "layers that compute with numbers: TFLite has no operator for lookups",
                "apply that layer to the data before the student, and build the student on "
                "its results: keras.Input(..., dtype='int32')",
            )
        if getattr(layer, "quantization_mode", None) is not None:
            raise problem(
                f"the student {student.name!r} with the layer {layer.name!r}, which Keras has "
                f"quantized to {layer.quantization_mode!r}",
                "weights as they were trained: TFLite has other integers",
                "convert the student as it was before student.quantize(...), with "
                "quantization='int8' if integers are wanted",
            )
        if kind == "CategoryEncoding" and layer.output_mode in ("multi_hot", "count"):
            raise problem(
                f"the student {student.name!r} with the layer {layer.name!r} (CategoryEncoding "
                f"with output_mode={layer.output_mode!r})",
                "layers that TFLite has operators for: it cannot count",
                "use output_mode='one_hot', or apply the layer to the data before the student",
            )
        if kind == "Embedding" and isinstance(layer, keras.Layer) and "SELECT" in missing:
            # That of Keras 3 also looks up negative numbers, from the end; that of tf_keras does
            # not, and needs no such operator.
            raise problem(
                f"the student {student.name!r} with the layer {layer.name!r} (an Embedding of "
                "Keras 3) for target='microcontroller'",
                "layers without the operator SELECT, which TensorFlow Lite Micro lacks",
                "pass keras_kd.compression.to_tf_keras(student), whose Embedding needs none",
            )
        if form.needs_data and _is_fused_in_both_directions(layer):
            raise problem(
                f"quantization={form.name!r} for the student {student.name!r} with the layer "
                f"{layer.name!r}, LSTMs in two directions",
                "a layer that the converter calibrates correctly: its result for these is wrong",
                "build it with unroll=True and copy the weights, or choose "
                f"quantization={fallback!r}",
            )
        if form.needs_data and loops_over_time(layer):
            raise problem(
                f"quantization={form.name!r} for the student {student.name!r} with the layer "
                f"{layer.name!r} ({kind}), a loop over time",
                "recurrent layers that the converter can calibrate: this one crashes it",
                "build the student with unroll=True in this layer and copy the weights, "
                f"new.set_weights(old.get_weights()), or choose quantization={fallback!r}",
            )


def _is_fused_in_both_directions(layer: Any) -> bool:
    """Whether the converter makes two operators of it, one for each direction of time.

    Their int8 results are off by 6 to 57 % of the range; each direction alone is right.
    """
    inner = getattr(layer, "forward_layer", None)
    return (
        type(layer).__name__ == "Bidirectional"
        and not isinstance(layer, keras.Layer)
        and inner is not None
        and type(inner).__name__ == "LSTM"
        and not inner.unroll
        # With its states as inputs it is no such operator.
        and not inner.stateful
    )
