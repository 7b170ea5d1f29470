"""The table of layers: all facts about a kind of layer that compression and the bridge need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np


@dataclass(frozen=True)
class KernelRow:
    """A weight that a layer multiplies its inputs with.

    Axes are counted from the end, so that they are the same for convolutions in 1, 2 and 3
    dimensions; each position along the other axes has its own matrix.

    Attributes:
        name: what Keras 3 calls the weight.
        reads: the axes of the channels that are summed over.
        writes: the axes of the channels that are made; none for a depthwise kernel, which has a
            single input for each output, so few weights that each counts.
        by_equation: whether the axes follow from the layer's `equation` instead.
        ranges: how many of its last axes make up the channels that can have a range each in a
            quantized file; None where it is not quantized.
    """

    name: str = "kernel"
    reads: tuple[int, ...] = (-2,)
    writes: tuple[int, ...] = (-1,)
    by_equation: bool = False
    ranges: int | None = None


@dataclass(frozen=True)
class Twin:
    """How the layer of this name in tf_keras differs from the one of Keras 3.

    Attributes:
        options: the names of options of Keras 3, and those of tf_keras.
        weights: the names of weights, likewise.
        made_of: the options that hold layers.
        hidden: options that the tf_keras layer takes without naming them.
        only: options that only tf_keras has, with the values that compute what Keras 3 computes.
        of_built: options that tf_keras adds to the config of a built layer and asks for in
            `from_config`.
        by_arguments: whether `config_of` gives the arguments of the constructor as they are.
        is_alike: whether, with a config of Keras 3, the tf_keras layer computes the same.
        to_keras: functions that convert the values of options into the form of Keras 3.
        finish: called on a layer of either Keras once its weights are there.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    made_of: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    only: Mapping[str, Any] = field(default_factory=dict)
    of_built: tuple[str, ...] = ()
    by_arguments: bool = False
    is_alike: Callable[[Mapping[str, Any]], bool] = lambda config: True
    to_keras: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    finish: Callable[[Any], None] = lambda layer: None


class Rounding(Enum):
    """What quantization-aware training can do with a layer."""

    KERNEL = "weights and outputs in integers"
    OUTPUT = "outputs in integers"
    OUTPUT_ONLY = "computes in float, outputs in integers"
    HANDS_ON = "range of its input"
    FIXED = "fixed range"
    FLOAT = "float"


@dataclass(frozen=True)
class Row:
    """One kind of layer, of the same name in both versions of Keras.

    Attributes:
        name: the name of the class.
        kernels: what pruning and clustering act on. Those of a layer made of others are in the
            rows of its parts, those of a recurrent layer in the row of its cell.
        size: the option that holds the number of channels made; None where it is not one number.
        channels: the rule in `pruning/flow.py` for the channels of the inputs; None where single
            channels are not treated separately.
        forms: the low-rank forms in `factorization/forms.py`; of two equally good ones the first.
        rounding: what quantization-aware training can do with it.
        no_quantizer: why it stays in float, where that is known.
        parts: the attributes that hold layers, where the names of their weights are not enough.
        is_recurrent: whether it takes an initial state.
        twin: how it differs in tf_keras; None where only one Keras has it.
    """

    name: str
    kernels: tuple[KernelRow, ...] = ()
    size: str | None = None
    channels: str | None = None
    forms: tuple[str, ...] = ()
    rounding: Rounding = Rounding.FLOAT
    no_quantizer: str = ""
    parts: tuple[str, ...] = ()
    is_recurrent: bool = False
    twin: Twin | None = field(default_factory=Twin)

    def name_in_tf_keras(self, weight: str) -> str:
        """What tf_keras calls a weight of Keras 3."""
        return weight if self.twin is None else self.twin.weights.get(weight, weight)

    def kernel(self, weight: str) -> KernelRow | None:
        """The kernel that either Keras calls `weight`."""
        for kernel in self.kernels:
            if weight in (kernel.name, self.name_in_tf_keras(kernel.name)):
                return kernel
        return None

    @property
    def mixing(self) -> KernelRow | None:
        """The one kernel that makes channels from all channels, where there is one."""
        found = [kernel for kernel in self.kernels if kernel.writes]
        return found[0] if len(found) == 1 else None


def _each(names: str, **facts: Any) -> Iterable[Row]:
    return (Row(name, **facts) for name in names.split())


