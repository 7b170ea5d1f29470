"""The ways in which a layer can be two layers with a few channels between them.

Each is a way to write a kernel as a matrix. Truncated to a rank it is a product of two, which are
the kernels of the two layers, so that each rank costs rows + columns parameters in every form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_kd.compression.factorization.decomposition import Decomposition
from keras_kd.compression.layers import row_of

Config = Mapping[str, Any]
Shape = tuple[int, ...]
Kernels = tuple[np.ndarray, np.ndarray]

# What the first of two layers leaves to the second.
_LINEAR = {
    "activation": "linear",
    "use_bias": False,
    "bias_regularizer": None,
    "bias_constraint": None,
    "activity_regularizer": None,
}


class Form(ABC):
    """How the kernel of one class of layers is taken apart.

    Attributes:
        name: what users call it.
        weight: what the layer calls its kernel.
        second_class: the class of the second layer; None for that of the layer itself.
    """

    name: str
    weight: str = "kernel"
    second_class: type | None = None

    @abstractmethod
    def unfold(self, kernel: np.ndarray) -> np.ndarray:
        """The kernel as the matrix to truncate."""

    @abstractmethod
    def kernels(self, shape: Shape, first: np.ndarray, second: np.ndarray) -> Kernels:
        """The two layers' kernels, made of the matrix' factors; `shape` is the kernel's own."""

    @abstractmethod
    def options(self, config: Config, rank: int) -> tuple[Config, Config]:
        """In which options the two layers differ from the layer with this config."""

    def configs(self, config: Config, rank: int) -> tuple[Config, Config]:
        """The configs of the two layers that replace the layer with this config."""
        first, second = self.options(config, rank)
        return {**config, **_LINEAR, **first}, {**config, **second}

    def output_error(self, shape: Shape, decomposition: Decomposition, rank: int) -> float:
        """The largest change of an output position for inputs to it of norm 1."""
        return decomposition.spectral_error(rank)


class DenseForm(Form):
    """To `rank` units and on to all, for `Dense`.

    Reference: Xue, Li and Gong, "Restructuring of deep neural network acoustic models with
    singular value decomposition", Interspeech 2013; Denton et al., "Exploiting linear structure
    within convolutional networks for efficient evaluation", NeurIPS 2014.
    """

    name = "dense"

    def unfold(self, kernel: np.ndarray) -> np.ndarray:
        """The kernel itself: (inputs, units)."""
        return kernel

    def kernels(self, shape: Shape, first: np.ndarray, second: np.ndarray) -> Kernels:
        """The factors themselves."""
        return first, second

    def options(self, config: Config, rank: int) -> tuple[Config, Config]:
        """The first layer has `rank` units."""
        return {"units": rank}, {}


class ChannelForm(Form):
    """`rank` filters of the full size and then a mix of their channels, for any convolution.

    Reference: Denton et al., "Exploiting linear structure within convolutional networks for
    efficient evaluation", NeurIPS 2014; Zhang et al., "Accelerating very deep convolutional
    networks for classification and detection", IEEE TPAMI 2016 (without its refit on data).
    """

    name = "channel"

    def unfold(self, kernel: np.ndarray) -> np.ndarray:
        """One row for each place in a patch, one column for each filter."""
        return kernel.reshape(-1, kernel.shape[-1])

    def kernels(self, shape: Shape, first: np.ndarray, second: np.ndarray) -> Kernels:
        """A kernel of the original size and one of size 1."""
        size = (1,) * (len(shape) - 2)
        return first.reshape(*shape[:-1], -1), second.reshape(*size, *second.shape)

    def options(self, config: Config, rank: int) -> tuple[Config, Config]:
        """The first layer has `rank` filters; the second looks at one position alone."""
        one_position = {"kernel_size": 1, "strides": 1, "dilation_rate": 1, "padding": "valid"}
        return {"filters": rank}, one_position


