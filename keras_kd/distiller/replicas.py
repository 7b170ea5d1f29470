"""Training on several replicas: the loss on labels, whole batches, and what Keras does otherwise.

All that is private to the two versions of Keras in a step of several replicas is here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_kd import _backends, _logits, _replicas
from keras_kd._checks import problem
from keras_kd.losses import DistillationLoss
from keras_kd.losses.reduction import align, sum_and_count


def label_loss(container: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """The losses that a model was compiled with, a replica's share of the mean over all replicas.

    Args:
        container: what holds them: `_compile_loss` of a Keras 3 model, `compiled_loss` of a
            tf_keras model.
        y: labels.
        y_pred: the model's outputs.
        sample_weight: weights of the examples.

    Raises:
        ValueError: if a loss has no meaning on several replicas, or Keras holds its losses in
            another way.
    """
    if _replicas.number() > 1:
        _share(container, y, y_pred)
    return container(y, y_pred, sample_weight)


def _share(container: Any, y: Any, y_pred: Any) -> None:
    """Let each loss in a container count the examples of all replicas."""
    try:
        if hasattr(container, "_flat_losses"):
            if not container.built:
                container.build(y, y_pred)
            container._flat_losses = [
                one._replace(loss=_shared(one.loss)) for one in container._flat_losses
            ]
        else:
            if not container.built:
                container.build(y_pred)
            container._losses = [_shared(one) for one in container._losses]
    except (AttributeError, TypeError) as error:
        raise problem(
            f"Keras {keras.__version__}, in which the compiled losses were not found: {error}",
            "the losses of compile, to count the examples of all replicas",
            "install Keras 3.15, which was tried, or train on one device",
        ) from error


def _shared(loss: Any) -> Any:
    return loss if loss is None or isinstance(loss, SharedLoss) else SharedLoss(loss)


class SharedLoss:
    """A loss of either Keras that is a mean over the examples of all replicas.

    Each output's loss counts its own values: those that a mask leaves, or their weights, as its
    `reduction` says.

    Args:
        loss: the loss.
    """

    # So that tf_keras does not divide by the number of replicas.
    reduction = "sum"

    def __init__(self, loss: Any) -> None:
        self._loss = loss
        self.name = loss.name

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """A replica's share of the loss, a scalar.

        Raises:
            ValueError: if the loss returns one number for a batch, or is not to be reduced.
        """
        if _replicas.number() == 1:
            return self._loss(y_true, y_pred, sample_weight)
        if isinstance(self._loss, keras.losses.Loss):
            y_true, y_pred = (
                keras.tree.map_structure(lambda one: _converted(one, self._loss.dtype), part)
                for part in (y_true, y_pred)
            )
        values = self._loss.call(y_true, y_pred)
        reduction = self._loss.reduction
        if len(values.shape) == 0 or reduction in (None, "none"):
            is_scalar = len(values.shape) == 0
            raise problem(
                f"the loss {self.name!r} on labels, which "
                f"{'returns one number for a batch' if is_scalar else 'is not reduced'}, on "
                f"{_replicas.number()} replicas",
                "one value per example, and a reduction, by which the mean over all replicas is "
                "known",
                "return a tensor of shape (batch,), and leave the mean to "
                "reduction='sum_over_batch_size'",
            )
        masks = [one for one in map(_backends.mask_of, (y_pred, values)) if one is not None]
        mask = None if not masks else ops.cast(masks[0], "bool")
        for other in masks[1:]:
            mask = ops.logical_and(mask, ops.cast(other, "bool"))
        return _reduced(values, sample_weight, mask, reduction)


def _converted(tensor: Any, dtype: str) -> Any:
    """In the precision of a loss; the mask stays on what has it already, as in Keras."""
    mask = _backends.mask_of(tensor)
    converted = ops.convert_to_tensor(tensor, dtype=dtype)
    if mask is not None and converted is not tensor:
        converted._keras_mask = mask
    return converted


def _reduced(values: Any, sample_weight: Any, mask: Any, reduction: str) -> Any:
    summed, count = sum_and_count(values, sample_weight, mask)
    if reduction == "sum":
        # As many parts of one whole as there are replicas.
        count = ops.ones_like(count) / _replicas.number()
    elif reduction == "mean_with_sample_weight" and sample_weight is not None:
        weight = ops.cast(align(sample_weight, values), values.dtype)
        if mask is not None:
            weight = weight * ops.cast(align(mask, values), values.dtype)
        count = ops.sum(weight)
    return _replicas.mean(summed, count)


def reads_whole_batch(loss: DistillationLoss) -> bool:
    """Whether a loss needs all examples of a batch, or has its own reduction."""
    return loss.reads_whole_batch or any(
        _is_of_user(type(loss), method) for method in ("compute_loss", "of_pair")
    )


def _is_of_user(kind: type, method: str) -> bool:
    owner = next(each for each in kind.__mro__ if method in vars(each))
    return owner.__module__.partition(".")[0] not in ("keras", "keras_kd")


def of_whole_batch(
    compute: Callable[..., Any], teacher: Any, student: Any, others: tuple[Any, ...], gather: bool
) -> Any:
    """A loss that compares examples with one another, a replica's share of it.

    Args:
        compute: the loss, as on one device: a function of all that follows.
        teacher: what it compares of the teacher: structures of tensors, the batch first.
        student: what it compares of the student.
        others: what else it reads, such as sample weights, or `None`.
        gather: whether the loss is that of the examples of all replicas, or the mean of the losses
            of each replica, weighed by their numbers of examples.
    """
    if gather:
        student = _gathered(student)
        teacher, *rest = _gathered([teacher, *others], constant=True)
        others = tuple(rest)
    with _replicas.whole():
        value = compute(teacher, student, *others)
    if gather:
        return _replicas.share(value)
    return _replicas.mean_of_examples(value, ops.shape(keras.tree.flatten(student)[0])[0])


def _gathered(structure: Any, *, constant: bool = False) -> Any:
    """The parts of all replicas of each tensor, and of the logits that are known behind it."""
    flat = keras.tree.flatten(structure)
    tensors = []
    for tensor in flat:
        if tensor is not None:
            tensors += _with_logits(tensor)
    received = iter(_replicas.gathered(tensors, constant=constant))
    return keras.tree.pack_sequence_as(
        structure,
        [None if tensor is None else _rejoined(tensor, received) for tensor in flat],
    )


def _with_logits(tensor: Any) -> list[Any]:
    """A tensor and those that are behind it, each with the batch first."""
    tensor = ops.convert_to_tensor(tensor)
    seen = _seen(tensor)
    if seen is None:
        return [tensor]
    behind = [] if seen.logits is tensor else [seen.logits]
    return [tensor, *behind, *([] if seen.members is None else [ops.swapaxes(seen.members, 0, 1)])]


def _rejoined(tensor: Any, received: Iterator[Any]) -> Any:
    """What `_with_logits` took apart, of all replicas."""
    tensor = ops.convert_to_tensor(tensor)
    seen, whole = _seen(tensor), next(received)
    if seen is None:
        return whole
    logits = whole if seen.logits is tensor else next(received)
    members = None if seen.members is None else ops.swapaxes(next(received), 0, 1)
    _logits.remember_logits(whole, dataclasses.replace(seen, logits=logits, members=members))
    return whole


def _seen(tensor: Any) -> _logits.Logits | None:
    is_float = "float" in keras.backend.standardize_dtype(tensor.dtype)
    return _logits.recognise_logits(tensor) if is_float else None
