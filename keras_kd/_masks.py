"""The masks of a forward pass, also where Keras drops them.

Keras' MultiHeadAttention takes the mask off the tensors that it is given, and operations such as
`x + y` give none to their results. A mask of a position holds after them all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import keras

from keras_kd import _backends, _graphs, _keras
from keras_kd.losses.reduction import has_positions_of


@dataclass(frozen=True)
class Lost:
    """Stands for a mask that did not pass a layer, where what was behind it still has positions.

    Attributes:
        shape: that of the mask.
        place: the name of the layer or operation.
    """

    shape: tuple[int | None, ...]
    place: str


def mask_or_lost(tensor: Any) -> Any:
    """The mask of a tensor that a `MaskTrail` has seen: a tensor, a `Lost`, or `None`."""
    own = _backends.mask_of(tensor)
    return own if own is not None else _backends.noted(tensor, "_keras_kd_mask")


def pairs_that_count(attention_mask: Any, queries: Any, keys: Any) -> Any:
    """Which pairs of a query and a key are of two tokens, the one attending to the other.

    Args:
        attention_mask: `None` or the layer's own, in a shape that is broadcast to `(batch, heads,
            queries, keys)`.
        queries: the mask of the queries, of shape `(batch, queries)`, a `Lost`, or `None`.
        keys: the same of the keys.

    Returns:
        A mask of four axes; a `Lost` if one of both is; or `None` if every pair counts.
    """
    for mask in (queries, keys):
        if isinstance(mask, Lost):
            return mask
    masks = [
        None if queries is None else keras.ops.cast(queries, "bool")[:, None, :, None],
        None if keys is None else keras.ops.cast(keys, "bool")[:, None, None, :],
    ]
    found = attention_mask
    for mask in masks:
        if mask is not None:
            found = mask if found is None else keras.ops.logical_and(found, mask)
    return found


class MaskTrail:
    """Listens to the layers of a model and follows the masks from layer to layer."""

    def __init__(self) -> None:
        # Tensors are kept beside their masks, so that no other one gets their id.
        self._known: dict[int, tuple[Any, Any]] = {}
        self._shapes: list[tuple[int | None, ...]] = []

    def listening(self, model: Any) -> AbstractContextManager[None]:
        """Within this context every call in the model is followed. No output changes by it."""
        operations = _graphs.operations_in(model)
        policies: dict[int, Any] = {
            id(policy): policy
            for layer in operations
            for policy in [getattr(layer, "dtype_policy", None)]
            if hasattr(policy, "convert_input")
        }
        replacements: list[tuple[Any, str, Any]] = [
            *((one, "call", partial(self._followed, one)) for one in operations),
            *((policy, "convert_input", self._converting) for policy in policies.values()),
        ]
        return _keras.replaced_attributes(replacements)

    def begin(self, inputs: Any) -> None:
        """Note the model's inputs, which come from nowhere."""
        for tensor in _tensors(inputs):
            self._set(tensor, _backends.mask_of(tensor))

    def mask(self, tensor: Any) -> Any:
        """The mask of a tensor: a tensor, a `Lost`, or `None`."""
        own = _backends.mask_of(tensor)
        if own is not None:
            return own
        if id(tensor) in self._known:
            return self._known[id(tensor)][1]
        # From an operation inside a layer, which is not observed.
        return self._lost(tensor, self._shapes, "an operation between its layers")

    def mark(self, tensors: Any) -> None:
        """Leave the masks on tensors, for `mask_or_lost`."""
        for tensor in _tensors(tensors):
            mask = self.mask(tensor)
            if mask is not None and _backends.mask_of(tensor) is None:
                _backends.note(tensor, "_keras_kd_mask", mask)

    def note(self, tensor: Any, mask: Any) -> None:
        """Note the mask of a tensor that was computed beside the model."""
        self._known[id(tensor)] = (tensor, mask)

    def _followed(self, layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        # AutoGraph, which tf_keras applies to layers, need not rewrite what is no part of them.
        before, after = map(_backends.without_autograph, (self._before, self._after))

        @wraps(call)
        def followed_call(*args: Any, **kwargs: Any) -> Any:
            seen = before(args, kwargs)
            outputs = call(*args, **kwargs)
            after(layer, args, kwargs, outputs, seen)
            return outputs

        return followed_call

    def _converting(self, convert: Callable[..., Any]) -> Callable[..., Any]:
        """Follow what Keras makes of a layer's inputs where it changes their precision."""

        @wraps(convert)
        def converted(tensor: Any, *args: Any) -> Any:
            result = convert(tensor, *args)
            if result is not tensor and id(tensor) in self._known:
                self._set(result, self.mask(tensor))
            return result

        return converted

    def _before(self, args: Any, kwargs: Any) -> int:
        # A layer may take the masks off.
        for tensor in _tensors((args, kwargs)):
            own = _backends.mask_of(tensor)
            if own is not None:
                self._set(tensor, own)
        return len(self._shapes)

    def _after(self, layer: Any, args: Any, kwargs: Any, outputs: Any, seen: int) -> None:
        new = [tensor for tensor in _tensors(outputs) if id(tensor) not in self._known]
        if not new:
            return
        masks = [mask for mask in map(self.mask, _tensors((args, kwargs))) if mask is not None]
        # A layer can make another mask inside, and lose it there.
        shapes = [tuple(mask.shape) for mask in masks] + self._shapes[seen:]
        if masks and _graphs.keeps_positions(layer):
            found = _any_of([mask for mask in masks if not isinstance(mask, Lost)])
            passed = [found] * len(new)
        elif getattr(layer, "supports_masking", False):
            passed = self._computed(layer, args, kwargs, len(new))
            if masks:
                # Where it makes no mask of those that it is given, there is none.
                shapes = [mask.shape for mask in masks if isinstance(mask, Lost)]
        else:
            passed = [None] * len(new)
        for tensor, mask in zip(new, passed, strict=True):
            if mask is None:
                place = next((one.place for one in masks if isinstance(one, Lost)), layer.name)
                mask = self._lost(tensor, shapes, place)
            self._set(tensor, mask)

    def _computed(self, layer: Any, args: Any, kwargs: Any, count: int) -> list[Any]:
        """The mask that a layer computes from those of its first argument, as in Keras."""
        first = args[0] if args else next(iter(kwargs.values()), None)
        given = kwargs.get("mask")
        if all(mask is None for mask in keras.tree.flatten(given)):
            given = keras.tree.map_structure(self._real_mask, first)
        if all(mask is None for mask in keras.tree.flatten(given)):
            return [None] * count
        masks = keras.tree.flatten(layer.compute_mask(first, given))
        return (masks + [None] * count)[:count]

    def _real_mask(self, tensor: Any) -> Any:
        mask = self.mask(tensor)
        return None if isinstance(mask, Lost) else mask

    def _lost(self, tensor: Any, shapes: Sequence[Any], place: str) -> Lost | None:
        """A `Lost` where a mask of one of these shapes would fit the tensor."""
        if keras.backend.standardize_dtype(tensor.dtype) == "bool":
            # It is a mask itself.
            return None
        for shape in shapes:
            if len(tensor.shape) > len(shape) and has_positions_of(
                tensor, keras.KerasTensor(shape)
            ):
                return Lost(tuple(shape), place)
        return None

    def _set(self, tensor: Any, mask: Any) -> None:
        self.note(tensor, mask)
        if mask is not None and tuple(mask.shape) not in self._shapes:
            self._shapes.append(tuple(mask.shape))


def _tensors(structure: Any) -> list[Any]:
    return [one for one in keras.tree.flatten(structure) if keras.ops.is_tensor(one)]


def _any_of(masks: Sequence[Any]) -> Any:
    """A position counts that does in any of the masks, as in Keras' merging layers."""
    if not masks:
        return None
    found = masks[0]
    for mask in masks[1:]:
        if mask is not found:
            found = keras.ops.logical_or(found, mask)
    return found
