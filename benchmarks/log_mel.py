"""Log-mel features in each form of a file: bytes, and how far they are from those of Keras.

    python benchmarks/log_mel.py [directory of WAV files {label}_{speaker}_{index}.wav]

Differences are those of the natural logarithm of powers, over all frames and bands of the clips.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from keras_kd import sound, tflite

CLIPS = Path(__file__).parents[1] / "examples" / "spoken_digits"
FORMS = ("float32", "float16", "dynamic_int8")


def differences(directory: Path, seconds: float = 1.0) -> dict[str, tuple[int, float, float]]:
    """Bytes, the largest and the mean difference by form."""
    clips = sound.load_clips(directory, seconds=seconds, names="{label}_{speaker}_{index}.wav")
    front_end = sound.LogMel(clips.sample_rate, mels=32)
    exact = np.asarray(front_end(clips.x))
    model = keras.Sequential([keras.Input(clips.x.shape[1:], name="clip"), front_end])
    found = {}
    for form in FORMS:
        file = tflite.convert(model, form)
        off = np.abs(file.predict(clips.x) - exact)
        found[form] = file.size, float(off.max()), float(off.mean())
    return found


def main(argv: list[str]) -> None:
    print("| form | bytes | largest difference | mean |\n|---|---:|---:|---:|")
    for form, (size, most, mean) in differences(Path(*argv) if argv else CLIPS).items():
        print(f"| {form} | {size:,} | {most:.2g} | {mean:.2g} |")


if __name__ == "__main__":
    main(sys.argv[1:])
