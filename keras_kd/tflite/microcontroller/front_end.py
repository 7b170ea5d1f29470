"""The features of `keras_kd.sound.LogMel` in C++, for firmware with a microphone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_kd._checks import check_type, problem
from keras_kd.tflite.microcontroller.templates import fill, lines_of, literal

if TYPE_CHECKING:
    from keras_kd.sound import LogMel

# Half of the distance from 1 to the next float32.
_ROUNDING = 2.0**-24


def check_front_end(front_end: LogMel, shape: Sequence[int]) -> None:
    """Refuse a front end that does not give what a model takes.

    Args:
        front_end: the layer.
        shape: that of the model's input, (1, frames, mels) or (1, frames, mels, 1).

    Raises:
        TypeError: if it is not a `LogMel`.
        ValueError: if it gives features of another shape.
    """
    # Keras is imported for those who have such a layer already.
    from keras_kd.sound import LogMel

    check_type("front_end", front_end, LogMel, "keras_kd.sound.LogMel(16000)")
    frames, mels, *rest = (*shape[1:], 0, 0)[: max(2, len(shape) - 1)]
    if mels != front_end.mels or frames < 1 or any(size != 1 for size in rest):
        raise problem(
            f"front_end with {front_end.mels} mels for a model whose input has the shape "
            f"{tuple(shape)}",
            f"a model of features: (1, frames, {front_end.mels}), or with a last axis of 1",
            "pass the LogMel that the student was trained behind, and convert the student "
            "without it",
        )


def front_end_source(front_end: LogMel, name: str, frames: int) -> tuple[str, str]:
    """The texts of `<name>_front_end.h` and `<name>_front_end.cc`.

    Args:
        front_end: the layer whose features they compute.
        name: what functions and macros are named after.
        frames: how many frames the model takes.
    """
    half = front_end.fft_length // 2
    window = 2 / front_end.window_values.sum() / 32768 * front_end.window_values
    bands = [np.flatnonzero(column) for column in front_end.mel_weights.T]
    weights = [front_end.mel_weights[bins, band] for band, bins in enumerate(bands)]
    first, count = [int(bins[0]) for bins in bands], [len(bins) for bins in bands]
    tables = (window, _cosines(front_end.fft_length), np.concatenate(weights))
    header = fill(
        "front_end.h",
        name=name,
        upper=name.upper(),
        sample_rate=front_end.sample_rate,
        window=front_end.window_samples,
        hop=front_end.hop_samples,
        mels=front_end.mels,
        frames=frames,
        clip=front_end.window_samples + (frames - 1) * front_end.hop_samples,
        bound=f"{error_bound(front_end):.2g}",
        ram=4 * front_end.fft_length,
        flash=4 * sum(map(len, tables)) + 4 * front_end.mels,
    )
    source = fill(
        "front_end.cc",
        name=name,
        upper=name.upper(),
        fft=2 * half,
        window_values=_floats(tables[0]),
        cosines=_floats(tables[1]),
        weights=_floats(tables[2]),
        first=lines_of(map(str, first), "    "),
        count=lines_of(map(str, count), "    "),
        offset=literal(np.float32(front_end.offset)),
    )
    return header, source


def error_bound(front_end: LogMel) -> float:
    """How far a feature in C can be from its exact value, for any samples.

    A radix-2 FFT of length F has an error of at most log2(F) r / (1 - log2(F) r) of its 2-norm,
    r = u + 4 u (sqrt(2) + u) / (1 - 4 u), with u = 2^-24 (Higham: Accuracy and Stability of
    Numerical Algorithms, 2002, theorem 24.2); the window rounds twice more. With samples of at
    most 1 the norm of the spectrum is at most sqrt(F sum h^2) * 2 / sum h. An error of d in each
    |X| moves ln(E + offset) by at most d / sqrt(offset) to first order, since the weights of a
    band sum to 1.
    """
    u = _ROUNDING
    stage = u + 4 * u * (math.sqrt(2) + u) / (1 - 4 * u)
    stages = math.log2(front_end.fft_length)
    relative = stages * stage / (1 - stages * stage) + 2 * u
    window = front_end.window_values
    norm = 2 * math.sqrt(front_end.fft_length * (window**2).sum()) / window.sum()
    distance = relative * norm
    # (2 sqrt(E) d + d^2) / (E + offset) is largest at E = offset, about; then the sums and logf,
    # which may be off by a few units in the last place of numbers up to 28.
    most_bins = int((front_end.mel_weights > 0).sum(axis=0).max())
    sums = (most_bins + 4) * u
    logarithm = 4 * u * max(1.0, abs(math.log(front_end.offset)))
    first = distance / math.sqrt(front_end.offset)
    return first + first**2 + sums + logarithm


def _cosines(length: int) -> np.ndarray:
    """cos(2 pi k / length) for the first half of k."""
    return np.cos(2 * np.pi * np.arange(length // 2) / length)


def _floats(values: np.ndarray) -> str:
    return lines_of(map(literal, values.astype("float32")), "    ")
