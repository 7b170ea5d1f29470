"""The ranges of activations of a quantization-aware model, measured on data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem

# Ranges hardly move after some hundred examples.
_EXAMPLES = 512
_BATCH = 64


def calibrate(
    model: Any, quantize_layers: Iterable[Any], wrappers: Iterable[Any], data: Any
) -> None:
    """Set the ranges of weights and activations to what they are on `data`.

    The model runs eagerly, in float and in inference mode, so that neither dropout nor the
    statistics of a BatchNormalization play a part; its weights do not change.

    Args:
        model: a quantization-aware `tf_keras.Model`.
        quantize_layers: its TF-MOT `QuantizeLayer`s.
        wrappers: its TF-MOT quantization wrappers.
        data: an array, a dict of arrays by input name, or an iterable of batches, each of these
            forms; of a tuple, as in `fit`, only the first part is used.

    Raises:
        TypeError: if `data` is none of these.
        ValueError: if there is nothing in it, or if it has other names, shapes or types than the
            inputs.
    """
    wrappers = list(wrappers)
    recorder = _Recorder()
    with ExitStack() as stack:
        for owner, name in _activation_quantizers(quantize_layers, wrappers):
            stack.enter_context(_replaced(owner, name, recorder))
        for batch in _batches(data, model):
            model(batch, training=False)
    if not recorder.ranges:
        raise ValueError(
            problem(
                "representative_data without an example",
                "at least one batch",
                "pass some hundred training examples, for example x_train[:500]",
            )
        )
    recorder.assign()
    for wrapper in wrappers:
        for weight, quantizer, variables in wrapper._weight_vars:
            quantizer(weight, True, weights=variables)


class _Recorder:
    """Stands in for a quantizer: hands its input on and remembers its range."""

    def __init__(self) -> None:
        self.ranges: dict[Any, tuple[Any, float, float]] = {}

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **_: Any) -> Any:
        key = weights["min_var"].ref()
        # Zero must be representable: padding and ReLU produce it.
        _, low, high = self.ranges.get(key, (None, 0.0, 0.0))
        low, high = np.minimum(low, np.min(inputs)), np.maximum(high, np.max(inputs))
        self.ranges[key] = (weights, low, high)
        return inputs

    def assign(self) -> None:
        for variables, low, high in self.ranges.values():
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError(
                    problem(
                        "representative_data on which the student computes NaN or infinity",
                        "finite activations",
                        "check the student's weights and the range of the data",
                    )
                )
            # A range without extent cannot be quantized.
            variables["min_var"].assign(low)
            variables["max_var"].assign(high if high > low else low + 1e-3)


def _activation_quantizers(
    quantize_layers: Iterable[Any], wrappers: Iterable[Any]
) -> Iterator[tuple[Any, str]]:
    """The objects that hold a quantizer of activations, and the attribute that holds it."""
    for layer in quantize_layers:
        if layer.quantizer is not None:
            yield layer, "quantizer"
    for wrapper in wrappers:
        if wrapper._output_quantizers:
            yield wrapper, "_output_quantizers"
        for activation in wrapper._quantize_activations:
            yield activation, "quantizer"


@contextmanager
def _replaced(owner: Any, name: str, recorder: _Recorder) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, [recorder] if name == "_output_quantizers" else recorder)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _batches(data: Any, model: Any) -> Iterator[Any]:
    """Batches of `data` in the structure of the model's inputs, a few hundred examples in all."""
    if isinstance(data, Mapping) or hasattr(data, "__array__"):
        named = _named(data, model)
        count = min(len(array) for array in named.values())
        starts = range(0, min(count, _EXAMPLES), _BATCH)
        parts: Iterable[Any] = (
            {name: array[start : start + _BATCH] for name, array in named.items()}
            for start in starts
        )
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        parts = (_named(part[0] if isinstance(part, tuple) else part, model) for part in data)
    else:
        raise TypeError(
            problem(
                f"representative_data of type {type(data).__name__}",
                "an array, a dict of arrays or an iterable of batches",
                "pass some hundred training examples, for example x_train[:500]",
            )
        )
    seen = 0
    for part in parts:
        flat = [
            keras.ops.convert_to_tensor(part[name], dtype=tensor.dtype.name)
            for name, tensor in zip(model.input_names, model.inputs, strict=True)
        ]
        yield keras.tree.pack_sequence_as(model._nested_inputs, flat)
        seen += len(flat[0])
        if seen >= _EXAMPLES:
            return


def _described(data: Any) -> str:
    if isinstance(data, Mapping):
        return f"for the inputs {sorted(data)}"
    return f"of type {type(data).__name__}"


def _named(data: Any, model: Any) -> dict[str, np.ndarray]:
    names = model.input_names
    if not isinstance(data, Mapping) and len(names) == 1:
        data = {names[0]: data}
    if not isinstance(data, Mapping) or set(data) != set(names):
        raise ValueError(
            problem(
                f"representative_data {_described(data)}",
                f"one array for each of the inputs {names}",
                "pass a dict with these keys",
            )
        )
    arrays = {name: np.asarray(value) for name, value in data.items()}
    for name, tensor in zip(names, model.inputs, strict=True):
        shape = arrays[name].shape
        if len(shape) != len(tensor.shape) or any(
            size not in (None, given)
            for size, given in zip(tensor.shape[1:], shape[1:], strict=True)
        ):
            raise ValueError(
                problem(
                    f"representative_data of shape {shape} for the input {name!r}",
                    f"shape {tuple(tensor.shape)}",
                    "pass batches like those the student trains on",
                )
            )
        if tensor.dtype.is_floating and not np.issubdtype(arrays[name].dtype, np.floating):
            # The commonest mistake: pixels of 0..255 for a student that was trained on 0..1.
            raise ValueError(
                problem(
                    f"representative_data of type {arrays[name].dtype} for the input {name!r}",
                    "real numbers scaled as the student was trained on",
                    "pass x.astype('float32') / 255 if it was trained on 0..1, otherwise "
                    "x.astype('float32')",
                )
            )
    return arrays
