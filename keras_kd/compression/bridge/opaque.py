"""Layers of tf_keras that the bridge makes. Importing this imports tf_keras, which takes seconds.

Importing it also lets tf_keras load files with these layers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
import tf_keras
from tf_keras.src.engine import base_layer_utils
from tf_keras.src.saving import serialization_lib

from keras_kd._backends import mask_of
from keras_kd._checks import problem
from keras_kd._keras import Untracked, take_losses
from keras_kd.compression.bridge.operations import Operation
from keras_kd.compression.bridge.serialized import from_text, function_from_text
from keras_kd.compression.bridge.weights import named_weights

_PACKAGE = "keras_kd"


class BatchNormalization(tf_keras.layers.BatchNormalization):
    """`fused=False`, which makes tf_keras compute as Keras 3 does, and which copies keep.

    The fused kernel's moving variance is N / (N - 1) times that of Keras 3. TF-MOT identifies
    classes by name, so this one has its base's name and is not registered under another.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "fused": False})

    def get_config(self) -> dict[str, Any]:
        """The configuration with `fused`, which tf_keras leaves out."""
        return {**super().get_config(), "fused": False}


@tf_keras.saving.register_keras_serializable(_PACKAGE)
class OpaqueLayer(tf_keras.layers.Layer):
    """A Keras 3 layer as a layer of tf_keras: it trains, saves, loads and can be copied.

    Args:
        layer: the Keras 3 layer, as `serialized.to_text` gives it.
        frozen: which of the layers inside do not train, as numbers in the order in which Keras 3
            lists them.
        options: those of every layer of tf_keras.
    """

    # The Keras 3 layer's weights are listed here, not found by tf_keras in the layer.
    _auto_track_sub_layers = False

    def __init__(self, layer: str, frozen: Sequence[int] = (), **options: Any) -> None:
        super().__init__(autocast=False, **options)
        self.keras_layer = from_text(layer, safe_mode=_in_safe_mode())
        self._config = Untracked({"layer": layer, "frozen": list(frozen)})
        self._is_tracked = False
        self.supports_masking = True
        # The masks that Keras 3 leaves on the outputs count.
        self._compute_output_and_mask_jointly = True

    def get_config(self) -> dict[str, Any]:
        """The configuration from which a copy is made."""
        return {**super().get_config(), **self._config.value}

    def build(self, input_shape: Any) -> None:
        """Nothing: the weights are built in the first call, where all arguments are known.

        Raises:
            ValueError: if tf_keras loads the layer from a SavedModel, in which it calls it too late
                to give it its weights.
        """
        if not base_layer_utils.call_context().in_call:
            raise problem(
                f"a SavedModel with the layer {self.name!r} ({type(self).__name__})",
                "a model in a .keras or .h5 file",
                "save the model as .keras, or load the SavedModel with tf.saved_model.load",
            )
        super().build(input_shape)

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Nothing, as `build`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call with the Keras 3 layer's own arguments."""
        # tf_keras requires one positional argument, and finds `training` and `mask` by name.
        names = list(inspect.signature(self.keras_layer.call).parameters)
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        return super().__call__(named.pop(names[0]), **named)

    def call(self, inputs: Any, training: Any = None, mask: Any = None, **options: Any) -> Any:
        """What the Keras 3 layer computes; what it adds as losses is added here."""
        return self._compute(inputs, training, mask, options)

    # Keras 3 does not let AutoGraph rewrite layers either.
    @tf.autograph.experimental.do_not_convert
    def _compute(self, inputs: Any, training: Any, mask: Any, options: dict[str, Any]) -> Any:
        layer = self.keras_layer
        inputs = _with_masks(inputs, mask)
        if mask is not None and _accepts(layer, "mask"):
            options["mask"] = mask
        if not self._is_tracked:
            self._build_keras_layer(inputs, options)
            self._track_weights()
        self._match_trainable()
        if training is not None and _accepts(layer, "training"):
            # Where tf_keras traces a model for the first time it is a tensor without a value.
            options["training"] = bool(tf.get_static_value(training))
        take_losses(layer)
        outputs = layer(inputs, **options)
        for loss in take_losses(layer):
            self.add_loss(loss)
        return outputs

    def _build_keras_layer(self, inputs: Any, options: dict[str, Any]) -> None:
        def symbol(value: Any) -> Any:
            is_tensor = isinstance(value, tf.Tensor)
            return keras.KerasTensor(value.shape, value.dtype.name) if is_tensor else value

        symbols: Any = keras.tree.map_structure(symbol, (inputs, options))
        inputs, options = symbols
        with tf.init_scope():
            self.keras_layer(inputs, **options)

    def _track_weights(self) -> None:
        self._is_tracked = True
        self.keras_layer.trainable = True
        self._freeze_parts()
        for name, weight in named_weights(self.keras_layer).items():
            # HDF5 files need names that are unique in a layer.
            weight.value._handle_name = f"{self.name}/{name}:0"
            # Where the optimizers of tf_keras look for it.
            for one in getattr(weight.value, "values", [weight.value]):
                one._constraint = weight.constraint
            weights = self._trainable_weights if weight.trainable else self._non_trainable_weights
            weights.append(weight.value)
            if weight.regularizer is not None:
                self.add_loss(functools.partial(_regularization, weight))

    def _match_trainable(self) -> None:
        if self.keras_layer.trainable != self.trainable:
            self.keras_layer.trainable = self.trainable
            self._freeze_parts()

    def _freeze_parts(self) -> None:
        parts = list(self.keras_layer._flatten_layers(include_self=False))
        for index in self._config.value["frozen"]:
            parts[index].trainable = False


