"""Recurrent layers with `stateful=True`: their states go into the file and come out of it again.

A file that keeps states in itself needs variables, which an app cannot set back and for which a
microcontroller must find memory. As inputs and outputs they are numbers like all others: feeding
the outputs of one call to the next continues a stream, feeding zeros begins one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd._keras import is_keras_model, original_name, replaced_attributes, tf_keras
from keras_kd.tflite.contents.state import NEXT
from keras_kd.tflite.tensors import TensorInfo

# Whether LSTM and GRU of tf_keras become a function, which the converter turns into an operator
# that takes no states.
_IS_FUSED = "_could_use_gpu_kernel"


class _Layer(NamedTuple):
    """A recurrent layer and its states, in the order in which Keras holds them."""

    layer: Any
    states: tuple[TensorInfo, ...]


def has_states(model: Any) -> bool:
    """Whether a model of Keras keeps states from one batch to the next."""
    return any(layer.stateful for layer in _recurrent_layers(model))


class Stream:
    """The states that a student keeps from one batch to the next.

    Args:
        model: a Keras 3 or tf_keras model that has been built.

    Attributes:
        states: a `TensorInfo` for each, the batch size 1 in front. Those of an LSTM "lstm" are
            "lstm_h" and "lstm_c", that of a GRU "gru" is "gru_h"; others are numbered.
    """

    def __init__(self, model: Any) -> None:
        recurrent = _recurrent_layers(model)
        self._layers = [_Layer(layer, _states(layer)) for layer in recurrent if layer.stateful]
        self._fused = [
            layer
            for layer in recurrent
            if not layer.stateful and getattr(layer, _IS_FUSED, False) and not layer.unroll
        ]
        self.states = tuple(state for layer in self._layers for state in layer.states)

    @contextmanager
    def fed(self, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """In the block the layers begin with these states instead of their own.

        Args:
            inputs: for each state a tensor, shaped (batch size, ...).

        Returns:
            A dict that holds, after the model was called, for each state the next one, by its name
            and `NEXT`.
        """
        import tensorflow as tf

        following = {
            state.name + NEXT: tf.convert_to_tensor(inputs[state.name]) for state in self.states
        }
        replacements: list[tuple[Any, str, Any]] = []
        for layer, states in self._layers:
            names = [state.name + NEXT for state in states]
            replacements.append((layer, "call", partial(_from_states, layer, names, following)))
        replacements += [(layer, "call", partial(_without_fusing, layer)) for layer in self._fused]
        with ExitStack() as stack:
            for layer, *_ in replacements:
                # It insists on the batch size that the student was built with.
                stack.enter_context(_options(layer, input_spec=None))
            stack.enter_context(replaced_attributes(replacements))
            yield following


@contextmanager
def _options(layer: Any, **values: Any) -> Iterator[None]:
    """In the block a layer has other options, those of them that it has."""
    before = {name: getattr(layer, name) for name in values if hasattr(layer, name)}
    try:
        for name in before:
            setattr(layer, name, values[name])
        yield
    finally:
        for name, value in before.items():
            setattr(layer, name, value)


def _without_fusing(layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """The `call` of a layer that is no single operator where it is given a state to begin with."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("initial_state") is None:
            return original(*args, **kwargs)
        with _options(layer, **{_IS_FUSED: False}):
            return original(*args, **kwargs)

    return call


def _from_states(
    layer: Any, names: Sequence[str], values: dict[str, Any], original: Callable[..., Any]
) -> Callable[..., Any]:
    """The `call` of a layer that takes its states from `values` and puts the next ones there."""
    import tensorflow as tf

    def call(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        returns_state = layer.return_state
        flat = [values[name] for name in names]
        kwargs["initial_state"] = tf.nest.pack_sequence_as(layer.states, flat)
        # One step needs no loop, for which the converter cannot be calibrated.
        unroll = layer.unroll or sequences.shape[1] == 1
        options = {"stateful": False, "return_state": True, "unroll": unroll, _IS_FUSED: False}
        with _options(layer, **options):
            output, *states = original(sequences, *args, **kwargs)
        values.update(zip(names, tf.nest.flatten(states), strict=True))
        return (output, *states) if returns_state else output

    return call


def _recurrent_layers(model: Any) -> list[Any]:
    library = keras if is_keras_model(model) else tf_keras()
    layers = {id(layer): layer for layer in model._flatten_layers()}.values()
    return [layer for layer in layers if isinstance(layer, library.layers.RNN)]


def _states(layer: Any) -> tuple[TensorInfo, ...]:
    import tensorflow as tf

    shapes = [(1, *state.shape[1:]) for state in tf.nest.flatten(layer.states)]
    if "LSTM" in type(layer).__name__ and len(shapes) == 2:
        endings = ["h", "c"]
    else:
        endings = ["h"] if len(shapes) == 1 else [str(number) for number in range(len(shapes))]
    return tuple(
        TensorInfo(f"{original_name(layer.name)}_{ending}", shape, np.dtype("float32"))
        for ending, shape in zip(endings, shapes, strict=True)
    )