_IN_STEPS = "TF-MOT has no quantizers for what is computed step by step"
_ATTENDS = "TF-MOT has no quantizers for attention"
_RECURRENT: Mapping[str, Any] = {"is_recurrent": True, "no_quantizer": _IN_STEPS}
_WITH_MASKED_ZEROS = Twin(hidden=("zero_output_for_mask",))
_CELL = (KernelRow("kernel"), KernelRow("recurrent_kernel"))
_PROJECTIONS = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")
_CONVOLUTION: Mapping[str, Any] = {"size": "filters", "channels": "mix"}
_TRANSPOSED: Mapping[str, Any] = {"reads": (-1,), "writes": (-2,)}
_DEPTHWISE: Mapping[str, Any] = {"reads": (-2, -1), "writes": ()}
_LONG_NAME = Twin(weights={"kernel": "depthwise_kernel"})
# TFLite stores what belongs to one word in a row, as it stores the inputs of an output.
_TABLE = KernelRow("embeddings", reads=(-1,), writes=(-2,))

# TensorFlow's converter takes one range only for Dense and Conv2DTranspose.
_ROWS = (
    Row(
        "Dense",
        kernels=(KernelRow(ranges=0),),
        size="units",
        channels="mix",
        forms=("dense",),
        rounding=Rounding.KERNEL,
    ),
    Row("EinsumDense", kernels=(KernelRow(by_equation=True),)),
    Row(
        "Conv1D",
        kernels=(KernelRow(ranges=1),),
        forms=("channel",),
        rounding=Rounding.KERNEL,
        **_CONVOLUTION,
    ),
    Row(
        "Conv2D",
        kernels=(KernelRow(ranges=1),),
        # Channel-wise strides before it computes much.
        forms=("channel", "spatial"),
        rounding=Rounding.KERNEL,
        **_CONVOLUTION,
    ),
    Row(
        "Conv3D",
        kernels=(KernelRow(),),
        forms=("channel",),
        rounding=Rounding.OUTPUT_ONLY,
        **_CONVOLUTION,
    ),
    *_each(
        "Conv1DTranspose Conv3DTranspose",
        kernels=(KernelRow(**_TRANSPOSED),),
        rounding=Rounding.OUTPUT_ONLY,
        **_CONVOLUTION,
    ),
    Row(
        "Conv2DTranspose",
        kernels=(KernelRow(ranges=0, **_TRANSPOSED),),
        rounding=Rounding.KERNEL,
        **_CONVOLUTION,
    ),
    *_each(
        "SeparableConv1D SeparableConv2D",
        kernels=(
            KernelRow("depthwise_kernel", ranges=2, **_DEPTHWISE),
            KernelRow("pointwise_kernel", ranges=1),
        ),
        rounding=Rounding.KERNEL,
        **_CONVOLUTION,
    ),
    Row(
        "DepthwiseConv1D",
        kernels=(KernelRow(**_DEPTHWISE),),
        channels="depthwise",
        rounding=Rounding.OUTPUT_ONLY,
        twin=_LONG_NAME,
    ),
    Row(
        "DepthwiseConv2D",
        kernels=(KernelRow(ranges=2, **_DEPTHWISE),),
        channels="depthwise",
        rounding=Rounding.KERNEL,
        twin=_LONG_NAME,
    ),
    Row(
        "Embedding",
        kernels=(_TABLE,),
        forms=("embedding",),
        no_quantizer="TF-MOT has no quantizer for Embedding",
    ),
    # The other way, it multiplies with the same table or with another kernel.
    Row("ReversibleEmbedding", kernels=(_TABLE, KernelRow("reverse_embeddings")), twin=None),
    # Attention is a layer of EinsumDense layers.
    *_each("AdditiveAttention Attention", no_quantizer=_ATTENDS),
    Row(
        "MultiHeadAttention",
        parts=_PROJECTIONS,
        no_quantizer=_ATTENDS,
        # Where all scores of a row are masked, they get no gradient.
        twin=Twin(
            of_built=("query_shape", "key_shape", "value_shape"),
            only={"softmax_robust_masking": True},
        ),
    ),
    # The class of `keras.layers.GroupQueryAttention`.
    Row("GroupedQueryAttention", parts=_PROJECTIONS, no_quantizer=_ATTENDS, twin=None),
    # Recurrent layers.
    *_each("GRUCell LSTMCell SimpleRNNCell", kernels=_CELL),
    Row("ConvLSTMCell", kernels=_CELL, twin=None),
    *_each("ConvLSTM1D ConvLSTM2D ConvLSTM3D", **_RECURRENT),
    *_each("GRU LSTM SimpleRNN", twin=_WITH_MASKED_ZEROS, **_RECURRENT),
    Row(
        "RNN",
        parts=("cell",),
        twin=Twin(made_of=("cell",), hidden=_WITH_MASKED_ZEROS.hidden),
        **_RECURRENT,
    ),
    Row("StackedRNNCells", parts=("cells",), twin=Twin(made_of=("cells",))),
    Row(
        "Bidirectional",
        parts=("forward_layer", "backward_layer"),
        twin=Twin(made_of=("layer", "backward_layer")),
        **_RECURRENT,
    ),
    # Layers around another one.
    Row(
        "TimeDistributed",
        parts=("layer",),
        no_quantizer=_IN_STEPS,
        twin=Twin(made_of=("layer",)),
    ),
    Row("SpectralNormalization", twin=None),
    # Normalizations and other layers whose weights are no kernels.
    Row(
        "BatchNormalization",
        channels="scale",
        rounding=Rounding.OUTPUT_ONLY,
        twin=Twin(to_keras={"axis": lambda axes: np.ravel(axes).item()}),
    ),
    *_each("GroupNormalization UnitNormalization", rounding=Rounding.OUTPUT_ONLY),
    Row(
        "LayerNormalization",
        rounding=Rounding.OUTPUT_ONLY,
        # Keras 3 reshapes the weights of several axes where tf_keras transposes them.
        twin=Twin(is_alike=lambda config: np.size(config["axis"]) == 1),
    ),
    Row(
        "Normalization",
        rounding=Rounding.OUTPUT_ONLY,
        twin=Twin(finish=lambda layer: layer.finalize_state()),
    ),
    Row("RMSNormalization", twin=None),
    Row("PReLU", channels="scale", rounding=Rounding.OUTPUT_ONLY),
    Row("STFTSpectrogram", twin=None),
    # Layers without weights. These pass on values of their input, or weighted means of them.
    *_each(
        """
        ActivityRegularization AlphaDropout AveragePooling1D AveragePooling2D AveragePooling3D
        Cropping1D Cropping2D Cropping3D Dropout GaussianDropout GaussianNoise GlobalMaxPooling1D
        GlobalMaxPooling2D GlobalMaxPooling3D Identity MaxPooling1D MaxPooling2D MaxPooling3D
        RepeatVector SpatialDropout1D SpatialDropout2D SpatialDropout3D UpSampling1D UpSampling2D
        UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
        """,
        channels="pass",
        rounding=Rounding.HANDS_ON,
    ),
    *_each("Flatten Reshape", channels="reshape", rounding=Rounding.HANDS_ON),
    Row("Permute", channels="permute", rounding=Rounding.HANDS_ON),
    Row("Masking", rounding=Rounding.HANDS_ON),
    # TFLite computes these on integers, and rounds what comes out.
    *_each(
        "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D ReLU",
        channels="pass",
        rounding=Rounding.OUTPUT,
    ),
    Row(
        "LeakyReLU",
        channels="pass",
        rounding=Rounding.OUTPUT,
        twin=Twin(options={"negative_slope": "alpha"}),
    ),
    Row("Activation", channels="activate", rounding=Rounding.OUTPUT),
    *_each("Add Average", channels="merge", rounding=Rounding.OUTPUT),
    Row("Concatenate", channels="concatenate", rounding=Rounding.OUTPUT),
    # TF-MOT has no quantizer for what these compute, but for their outputs.
    *_each("Maximum Minimum Multiply Subtract", channels="merge", rounding=Rounding.OUTPUT_ONLY),
    Row("ELU", channels="pass", rounding=Rounding.OUTPUT_ONLY),
    Row("Rescaling", channels="rescale", rounding=Rounding.OUTPUT_ONLY),
    Row("Dot", rounding=Rounding.OUTPUT_ONLY),
    Row("ThresholdedReLU", rounding=Rounding.OUTPUT_ONLY, twin=None),
    Row("Softmax", rounding=Rounding.FIXED),
    # tf_keras would have AutoGraph rewrite the function.
    Row("Lambda", twin=Twin(by_arguments=True, is_alike=lambda config: False)),
)
LAYERS: Mapping[str, Row] = {row.name: row for row in _ROWS}


def row_of(layer_class: type) -> Row | None:
    """The row about a class of layers of either Keras; None for others and those of users."""
    is_own = layer_class.__module__.partition(".")[0] in ("keras", "tf_keras", "keras_kd")
    return LAYERS.get(layer_class.__name__) if is_own else None


def class_of(layer: Any) -> type:
    """The class of a layer, or of the Keras 3 layer that the bridge keeps in it."""
    return type(getattr(layer, "keras_layer", layer))


def twin_of(layer_class: type) -> Twin | None:
    """How a class of layers of either Keras differs in the other; None if it is in one only."""
    row = row_of(layer_class)
    return None if row is None else row.twin
