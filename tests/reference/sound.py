"""Log-mel features in NumPy, float64, from the formulas of `keras_kd.sound.LogMel`."""

import math
from functools import cache

import numpy as np


@cache
def bands_of(rate, length, mels, low, high):
    """The weight of each bin in each band, triangles on the mel scale that sum to 1."""

    def mel(frequency):
        return 2595 * math.log10(1 + frequency / 700)

    width = (mel(high) - mel(low)) / (mels + 1)
    bands = np.zeros((length // 2 + 1, mels))
    for k in range(length // 2 + 1):
        # In widths of a band, from the lower edge of the first one.
        place = (mel(k * rate / length) - mel(low)) / width
        for m in range(max(0, math.floor(place) - 1), min(mels, math.floor(place) + 1)):
            bands[k, m] = max(0.0, 1 - abs(place - (m + 1)))
    return bands / bands.sum(axis=0)


def log_mel(x, rate, *, window, hop, mels, low=60.0, high=None, offset=2**-20):
    """Features of clips of shape (clips, samples), frame by frame, by NumPy's FFT."""
    size, step = round(window * rate), round(hop * rate)
    length = 2 ** int(np.ceil(np.log2(size)))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    starts = range(0, x.shape[1] - size + 1, step)
    frames = np.stack([x[:, start : start + size] for start in starts], axis=1).astype("float64")
    powers = np.abs(2 / hann.sum() * np.fft.rfft(frames * hann, length)) ** 2

    bands = bands_of(rate, length, mels, low, high or rate / 2)
    return np.log(powers @ bands + offset)


def signals(samples, rate):
    """16-bit clips at which features are hardest: loud, silent, pure, clipped, constant, faint."""
    random = np.random.default_rng(0)
    time = np.arange(samples)
    clips = {
        "noise": random.integers(-32768, 32768, samples),
        "silence": np.zeros(samples),
        "clipped": np.where(random.random(samples) < 0.5, -32768, 32767),
        "sine": 32767 * np.sin(2 * np.pi * 1000 * time / rate),
        "constant": np.full(samples, -32768),
        "faint": random.normal(0, 2, samples).round(),
        "highest": np.where(time % 2, 32767, -32768),
        "square": np.where(time // 8 % 2, 32767, -32768),
        "impulse": np.where(time % 100 == 50, 32767, 0),
    }
    return np.stack(list(clips.values())).astype("int16")