class SpatialForm(Form):
    """`rank` filters of one column and then filters of one row, for `Conv2D`.

    Reference: Jaderberg, Vedaldi and Zisserman, "Speeding up convolutional neural networks with
    low rank expansions", BMVC 2014; in closed form by Tai et al., "Convolutional neural networks
    with low-rank regularization", ICLR 2016.
    """

    name = "spatial"

    def unfold(self, kernel: np.ndarray) -> np.ndarray:
        """One row for each place in a column of a patch, one column for each in a row's filters."""
        height, width, channels, filters = kernel.shape
        return kernel.transpose(0, 2, 1, 3).reshape(height * channels, width * filters)

    def kernels(self, shape: Shape, first: np.ndarray, second: np.ndarray) -> Kernels:
        """A kernel of one column and one of one row."""
        height, width, channels, filters = shape
        vertical = first.reshape(height, 1, channels, -1)
        return vertical, second.reshape(1, -1, width, filters).transpose(0, 2, 1, 3)

    def options(self, config: Config, rank: int) -> tuple[Config, Config]:
        """Each layer moves, strides and dilates along its own axis."""
        sizes = ("kernel_size", "strides", "dilation_rate")
        vertical = {option: (config[option][0], 1) for option in sizes}
        return vertical | {"filters": rank}, {option: (1, config[option][1]) for option in sizes}

    def output_error(self, shape: Shape, decomposition: Decomposition, rank: int) -> float:
        """As the output at one position sees it, which has the columns of a patch added up."""
        height, width, channels, filters = shape
        dropped = decomposition.residual(rank).reshape(height, channels, width, filters)
        patches = dropped.transpose(0, 2, 1, 3).reshape(-1, filters)
        return float(np.linalg.norm(patches, 2))


class EmbeddingForm(DenseForm):
    """A table of `rank` numbers for each word, and a Dense layer that makes more of them.

    The table, (words, numbers), is taken apart as the kernel of a Dense layer is.

    Reference: Lan et al., "ALBERT: A lite BERT for self-supervised learning of language
    representations", ICLR 2020, there from the beginning of the training.
    """

    name = "embedding"
    weight = "embeddings"
    second_class = keras.layers.Dense

    def options(self, config: Config, rank: int) -> tuple[Config, Config]:
        """The table is narrower; masks go through the Dense layer."""
        kept = {key: config[key] for key in ("name", "trainable", "dtype")}
        return {"output_dim": rank}, {**kept, "units": config["output_dim"], "use_bias": False}

    def configs(self, config: Config, rank: int) -> tuple[Config, Config]:
        """The second layer is of another class, with its own config."""
        first, second = self.options(config, rank)
        return {**config, **first}, second

    def output_error(self, shape: Shape, decomposition: Decomposition, rank: int) -> float:
        """The largest change of the numbers of a word."""
        return float(np.linalg.norm(decomposition.residual(rank), axis=1).max(initial=0.0))


# By the names in the column `forms` of the table of layers.
_LOW_RANK_FORMS: Mapping[str, Form] = {
    form.name: form for form in (DenseForm(), ChannelForm(), SpatialForm(), EmbeddingForm())
}


def forms_of(layer: Any, form: str) -> tuple[Form, ...]:
    """The forms of a layer that are called `form`; all for "auto", or if it has only one."""
    forms = _every_form(layer)
    if form == "auto" or len(forms) == 1:
        return forms
    return tuple(candidate for candidate in forms if candidate.name == form)


def _every_form(layer: Any) -> tuple[Form, ...]:
    row = row_of(type(layer))
    return () if row is None else tuple(_LOW_RANK_FORMS[name] for name in row.forms)


def obstacle(layer: Any) -> str | None:
    """Why the layer of Keras 3 has no low-rank form here; None if it has one."""
    forms = _every_form(layer)
    if not forms:
        return f"there is no low-rank form of {type(layer).__name__} here"
    if getattr(layer, "groups", 1) > 1:
        return f"there is no low-rank form of a convolution in {layer.groups} groups here"
    [weight] = {form.weight for form in forms}
    if getattr(layer, f"{weight}_constraint") is not None:
        return "its kernel has a constraint, which a product of two would not keep"
    if layer.lora_enabled or layer.quantization_mode is not None:
        return "its kernel is quantized or has a LoRA"
    return None
