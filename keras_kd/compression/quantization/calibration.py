"""The ranges of activations of a quantization-aware model, measured on data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem

_BATCH = 64


@dataclass
class ModelInput:
    """An input of a model: `keras_kd._examples.InputInfo`."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    is_quantized: bool = False


def model_inputs(model: Any) -> list[ModelInput]:
    """The inputs of a functional tf_keras model."""
    return [
        ModelInput(name, tuple(tensor.shape), np.dtype(tensor.dtype.name))
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    ]


def calibrate(model: Any, examples: Mapping[str, np.ndarray] | None) -> None:
    """Set the ranges of the weights, and those of activations as measured on `examples`.

    The model runs eagerly and in inference mode, so that neither dropout nor the statistics of a
    BatchNormalization play a part. Its activations are not rounded meanwhile, its weights are, and
    they do not change.

    Args:
        model: a quantization-aware `tf_keras.Model`.
        examples: arrays by input name, shaped (examples, ...); None to leave activations alone.

    Raises:
        ValueError: if the model computes NaN or infinity.
    """
    from keras_kd.compression.quantization._wrapper import quantize_layers, wrappers

    for wrapper in wrappers(model):
        for weight, quantizer, variables in wrapper.weight_quantizers:
            quantizer(weight, True, weights=variables)
    if examples is None:
        return
    recorder = _Recorder()
    with ExitStack() as stack:
        for owner, name, value in _stand_ins(quantize_layers(model), wrappers(model), recorder):
            stack.enter_context(_replaced(owner, name, value))
        for batch in _batches(examples, model):
            model(batch, training=False)
    recorder.assign()


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
                raise problem(
                    "representative_data on which the student computes NaN or infinity",
                    "finite activations",
                    "check the student's weights and the range of the data",
                )
            # A range without extent cannot be quantized.
            variables["min_var"].assign(low)
            variables["max_var"].assign(high if high > low else low + 1e-3)


def _stand_ins(
    quantize_layers: list[Any], wrappers: list[Any], recorder: _Recorder
) -> Iterator[tuple[Any, str, Any]]:
    """What holds a quantizer of activations, under which name, and what takes its place there."""
    for layer in quantize_layers:
        if not layer.has_fixed_range:
            yield layer, "quantizer", recorder
    for wrapper in wrappers:
        for name in ("between", "output_range"):
            if getattr(wrapper, name) is not None:
                yield wrapper, name, (recorder, getattr(wrapper, name)[1])
        for activation in wrapper.activations:
            yield activation, "quantizer", recorder


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    # Past Keras' own __setattr__, which would change what is put there.
    vars(owner)[name] = value
    try:
        yield
    finally:
        vars(owner)[name] = original


def _batches(examples: Mapping[str, np.ndarray], model: Any) -> Iterator[Any]:
    """Batches in the structure of the model's inputs."""
    count = len(next(iter(examples.values())))
    for start in range(0, count, _BATCH):
        flat = [
            keras.ops.convert_to_tensor(examples[name][start : start + _BATCH])
            for name in model.input_names
        ]
        yield keras.tree.pack_sequence_as(model._nested_inputs, flat)
