"""What a layer that both Kerases know is called, and its options and weights, in each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_kd._keras import tf_keras


@dataclass(frozen=True)
class Row:
    """How one class of layers differs between Keras 3 and tf_keras; both know it by `name`.

    `options` and `weights` map Keras 3 names to tf_keras names; `parts` are the options that hold
    layers; `hidden` are options that the tf_keras layer takes without naming them; `of_built` are
    options that tf_keras adds to the config of a built layer and asks for in `from_config`;
    `by_arguments` says that `config_of` gives the arguments of the constructor as they are;
    `is_alike` says of a config of Keras 3 whether the tf_keras layer computes the same with it;
    `to_keras` turns the values of options that Keras 3 wants in another form; `finish` is called on
    a layer of either Keras once its weights are there.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    of_built: tuple[str, ...] = ()
    by_arguments: bool = False
    is_alike: Callable[[Mapping[str, Any]], bool] = lambda config: True
    to_keras: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    finish: Callable[[Any], None] = lambda layer: None

    @property
    def keras_class(self) -> type:
        """The layer of Keras 3."""
        return getattr(keras.layers, self.name)

    @property
    def tf_keras_class(self) -> type:
        """The layer that the bridge makes in tf_keras."""
        if self.name == "BatchNormalization":
            from keras_kd.compression.bridge.unfused import BatchNormalization

            return BatchNormalization
        return getattr(tf_keras().layers, self.name)

    def is_of(self, layer_class: type) -> bool:
        """Whether the row is about this very class, not one derived from it."""
        if issubclass(layer_class, keras.Operation):
            return layer_class is self.keras_class
        return layer_class in (getattr(tf_keras().layers, self.name), self.tf_keras_class)


_ALIKE = """
    Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention Average
    AveragePooling1D AveragePooling2D AveragePooling3D Concatenate Conv1D Conv1DTranspose Conv2D
    Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D
    Cropping3D Dense Dot Dropout ELU EinsumDense Embedding Flatten GRUCell GaussianDropout
    GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization Identity LSTMCell
    Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum
    Multiply PReLU Permute ReLU RepeatVector Rescaling Reshape SeparableConv1D
    SeparableConv2D SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D
    Subtract UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
    ZeroPadding3D
"""

ROWS = {
    row.name: row
    for row in (
        *map(Row, _ALIKE.split()),
        Row("BatchNormalization", to_keras={"axis": lambda axes: np.ravel(axes).item()}),
        Row("Bidirectional", parts=("layer", "backward_layer")),
        Row("DepthwiseConv1D", weights={"kernel": "depthwise_kernel"}),
        Row("DepthwiseConv2D", weights={"kernel": "depthwise_kernel"}),
        Row("GRU", hidden=("zero_output_for_mask",)),
        Row("LSTM", hidden=("zero_output_for_mask",)),
        # tf_keras would have AutoGraph rewrite the function.
        Row("Lambda", by_arguments=True, is_alike=lambda config: False),
        # Keras 3 reshapes the weights of several axes where tf_keras transposes them.
        Row("LayerNormalization", is_alike=lambda config: np.size(config["axis"]) == 1),
        Row("LeakyReLU", options={"negative_slope": "alpha"}),
        Row("MultiHeadAttention", of_built=("query_shape", "key_shape", "value_shape")),
        Row("Normalization", finish=lambda layer: layer.finalize_state()),
        Row("RNN", parts=("cell",), hidden=("zero_output_for_mask",)),
        Row("SimpleRNN", hidden=("zero_output_for_mask",)),
        Row("StackedRNNCells", parts=("cells",)),
        Row("TimeDistributed", parts=("layer",)),
    )
}


def row_of(layer_class: type) -> Row | None:
    """The row about a class of layers of either Keras."""
    row = ROWS.get(layer_class.__name__)
    return row if row is not None and row.is_of(layer_class) else None