@tf_keras.saving.register_keras_serializable(_PACKAGE)
class OperationLayer(tf_keras.layers.Layer):
    """An operation of Keras 3 as a layer of tf_keras; see `Operation` for the arguments."""

    def __init__(self, operation: str, arguments: str, **options: Any) -> None:
        super().__init__(autocast=False, **options)
        self.operation = Operation(operation, arguments, self.name)

    def get_config(self) -> dict[str, Any]:
        """The configuration from which a copy is made."""
        return {**super().get_config(), **self.operation.get_config()}

    def call(self, inputs: Any) -> Any:
        """What the operation computes of one tensor or a list of them."""
        return self._compute(inputs)

    @tf.autograph.experimental.do_not_convert
    def _compute(self, inputs: Any) -> Any:
        return self.operation(inputs)


@tf_keras.saving.register_keras_serializable(_PACKAGE)
class WeightFunction(tf_keras.regularizers.Regularizer, tf_keras.constraints.Constraint):
    """A user's own regularizer or constraint, as `serialized.function_to_text` gives it."""

    def __init__(self, function: str) -> None:
        self._text = function
        self._function = function_from_text(function, safe_mode=_in_safe_mode())

    def __call__(self, weight: Any) -> Any:
        """What the function computes of a weight."""
        return self._function(weight)

    def get_config(self) -> dict[str, Any]:
        """The configuration from which a copy is made."""
        return {"function": self._text}


def _in_safe_mode() -> bool:
    return serialization_lib.in_safe_mode() is not False


def _with_masks(inputs: Any, mask: Any) -> Any:
    """The same tensors with exactly these masks on them."""
    flat = keras.tree.flatten(inputs)
    masks = keras.tree.flatten(mask) if mask is not None else [None] * len(flat)
    if len(masks) != len(flat):
        return inputs
    marked = []
    for tensor, own in zip(flat, masks, strict=True):
        if mask_of(tensor) is not own:
            tensor = tf.identity(tensor)
            if own is not None:
                tensor._keras_mask = own
        marked.append(tensor)
    return keras.tree.pack_sequence_as(inputs, marked)


def _accepts(layer: keras.layers.Layer, argument: str) -> bool:
    return argument in inspect.signature(layer.call).parameters


def _regularization(weight: keras.Variable) -> Any:
    return weight.regularizer(weight) if weight.trainable else None
