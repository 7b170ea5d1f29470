"""Attention layers of both versions of Keras, and the scores that they compute."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from keras import ops

from keras_kd import _backends
from keras_kd._checks import problem
from keras_kd._graphs import sources_of
from keras_kd._keras import at_least_float32, unwrapped


def attention_in(layer: Any) -> Any:
    """The attention layer that `layer` is or wraps, or `None`.

    It computes its scores in a method `_compute_attention(query, key, ...)`, as the layers of both
    versions of Keras and those of KerasHub do.
    """
    layer = unwrapped(layer)
    compute = getattr(layer, "_compute_attention", None)
    if not callable(compute):
        return None
    names = list(inspect.signature(compute).parameters)
    return layer if names[:2] == ["query", "key"] else None


class Attention(NamedTuple):
    """What an attention layer computes before it looks at the values.

    Attributes:
        scores: the products of queries and keys, divided by the root of the size of a head, of
            shape `(batch, heads, queries, keys)`.
        mask: `None` or the layer's own mask, true where a query attends to a key, in a shape that
            is broadcast to that of the scores.
    """

    scores: Any
    mask: Any

    @property
    def probabilities(self) -> Any:
        """The scores' softmax over the keys."""
        scores = self.scores
        if self.mask is not None:
            # Finite, for a query that attends to nothing.
            scores = ops.where(self.mask, scores, -1e9)
        return ops.softmax(scores, axis=-1)


def attention_of_call(layer: Any, args: Any, kwargs: Any) -> Attention:
    """The attention from the arguments of a call of a layer's `_compute_attention`.

    The layer itself may compute no scores: in 3.15 Keras calls `ops.dot_product_attention`, unless
    there is dropout or the scores are requested.

    Raises:
        ValueError: if it attends along several axes.
    """
    given = inspect.signature(layer._compute_attention).bind(*args, **kwargs).arguments
    query, key = (at_least_float32(given[name]) for name in ("query", "key"))
    if len(query.shape) != 4 or len(key.shape) != 4:
        raise problem(
            f"the attention layer {layer.name!r} with queries of shape {tuple(query.shape)}",
            "queries of shape (batch, positions, heads, size)",
            "name a layer that attends along one axis of positions",
        )
    if key.shape[2] != query.shape[2]:
        key = ops.repeat(key, query.shape[2] // key.shape[2], axis=2)
    scores = ops.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
    mask = given.get("attention_mask")
    if mask is not None:
        mask = ops.cast(mask, "bool")
        mask = ops.expand_dims(mask, axis=1) if len(mask.shape) == 3 else mask
    if given.get("use_causal_mask"):
        row, column = (ops.arange(ops.shape(scores)[axis]) for axis in (2, 3))
        causal = (row[:, None] >= column[None, :])[None, None]
        mask = causal if mask is None else ops.logical_and(mask, causal)
    return Attention(scores, mask)


def mark_attention_scores(tensor: Any) -> None:
    """Note that a tensor is what an attention layer returned as its scores."""
    _backends.note(tensor, "_keras_kd_is_attention", True)


def is_attention_scores(tensor: Any) -> bool:
    """Whether a tensor is marked so, or a symbolic one comes from an attention layer as such."""
    while not _backends.noted(tensor, "_keras_kd_is_attention"):
        layer, _, index = getattr(tensor, "_keras_history", (None, None, None))
        if layer is None:
            return False
        if attention_in(layer) is not None:
            return index == 1
        sources = sources_of(tensor)
        # What only names, drops out or scales them gives them on.
        if len(sources) != 1 or tuple(sources[0].shape) != tuple(tensor.shape):
            return False
        tensor = sources[0]
    return True
