"""The data that a student was trained on, by its preprocessing and its normalizations.

A BatchNormalization holds the mean and the variance of its inputs in training. On data of another
scale, or on noise, its inputs differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from keras_kd._checks import three_parts
from keras_kd._examples import InputInfo
from keras_kd._graphs import symbolic_inputs
from keras_kd._keras import is_model, replaced_attributes

_SCALING = ("Rescaling", "Normalization")
# What may stand before them: it changes places or adds noise, not the scale.
_WITHOUT_SCALE = (
    "AugMix",
    "AutoContrast",
    "CenterCrop",
    "Cropping2D",
    "Dropout",
    "GaussianNoise",
    "InputLayer",
    "Permute",
    "QuantizeLayer",
    "Reshape",
    "Resizing",
    "ZeroPadding2D",
)


def first_scaling(student: Any) -> Any:
    """The Rescaling or Normalization that every input goes through first; None if there is none.

    Args:
        student: a model of either Keras, also one with preprocessing in a nested model.
    """
    for layer in _in_order(student):
        kind = type(layer).__name__
        if kind in _SCALING:
            return layer
        if kind not in _WITHOUT_SCALE and not kind.startswith("Random"):
            return None
    return None


def scaled_by(layer: Any, values: np.ndarray) -> np.ndarray:
    """What a layer that `first_scaling` found makes of values."""
    return np.asarray(layer(values), dtype="float32")


def _in_order(model: Any) -> Iterator[Any]:
    """The layers of a graph, those of nested and wrapped ones in place of what holds them."""
    for layer in model.layers:
        wrapped = getattr(layer, "layer", None)
        if is_model(layer):
            yield from _in_order(layer)
        else:
            yield layer if wrapped is None else wrapped


_MOST_EXAMPLES = 100
# Nats per channel. Seen on MNIST and Fashion-MNIST after the first layer: up to 0.05 on their own
# images, 0.15 on each other's, from 0.35 on uniform noise, above 0.9 at another scale.
_MOST_SURPRISE = 0.25
# A few examples are no more alike than that.
_SURPRISE_OF_ONE = 2.0
# Variances as small as that are rounding, or channels that are always zero.
_LEAST_VARIANCE = 1e-3
# Of the way from the values of a new layer to those of the data: below it, an average has seen too
# few steps to be evidence.
_SETTLED = 0.5
_PIXELS = 255
_LARGEST_PLAIN = 16
_LEAST_SPREAD = 1 / 32
_FIX = (
    "scale them as in training (x / 255 for 0..1), take real examples, or name the range: "
    "input_range=(low, high)"
)


class _Normalization(NamedTuple):
    """What reached a BatchNormalization, and what it remembers, by channel."""

    name: str
    examples: int
    mean: np.ndarray
    variance: np.ndarray
    remembered_mean: np.ndarray
    remembered_variance: np.ndarray


def warn_of_other_data(
    examples: Mapping[str, np.ndarray], inputs: Sequence[InputInfo], student: Any
) -> None:
    """Warn if examples visibly differ from those that the student was trained on.

    Where the student has a trainable BatchNormalization with settled averages, the first one is the
    witness. Elsewhere images that look like unscaled pixels are, or preprocessing that leaves next
    to nothing of them.

    Args:
        examples: arrays by input name, shaped (examples, ...).
        inputs: what the student takes, in the order of its inputs.
        student: a model of either Keras.
    """
    seen = _first_normalization(examples, inputs, student)
    if seen is not None:
        surprise, share = _surprise(seen)
        if surprise > _MOST_SURPRISE + _SURPRISE_OF_ONE / seen.examples:
            _warn(
                "representative_data that are unlike the student's training data: at its layer "
                f"{seen.name!r} the values differ from the averages of training by {surprise:.2g} "
                "nats per channel, where real examples stay below 0.2"
            )
            return
        if share >= _SETTLED:
            return
    if len(inputs) == 1 and len(inputs[0].shape) == 4:
        _warn_of_scale(examples[inputs[0].name][:_MOST_EXAMPLES], student)


def _warn(received: str) -> None:
    expected = "examples like those of its training, scaled in the same way"
    warnings.warn(three_parts(received, expected, _FIX), stacklevel=5)


def _surprise(seen: _Normalization) -> tuple[float, float]:
    """How far what was remembered is from what came (Kullback-Leibler divergence of normals).

    Moving averages begin at mean 0 and variance 1 and may still be on their way. Of all shares of
    the way the most favourable one counts.

    Returns:
        The divergence in nats per channel, and that share.
    """
    share = np.linspace(0, 1, 21)[:, None]
    mean = share * seen.mean
    variance = (1 - share) + share * (seen.variance + _LEAST_VARIANCE)
    remembered = seen.remembered_variance + _LEAST_VARIANCE
    ratio = variance / remembered
    distance = np.square(mean - seen.remembered_mean) / remembered
    divergence = ((ratio + distance - 1 - np.log(ratio)) / 2).mean(axis=1)
    best = int(np.argmin(divergence))
    return float(divergence[best]), float(share[best, 0])


def _first_normalization(
    examples: Mapping[str, np.ndarray], inputs: Sequence[InputInfo], student: Any
) -> _Normalization | None:
    layers = [layer for layer in student._flatten_layers() if _is_witness(layer)]
    arguments = _arguments(examples, inputs, student)
    if not layers or arguments is None:
        return None
    with _listening(layers) as seen:
        student(arguments, training=False)
    return seen[0] if seen else None


def _is_witness(layer: Any) -> bool:
    """A frozen one remembers the data of another training, a new one nothing."""
    if type(layer).__name__ != "BatchNormalization" or not (layer.built and layer.trainable):
        return False
    variance = np.asarray(layer.moving_variance)
    return bool(np.any(np.asarray(layer.moving_mean)) or np.any(variance != 1))


def _arguments(
    examples: Mapping[str, np.ndarray], inputs: Sequence[InputInfo], student: Any
) -> Any:
    """Some examples in the structure that the student is called with; None if it is not known."""
    tensors = getattr(student, "inputs", None)
    # Models for one example at a time take no more.
    most = (tensors[0].shape[0] if tensors else None) or _MOST_EXAMPLES
    ordered = [examples[tensor.name][:most] for tensor in inputs]
    if not tensors:
        return ordered[0] if len(ordered) == 1 else None
    structure = symbolic_inputs(student)
    if isinstance(structure, Mapping):
        return dict(zip(structure, ordered, strict=True))
    return ordered if isinstance(structure, list | tuple) else ordered[0]


@contextmanager
def _listening(layers: Sequence[Any]) -> Iterator[list[_Normalization]]:
    """While this is open, note what reaches the first of the layers that is called."""
    import tensorflow as tf

    seen: list[_Normalization] = []

    def noting(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted_call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not seen and not tf.is_symbolic_tensor(inputs):
                seen.append(_statistics(layer, np.asarray(inputs, dtype="float32")))
            return call(inputs, *args, **kwargs)

        return noted_call

    with replaced_attributes([(layer, "call", partial(noting, layer)) for layer in layers]):
        yield seen


def _statistics(layer: Any, values: np.ndarray) -> _Normalization:
    # A list in tf_keras.
    axis = int(np.ravel(layer.axis)[0])
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    return _Normalization(
        layer.name,
        len(values),
        values.mean(axis=others),
        values.var(axis=others),
        np.asarray(layer.moving_mean, dtype="float32"),
        np.asarray(layer.moving_variance, dtype="float32"),
    )


def _warn_of_scale(images: np.ndarray, student: Any) -> None:
    scaling = first_scaling(student) if getattr(student, "inputs", None) else None
    described = f"representative_data from {images.min():g} to {images.max():g}"
    if scaling is None:
        whole = np.array_equal(images, np.rint(images))
        if whole and images.min() >= 0 and _LARGEST_PLAIN < images.max() <= _PIXELS:
            _warn(f"{described} that look like unscaled pixels, for a student without Rescaling")
        return
    reaching = scaled_by(scaling, images)
    if np.abs(reaching).max() > _LARGEST_PLAIN or np.ptp(reaching) < _LEAST_SPREAD:
        _warn(
            f"{described}, of which the student's own {scaling.name!r} makes values from "
            f"{reaching.min():g} to {reaching.max():g}"
        )
