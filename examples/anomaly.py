"""Worn bearings, found by an autoencoder that was trained on sound ones only, in int8.

    python examples/anomaly.py

A microphone records the harmonics of a shaft whose speed and load vary, and noise. A worn bearing
adds clicks, 3.6 to each turn, at which the housing rings at about 2.8 kHz. The mean log-mel
spectrum of half a second goes through a bottleneck; a large error of the reconstruction is an
anomaly. A small student is taught by a large autoencoder, becomes an int8 file and is measured by
the area under the ROC curve (AUC): how often a worn bearing has a larger error than a sound one.
One run gave 0.994 for the teacher, 0.990 for the student alone, 0.991 distilled and 0.990 for the
int8 file (3,120 bytes of flash, 2,336 of arena), on 500 other recordings: int8 keeps the AUC, and
distillation shows no clear gain. Needs the extra `micro`.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from keras import layers

import keras_kd
from keras_kd import metrics, sound, tflite

RATE, SAMPLES = 8000, 4096
FRONT_END = sound.LogMel(RATE, window=0.064, hop=0.032, mels=32, low=20)
HARMONICS = np.random.default_rng(7).uniform(0.2, 1, 25) / np.arange(1, 26) ** 0.5  # of this motor


def recording(is_worn: bool, random: np.random.Generator) -> np.ndarray:
    """The motor for half a second, float64 of shape (SAMPLES,)."""
    time = np.arange(SAMPLES) / RATE
    speed, load = random.uniform(24, 30), random.uniform(0.5, 1.5)  # turns in a second
    heard = np.zeros(SAMPLES)
    for harmonic in range(25):
        phase = 2 * np.pi * ((harmonic + 1) * speed * time + random.random())
        heard += load * HARMONICS[harmonic] * random.uniform(0.8, 1.2) * np.cos(phase)
    air = np.convolve(random.normal(0, 0.1 * load, SAMPLES + 7), np.ones(8) / 8, "valid")
    heard += air + random.normal(0, 0.02, SAMPLES)
    if is_worn:
        ring = np.exp(-time / 0.001) * np.sin(2 * np.pi * random.uniform(2600, 3000) * time)
        clicks = np.zeros(SAMPLES)
        times = np.arange(random.random(), 3.6 * speed * time[-1]) / (3.6 * speed)
        places = RATE * times * (1 + random.normal(0, 0.002, len(times)))
        clicks[np.clip(places, 0, SAMPLES - 1).astype(int)] = load * random.uniform(0.03, 0.3)
        heard += np.convolve(clicks, ring[:40])[:SAMPLES]
    return 0.05 * heard


def features(worn: np.ndarray, seed: int) -> np.ndarray:
    """The mean spectrum of a recording for each entry, float32 of shape (recordings, mels)."""
    random = np.random.default_rng(seed)
    clips = np.stack([recording(bool(each), random) for each in worn])
    return np.mean(FRONT_END(np.clip(clips, -1, 1).astype("float32")), axis=1)


def autoencoder(bands: int, units: tuple[int, ...], name: str) -> keras.Model:
    steps = [keras.Input((bands,), name="features")]
    steps += [layers.Dense(count, activation="relu") for count in units]
    return keras.Sequential([*steps, layers.Dense(bands, name="reconstruction")], name=name)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--clips", type=int, default=1000, help="for training; for the test half")
    options = parser.parse_args(argv)
    is_worn = np.arange(options.clips // 2) % 2
    x, x_test = features(np.zeros(options.clips), 0), features(is_worn, 1)
    # In float, in front of the file, as the firmware has to do it: bands differ in their spread.
    mean, spread = x.mean(axis=0), x.std(axis=0)
    x, x_test = (x - mean) / spread, (x_test - mean) / spread

    def taught(model: keras.Model) -> keras.Model:
        rate = keras.optimizers.schedules.CosineDecay(2e-3, options.epochs * -(-len(x) // 32))
        model.compile(keras.optimizers.Adam(rate), "mse")
        model.fit(x, x, epochs=options.epochs, verbose=0)
        return model

    keras.utils.set_random_seed(0)
    teacher = taught(autoencoder(x.shape[1], (64, 64, 6, 64, 64), "teacher"))
    alone, student = (autoencoder(x.shape[1], (12, 4, 12), name) for name in ("alone", "student"))
    student.set_weights(alone.get_weights())
    taught(alone)
    taught(keras_kd.Distiller(teacher, student, student_loss_weight=0.3))
    model = tflite.convert(student, "int8", x, target="microcontroller")
    agreement = tflite.microcontroller.check_agreement(model, x_test[:100])

    outputs = {each.name: each.predict(x_test, verbose=0) for each in (teacher, alone, student)}
    outputs["int8 file"] = model.predict(x_test)
    task = {"task": "reconstruction", "x": x_test}
    results = {name: metrics.measure(out, is_worn, **task)["auc"] for name, out in outputs.items()}
    print(*(f"{name:10} AUC {area:.3f}" for name, area in results.items()), sep="\n")
    print(f"{model.size:,} bytes of flash, {agreement.arena_bytes:,} bytes of arena\n{agreement}")
    return results


if __name__ == "__main__":
    main()
