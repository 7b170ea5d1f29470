"""Calls of TensorFlow's converter: options, and its errors as errors of this package."""

from __future__ import annotations

import gc
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_kd._checks import one_line, problem
from keras_kd._keras import is_keras_model
from keras_kd._native import captured_stderr
from keras_kd._worker import Worker
from keras_kd.tflite.contents.packing import packed, unpacked
from keras_kd.tflite.conversion.folding import fold_normalizations
from keras_kd.tflite.conversion.forms import Options
from keras_kd.tflite.conversion.integer_operators import (
    use_integer_operators,
    with_masked_means,
)
from keras_kd.tflite.conversion.masked_softmax import with_bounded_masks
from keras_kd.tflite.conversion.refusals import is_unsupported, refusal
from keras_kd.tflite.conversion.shared_scales import keep_tensors_apart
from keras_kd.tflite.student import Signature, layers_of

_MOST_SECONDS = 1800


def run_converter(
    signature: Signature, options: Options, examples: dict[str, np.ndarray] | None
) -> bytes:
    """The bytes that TensorFlow's converter makes of a student; nothing of them is checked.

    Args:
        signature: the student, with names.
        options: those of the conversion.
        examples: for calibration, by input name; None if the form or the student needs none.

    Raises:
        ValueError: if the converter cannot convert the student; with what it wrote.
    """
    try:
        with (
            tempfile.TemporaryDirectory(prefix="keras_kd_") as directory,
            captured_stderr() as stderr,
        ):
            saved = os.path.join(directory, "saved_model")
            may_loop = _save(signature, saved)
            if examples is not None and may_loop:
                return _in_own_process(signature, directory, options, examples)
            return convert_saved_model(saved, options, examples)
    except _LoopError:
        raise
    except Exception as error:
        raise ValueError(refusal(signature, options, error, stderr.last_lines(3))) from error


def convert_saved_model(
    path: str, options: Options, examples: dict[str, np.ndarray] | None
) -> bytes:
    """The bytes that TensorFlow's converter makes of a SavedModel; see `run_converter`."""
    import tensorflow as tf

    with warnings.catch_warnings(), _spared_objects():
        # TensorFlow announces at every conversion that tf.lite will move to LiteRT.
        warnings.simplefilter("ignore")
        converter = tf.lite.TFLiteConverter.from_saved_model(
            path, signature_keys=["serving_default"]
        )
        _configure(converter, options, examples)
        return converter.convert()


@contextmanager
def _spared_objects() -> Iterator[None]:
    """Let TensorFlow, which collects garbage in every conversion, look at new objects alone.

    To look at all that Keras and TensorFlow have made takes longer than a small student.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _LoopError(ValueError):
    """A student that cannot be calibrated."""


def _in_own_process(
    signature: Signature,
    directory: str,
    options: Options,
    examples: dict[str, np.ndarray],
) -> bytes:
    """Convert where a crash ends nothing else: the converter's calibrator cannot run all loops."""
    saved = os.path.join(directory, "saved_model")
    with Worker(__name__) as worker:
        try:
            return worker.call(
                "convert_saved_model", saved, options, examples, seconds=_MOST_SECONDS
            )
        except Exception as error:
            if is_unsupported(error):
                raise
            raise _loop_error(signature, one_line(error)[:300], options) from error


def _loop_error(signature: Signature, reason: str, options: Options) -> Exception:
    layers = [getattr(layer, "forward_layer", layer) for layer in layers_of(signature.model)]
    kinds = {type(layer).__name__ for layer in layers}
    is_known = kinds & {"GRU", "LSTM", "RNN", "SimpleRNN"}
    unrolled = (
        "pass keras_kd.tflite.unrolled(student), whose recurrent layers have unroll=True, or "
    )
    return problem(
        f"the student {signature.model.name!r} with a loop over time, on which the converter's "
        f"calibration fails ({reason})",
        "recurrent layers that the converter can calibrate",
        f"{unrolled if is_known else ''}choose quantization={options.fallback!r}",
        kind=_LoopError,
    )


def _save(signature: Signature, path: str) -> bool:
    """Write the student as a SavedModel and return whether there may be a loop in it.

    It gets one named signature with a static batch of 1. Of the ways into the converter this is the
    one that keeps the names, the batch and the weights.
    """
    import tensorflow as tf

    module: Any = tf.Module()
    variables = signature.model.variables
    # A variable of Keras 3 holds that of TensorFlow; a SavedModel tracks the latter.
    module.student = [v.value for v in variables] if is_keras_model(signature.model) else variables
    specs = {
        tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
        for tensor in signature.inputs
    }
    function = tf.function(lambda **inputs: signature(inputs), autograph=False)
    concrete = function.get_concrete_function(**specs)
    tf.saved_model.save(module, path, signatures={"serving_default": concrete})
    graph = concrete.graph.as_graph_def()
    nodes = [*graph.node, *(node for part in graph.library.function for node in part.node_def)]
    return any(node.op.endswith("While") for node in nodes)


def _configure(converter: Any, options: Options, examples: dict[str, np.ndarray] | None) -> None:
    import tensorflow as tf

    form = options.form
    form.configure(converter, per_tensor=options.per_tensor)
    if form.integers is not None:
        converter.inference_input_type = getattr(tf, options.input_type)
        converter.inference_output_type = getattr(tf, options.output_type)
    if form.operations is not None and examples is not None:
        converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, form.operations)]
        converter.representative_dataset = lambda: _one_by_one(examples)
        _change_before_quantization(converter, options)


def _change_before_quantization(converter: Any, options: Options) -> None:
    """Have the float file mended before it is quantized; the converter has no public way."""
    from tensorflow.lite.python.convert import mlir_quantize

    form, calibrate = options.form, converter._quantize
    if form.integers != "int8":
        # The quantizer for 16 bits has its own calibration.
        def quantize_to_16_bits(content: bytes, *others: Any) -> bytes:
            model = unpacked(content)
            is_changed = use_integer_operators(model, "int16")
            return calibrate(packed(model, len(content)) if is_changed else content, *others)

        converter._quantize = quantize_to_16_bits
        return
    converter._experimental_calibrate_only = True

    def quantize(content: bytes, input_type: Any, output_type: Any, *others: Any) -> bytes:
        def calibrated(each: Any) -> Any:
            size = len(content)
            return unpacked(calibrate(packed(each, size), input_type, output_type, *others))

        model = unpacked(content)
        use_integer_operators(model, "int8")
        model = with_bounded_masks(model, lambda each: with_masked_means(each, calibrated))
        fold_normalizations(model)
        keep_tensors_apart(model, options.input_ranges)
        quantized: Any = mlir_quantize(
            packed(model, len(content)),
            converter._experimental_disable_per_channel,
            input_data_type=input_type,
            output_data_type=output_type,
            disable_per_channel_for_dense_layers=(
                converter._experimental_disable_per_channel_quantization_for_dense_layers
            ),
        )
        return quantized

    converter._quantize = quantize


def _one_by_one(examples: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for index in range(len(next(iter(examples.values())))):
        yield {name: array[index : index + 1] for name, array in examples.items()}
