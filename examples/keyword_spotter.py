"""From a directory of WAV files to firmware that recognizes words of speakers it has not heard.

    python examples/keyword_spotter.py --data free-spoken-digit-dataset/recordings

Teacher and student get the same changed clips: moved, faster or slower, louder or softer, in noise.
The student becomes an int8 file, and a folder with that file, the features in C++ and a test, to
compile with TensorFlow Lite Micro. Without --data it runs on the few clips beside it. Prints the
accuracy on other speakers: of the teacher, the student alone and distilled, and the int8 file.
Needs the extra `micro`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import layers

import keras_kd
from keras_kd import metrics, sound, tflite
from keras_kd.teachers import StoredTeacher
from keras_kd.tflite import microcontroller

CLIPS = Path(__file__).with_name("spoken_digits")
BATCH_SIZE = 64
SOFT = keras_kd.losses.SoftTargets(temperature=2.0)


def network(shape: tuple[int, int], classes: int, filters: tuple[int, ...], kind: type, name: str):
    steps = [keras.Input(shape, name="features"), layers.Reshape((*shape, 1))]
    steps += [layers.Conv2D(filters[0], 5, strides=2, padding="same", use_bias=False)]
    for index, count in enumerate(filters[1:]):
        steps += [layers.BatchNormalization(), layers.ReLU()]
        steps += [kind(count, 3, strides=1 + index % 2, padding="same", use_bias=False)]
    steps += [layers.BatchNormalization(), layers.ReLU(), layers.AveragePooling2D((7, 1))]
    steps += [layers.Flatten(), layers.Dropout(0.4), layers.Dense(classes)]
    return keras.Sequential(steps, name=name)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=CLIPS, help="files {digit}_{speaker}_{n}.wav")
    parser.add_argument("--test", nargs="+", default=["s5", "s6"], help="speakers of the test")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path("firmware"))
    options = parser.parse_args(argv)

    clips = sound.load_clips(options.data, seconds=1.0, names="{label}_{speaker}_{index}.wav")
    training, test = clips.hold_out("speaker", {*clips.fields["speaker"]} & {*options.test})
    front_end = sound.LogMel(clips.sample_rate, mels=32)
    x_test, examples = np.asarray(front_end(test.x)), np.asarray(front_end(training.x))
    augment = sound.ClipAugmentation(clips.sample_rate, shift=0.1, speed=0.15, noise=(5, 30))
    print(f"{len(training)} clips to learn from, {len(test)} of other speakers, {x_test.shape[1:]}")

    def compiled(model: keras.Model) -> keras.Model:
        steps = options.epochs * -(-len(training) // BATCH_SIZE)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        rate = keras.optimizers.schedules.CosineDecay(4e-3, steps)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        return model

    def changed(clip, seed):
        return front_end(augment(clip, seed)[None])[0]

    keras.utils.set_random_seed(0)
    size = x_test.shape[1:], len(clips.class_names)
    batches = augment.batches(training.x, training.y, BATCH_SIZE, front_end=front_end)
    teacher = compiled(network(*size, (16, 32, 32, 64, 64), layers.Conv2D, "teacher"))
    teacher.fit(batches, epochs=options.epochs, verbose=2)
    small = (16, 24, 24, 32, 32), layers.SeparableConv2D
    alone = compiled(network(*size, *small, "alone"))
    alone.fit(batches, epochs=options.epochs, verbose=2)

    student, pairs = network(*size, *small, "student"), (training.x, training.y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "teacher.store"
        StoredTeacher.create(teacher, pairs, path, augment=changed, versions=options.epochs)
        stored = StoredTeacher(path, augment=changed)
        distiller = compiled(keras_kd.Distiller(stored, student, SOFT, student_loss_weight=0.3))
        joined = stored.join(pairs, batch_size=BATCH_SIZE)
        distiller.fit(joined, epochs=options.epochs, verbose=2)

    model = tflite.convert(student, "int8", (examples, training.y), target="microcontroller")
    extras = {"class_names": clips.class_names, "front_end": front_end}
    microcontroller.write_project(model, options.output, "digits", x_test[::3], **extras)
    outputs = {each.name: each.predict(x_test, verbose=0) for each in (teacher, alone, student)}
    outputs["int8 file"] = model.predict(x_test)
    results = {name: metrics.accuracy(out, test.y) for name, out in outputs.items()}
    print(*(f"{name:10} {value:.1%}" for name, value in results.items()), sep="\n")
    arena = microcontroller.run(model, x_test[:1]).arena_bytes
    print(f"{model.size:,} bytes of flash, {arena:,} bytes of arena; see {options.output}")
    return results


if __name__ == "__main__":
    main()
