"""Log-mel features: from samples of sound to a map of time and frequency."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd._checks import check_integer, check_number, problem

# What a frame may have: its Fourier transform is a matrix of as many rows.
MOST_WINDOW_SAMPLES = 4096


@keras.saving.register_keras_serializable(package="keras_kd")
class LogMel(keras.layers.Layer):
    """The logarithm of the power in mel bands, for models of sound.

    A clip is cut into frames of `window` seconds, one every `hop` seconds. For the samples s of a
    frame, the Hann window h (periodic), an FFT length F, the power of two at or above the window,
    and the mel bands m:

        X[k]    = 2 / sum(h) * sum_n h[n] s[n] exp(-2 pi i k n / F)
        E[m]    = sum_k W[k, m] |X[k]|^2         with  sum_k W[k, m] = 1
        out[m]  = ln(E[m] + offset)

    A sine of amplitude 1 at the frequency of a bin k has |X[k]|^2 = 1. W are triangles on the mel
    scale 2595 log10(1 + f / 700), the most widely used one, each divided by its sum. So a frame
    depends on its own samples alone: not on other frames, clips or the batch, as the maximum over
    the batch in `keras.layers.MelSpectrogram` does.

    The layer has no weights. It is a convolution with a fixed kernel, a matrix product and a
    logarithm, so that it converts to float32 and float16 files with built-in operators only, in
    LiteRT as in TensorFlow Lite Micro (`tf.signal.rfft` does not). On a microcontroller, put the
    layer in front of the int8 model instead of into it: `tflite.microcontroller.write_project`
    writes the same features in C (`front_end=`). It computes in float32 under every global policy
    is, because squares of quiet samples are below the least number of float16.

    Args:
        sample_rate: samples in a second of the sound, in Hz.
        window: length of a frame, in seconds.
        hop: from the beginning of a frame to that of the next one, in seconds.
        mels: how many bands there are.
        low: lower edge of the first band, in Hz.
        high: upper edge of the last band, in Hz. None: half of the sample rate.
        offset: power that is added to each band, relative to a sine of amplitude 1. It makes
            silence finite, and it bounds how far rounding errors of float32 can go.

    Input:
        float32 of shape (batch, samples), at most 1 in magnitude: 16-bit samples / 32768.

    Output:
        float32 of shape (batch, frames, mels), where
        frames = 1 + (samples - window_samples) // hop_samples.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if one is out of its range, if a frame has more than 4096 samples, or if a band
            is too narrow to hold a frequency of the FFT.

    Example:
        ```python
        features = keras_kd.sound.LogMel(16000)(clips)  # (64, 16000) -> (64, 49, 40)
        ```

    Reference:
        Davis, Mermelstein: Comparison of Parametric Representations for Monosyllabic Word
        Recognition in Continuously Spoken Sentences, IEEE TASSP 1980. The scale is that of
        O'Shaughnessy: Speech Communication, 1987. `tf.signal.linear_to_mel_weight_matrix` has the
        same triangles, not divided by their sums.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        *,
        window: float = 0.03,
        hop: float = 0.02,
        mels: int = 40,
        low: float = 60.0,
        high: float | None = None,
        offset: float = 2**-20,
        **options: Any,
    ) -> None:
        options.setdefault("dtype", "float32")
        super().__init__(**options)
        self.sample_rate = check_integer(
            "sample_rate", sample_rate, at_least=1, fix="pass 16000, for example"
        )
        self.window = check_number("window", window, above=0, fix="pass 0.03 for 30 ms")
        self.hop = check_number("hop", hop, above=0, fix="pass 0.02 for 20 ms")
        self.mels = check_integer("mels", mels, at_least=1, fix="pass 40, for example")
        nyquist = self.sample_rate / 2
        fix = f"pass 60 for speech; the sample rate has frequencies up to {nyquist:g} Hz"
        self.low = check_number("low", low, at_least=0, at_most=nyquist, fix=fix)
        self.high = nyquist
        if high is not None:
            self.high = check_number("high", high, above=self.low, at_most=nyquist, fix=fix)
        self.offset = check_number("offset", offset, at_least=1e-12, at_most=1, fix="pass 2**-20")
        self.window_samples = round(self.window * self.sample_rate)
        self.hop_samples = round(self.hop * self.sample_rate)
        self._check_samples()
        self.fft_length = 1 << (self.window_samples - 1).bit_length()
        self.window_values = _hann(self.window_samples)
        self.mel_weights = self._mel_weights()

    def _check_samples(self) -> None:
        if not 4 <= self.window_samples <= MOST_WINDOW_SAMPLES or self.hop_samples < 1:
            raise problem(
                f"window={self.window:g} s and hop={self.hop:g} s, which are {self.window_samples} "
                f"and {self.hop_samples} samples at {self.sample_rate} Hz",
                f"frames of 4 to {MOST_WINDOW_SAMPLES} samples, and a hop of at least one",
                "pass window=0.03 and hop=0.02, in seconds",
            )

    def _mel_weights(self) -> np.ndarray:
        """W as float64, shape (fft_length // 2 + 1, mels)."""
        if self.mels > self.fft_length // 2:
            empty = np.arange(min(self.mels, 6))
        else:
            frequencies = np.arange(self.fft_length // 2 + 1) * self.sample_rate / self.fft_length
            places = _mel(frequencies)[:, None]
            edges = np.linspace(_mel(self.low), _mel(self.high), self.mels + 2)
            rising = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
            falling = (edges[2:] - places) / (edges[2:] - edges[1:-1])
            weights = np.maximum(0.0, np.minimum(rising, falling))
            empty = np.flatnonzero(weights.sum(axis=0) <= 0)
        if len(empty):
            raise problem(
                f"mels={self.mels} from {self.low:g} to {self.high:g} Hz, of which the bands "
                f"{', '.join(map(str, empty[:5]))}{', ...' if len(empty) > 5 else ''} hold none of "
                f"the frequencies of an FFT of {self.fft_length} samples",
                f"bands that are wider than {self.sample_rate / self.fft_length:g} Hz",
                "pass fewer mels, a longer window, or a higher low",
            )
        return weights / weights.sum(axis=0)

    @property
    def used_bins(self) -> slice:
        """The bins of the FFT that some band reads."""
        read = np.flatnonzero(self.mel_weights.any(axis=1))
        return slice(int(read[0]), int(read[-1]) + 1)

    def frames(self, samples: int) -> int:
        """How many frames a clip of so many samples has."""
        return max(0, 1 + (samples - self.window_samples) // self.hop_samples)

    def build(self, input_shape: Any) -> None:
        """Compute the constants.

        Raises:
            ValueError: if the input is not of the shape (batch, samples), or shorter than a frame.
        """
        shape = tuple(input_shape)
        if len(shape) != 2 or (shape[1] is not None and shape[1] < self.window_samples):
            raise problem(
                f"an input of shape {shape}",
                f"(batch, samples) with at least {self.window_samples} samples, one frame",
                "pass clips as rows of one channel, padded with zeros if they are short",
            )
        bins = np.arange(self.fft_length // 2 + 1)[self.used_bins]
        # Reduced in integers, so that the angles are exact however long the window is.
        turns = np.outer(np.arange(self.window_samples), bins) % self.fft_length / self.fft_length
        scaled = (2 / self.window_values.sum() * self.window_values)[:, None]
        parts = [scaled * np.cos(2 * np.pi * turns), scaled * np.sin(2 * np.pi * turns)]
        self._kernel = np.concatenate(parts, axis=1)[:, None].astype("float32")
        self._bands = self.mel_weights[self.used_bins].astype("float32")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Features of shape (batch, frames, mels) of clips of shape (batch, samples)."""
        waves = ops.conv(
            ops.expand_dims(inputs, -1),
            ops.convert_to_tensor(self._kernel),
            strides=self.hop_samples,
            padding="valid",
            data_format="channels_last",
        )
        parts: Any = ops.split(waves, 2, axis=-1)
        powers = ops.square(parts[0]) + ops.square(parts[1])
        return ops.log(ops.matmul(powers, ops.convert_to_tensor(self._bands)) + self.offset)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(batch, frames, mels)."""
        batch, samples = input_shape
        return batch, None if samples is None else self.frames(samples), self.mels

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        names = ("sample_rate", "window", "hop", "mels", "low", "high", "offset")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _hann(samples: int) -> np.ndarray:
    """The periodic Hann window in float64, shape (samples,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(samples) / samples)


def _mel(frequency: Any) -> Any:
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)
