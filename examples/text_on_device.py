"""Text classifiers for a phone: bytes and accuracy by form, and a file with words and labels in it.

    python examples/text_on_device.py

Which package is a sentence from? The text is that of `text_classifier.py`. Three students are
trained: the mean of word vectors, a GRU and a transformer, all with masks for the padding. Each is
converted to every form that runs on a phone, and each file is tested by itself. `student.tflite`
is the int8 file of the first, which MediaPipe's TextClassifier runs. docs/text.md has the table.
"""

from __future__ import annotations

import argparse
import re
import runpy
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keras_kd import compression, tflite
from keras_kd.tflite import android

LENGTH, WORDS, WIDTH = 24, 4000, 32
FORMS = ("float32", "float16", "dynamic_int8", "int8", "int4")
TEXT = runpy.run_path(str(Path(__file__).with_name("text_classifier.py")))


def student_of(kind: str, classes: int) -> keras.Model:
    """Word numbers in, probabilities out; 0 is padding, which the mask leaves out."""
    words = keras.Input((LENGTH,), dtype="int32", name="words")
    x = layers.Embedding(WORDS, WIDTH, mask_zero=True, name="table")(words)
    if kind == "GRU":
        # A loop over time cannot be calibrated; unrolled, it is one operation after the other.
        x = layers.GRU(WIDTH, unroll=True)(x)
    else:
        if kind == "transformer":
            x = layers.LayerNormalization()(
                layers.Add()([x, layers.MultiHeadAttention(4, WIDTH // 4)(x, x)])
            )
        x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dropout(0.3)(layers.Dense(WIDTH, activation="relu")(x))
    return keras.Model(words, layers.Dense(classes, activation="softmax", name="scores")(x))


def main(argv: list[str] | None = None) -> dict[str, dict[str, tuple[int, float]]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--files", type=int, default=60, help="at most, of each package")
    parser.add_argument("--output", type=Path, default=Path("student.tflite"))
    options = parser.parse_args(argv)

    texts = [TEXT["sentences"](package, options.files) for package in TEXT["PACKAGES"]]
    sentences = [" ".join(words) for found in texts for words in found]
    labels = np.repeat(range(len(texts)), list(map(len, texts)))
    lookup = layers.TextVectorization(WORDS, output_sequence_length=LENGTH)
    is_test = np.random.default_rng(0).random(len(labels)) < 0.2
    lookup.adapt([s for s, held_out in zip(sentences, is_test, strict=True) if not held_out])
    x = lookup(np.array(sentences)).numpy().astype("int32")
    train, test = (x[~is_test], labels[~is_test]), (x[is_test], labels[is_test])

    def trained(student: keras.Model, epochs: int) -> keras.Model:
        student.compile("adam", "sparse_categorical_crossentropy")
        student.fit(*train, epochs=epochs, batch_size=64, verbose=0)
        return student

    def measured(model: tflite.TFLiteModel) -> tuple[int, float]:
        return model.size, float(np.mean(model.predict(test[0]).argmax(axis=-1) == test[1]))

    results, kept = {}, None
    for kind in ("mean of words", "GRU", "transformer"):
        keras.utils.set_random_seed(0)
        student = trained(student_of(kind, len(texts)), options.epochs)
        files = {form: tflite.convert(student, form, train[0]) for form in FORMS}
        kept = kept or files["int8"]
        # A table of 8 numbers for each word, from which a Dense layer makes 32.
        smaller = trained(compression.factorize(student, rank={"table": 8}), 1)
        files["8 numbers a word, int8"] = tflite.convert(smaller, "int8", train[0])
        results[kind] = {form: measured(model) for form, model in files.items()}
        for form, (size, accuracy) in results[kind].items():
            print(f"| {kind} | {form} | {size:,} | {accuracy:.1%} |")

    words = [re.sub(r"\s", "_", word) for word in lookup.get_vocabulary()]
    words += [f"unused{number}" for number in range(len(words), WORDS)]
    metadata = android.Metadata(TEXT["PACKAGES"], name="Packages", vocabulary=words)
    print(android.add_metadata(kept, metadata).save(options.output), "is written")
    return results


if __name__ == "__main__":
    main()
