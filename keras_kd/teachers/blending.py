"""Outputs of several models combined into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_kd._checks import problem, shapes_fit
from keras_kd._distributions import UNKNOWN
from keras_kd._logits import (
    OTHER_AXIS,
    Logits,
    class_shares,
    per_member,
    recognise_logits,
    remember_logits,
)


class Voice(NamedTuple):
    """One output of one member.

    Attributes:
        member: the member's name, for messages.
        output: tensor of shape `(batch, ..., classes)`.
        share: what it counts; above 0.
        classes: which classes of the student its columns are; `None` for all of them.
    """

    member: str
    output: Any
    share: float
    classes: tuple[int, ...] | None


class Opinion(NamedTuple):
    """The logits of one model on all classes of the student, where `known` says it has any."""

    logits: Any
    share: float
    known: np.ndarray | None


def without_gaps(voices: Sequence[Voice]) -> tuple[list[Voice], tuple[int, ...] | None]:
    """The same members with the classes that any of them has numbered from 0.

    Returns:
        The members, and which classes these are; `None` where a member has all of them.
    """
    if any(voice.classes is None for voice in voices):
        return list(voices), None
    known = tuple(sorted({index for voice in voices for index in voice.classes or ()}))
    number = {index: position for position, index in enumerate(known)}
    return [
        voice._replace(classes=tuple(number[index] for index in voice.classes or ()))
        for voice in voices
    ], known


def blended_shape(voices: Sequence[Voice]) -> tuple[int | None, ...]:
    """The shape that the mean of these outputs has.

    Raises:
        ValueError: if the outputs do not fit each other.
    """
    shapes = [_shape_for_student(voice, voices) for voice in voices]
    first, *others = shapes
    if not all(shapes_fit(first, other) for other in others):
        raise problem(
            f"outputs of shapes {shapes} from {[voice.member for voice in voices]} to average",
            "outputs of one shape from all members",
            "give members of other classes with classes=[...], and members that teach "
            "other outputs with outputs=[...]",
        )
    return first


def mean_of_logits(voices: Sequence[Voice]) -> Any:
    """The weighted mean of logits, for each class over the members that have it."""
    blended_shape(voices)
    opinions, kind = _opinions(voices, split=False)
    members, shares, known = _stacked(opinions)
    weights = per_member(class_shares(shares, known), members)
    mean = ops.sum(members * ops.cast(weights, members.dtype), axis=0)
    remember_logits(mean, Logits(mean, **kind))
    return mean


def mean_of_probabilities(voices: Sequence[Voice]) -> Any:
    """The logits of the weighted mean of probabilities, at any temperature of a loss.

    A member that has a part of the classes gives the others no probability where the classes
    exclude each other (softmax). Where they do not (sigmoid), it has no share in the mean of a
    class that it does not have.
    """
    shape = blended_shape(voices)
    opinions, kind = _opinions(voices, split=True)
    members, shares, known = _stacked(opinions)
    seen = Logits(members, members=members, shares=shares, known=known, **kind)
    # As the losses read an output of unknown kind.
    logits = seen.at(1.0, kind["activation"] or ("sigmoid" if shape[-1] == 1 else "softmax"))
    remember_logits(logits, dataclasses.replace(seen, logits=logits))
    return logits


def _opinions(voices: Sequence[Voice], split: bool) -> tuple[list[Opinion], dict[str, Any]]:
    """The logits behind each voice, those of the members of a mean where asked, on all classes.

    Also what all of them are, as arguments of `Logits`.
    """
    opinions = []
    all_seen = [recognise_logits(voice.output) for voice in voices]
    for voice, seen in zip(voices, all_seen, strict=True):
        if seen.members is None or not split:
            opinions.append(_on_all_classes(Opinion(seen.logits, voice.share, None), voice, voices))
            continue
        for number, share in enumerate(seen.shares):
            known = None if seen.known is None else seen.known[number]
            opinion = Opinion(seen.members[number], voice.share * share, known)
            opinions.append(_on_all_classes(opinion, voice, voices))
    return opinions, _common_kind(voices, all_seen)


def _common_kind(voices: Sequence[Voice], all_seen: Sequence[Logits]) -> dict[str, Any]:
    activations = [seen.activation for seen in all_seen]
    kinds = set(activations) - {None}
    sizes = {seen.classes for seen in all_seen if seen.activation == "softmax"}
    in_rows = sizes - {None} and any(voice.classes is not None for voice in voices)
    if len(kinds) > 1 or OTHER_AXIS in kinds or len(sizes) > 1 or in_rows:
        raise problem(
            f"members {[voice.member for voice in voices]} that end in {activations}",
            "one kind of output from all members, with the classes on the last axis",
            "end all of them in a softmax, in a sigmoid, or in logits",
        )
    origins = {seen.origin for seen in all_seen if seen.activation is None}
    return {
        "activation": kinds.pop() if kinds else None,
        "classes": sizes.pop() if sizes else None,
        "origin": origins.pop() if len(origins) == 1 else UNKNOWN,
    }


def _stacked(opinions: Sequence[Opinion]) -> tuple[Any, np.ndarray, np.ndarray | None]:
    dtype = keras.backend.result_type(*(opinion.logits.dtype for opinion in opinions))
    members = ops.stack([ops.cast(opinion.logits, dtype) for opinion in opinions])
    shares = np.array([opinion.share for opinion in opinions])
    known = None
    if any(opinion.known is not None for opinion in opinions):
        everything = np.ones(members.shape[-1], dtype=bool)
        known = np.stack(
            [everything if opinion.known is None else opinion.known for opinion in opinions]
        )
    return members, shares / shares.sum(), known


def _on_all_classes(opinion: Opinion, voice: Voice, voices: Sequence[Voice]) -> Opinion:
    if voice.classes is None:
        return opinion
    width = len(voice.classes)
    columns = np.full(_number_of_classes(voices), width)
    columns[list(voice.classes)] = np.arange(width)
    nothing = ops.zeros_like(opinion.logits[..., :1])
    own = np.ones(width, dtype=bool) if opinion.known is None else opinion.known
    return Opinion(
        ops.take(ops.concatenate([opinion.logits, nothing], axis=-1), columns, axis=-1),
        opinion.share,
        np.append(own, False)[columns],
    )


def _number_of_classes(voices: Sequence[Voice]) -> int:
    """How many classes the student has, as far as the members show it."""
    largest = max(max(voice.classes) + 1 for voice in voices if voice.classes is not None)
    return max([largest, *(voice.output.shape[-1] for voice in voices if voice.classes is None)])


def _shape_for_student(voice: Voice, voices: Sequence[Voice]) -> tuple[int | None, ...]:
    shape = tuple(voice.output.shape)
    if voice.classes is None:
        return shape
    return (*shape[:-1], _number_of_classes(voices))
