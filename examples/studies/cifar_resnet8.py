"""MLPerf Tiny's image classifier: ResNet-8 on CIFAR-10, alone, distilled, and in int8.

    python examples/studies/cifar_resnet8.py --data-dir ~/tensorflow_datasets

The benchmark asks for 85 % in 96 KB (Banbury et al., MLPerf Tiny Benchmark, NeurIPS 2021). Here the
student of the reference architecture, 78 000 weights, trains on labels, then on the stored outputs
of a wide residual network for images that are cropped and mirrored, then quantization-aware under
the same teacher. The last 5 000 training images validate; they train nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _study import (
    Epochs,
    Job,
    Results,
    StudySettings,
    command,
    fit,
    keep,
    loaded,
    moved,
    percent,
    read,
    run_study,
    table,
    unit,
    write_page,
)

import keras_kd
from keras_kd import compression, tflite

NAME = "cifar_resnet8"
SIDE = 32
PADDING = 4
BAR, MOST_BYTES = 0.85, 96 * 1024
GOAL, LEAST_TEACHER = 0.88, 0.92


@dataclass(frozen=True)
class Settings(StudySettings):
    """What the results depend on.

    Attributes:
        images: how many training images; a tenth of them, the last ones, validates.
        width: filters of the teacher's first convolution; 64 is that of He et al. (2016).
        teacher_epochs, student_epochs, quantization_epochs: lengths of trainings.
        versions: how many crops of each image the teacher answers.
        seeds: of the students.
    """

    images: int = 50_000
    test_images: int = 10_000
    width: int = 48
    teacher_epochs: int = 30
    student_epochs: int = 100
    quantization_epochs: int = 5
    versions: int = 8
    seeds: int = 3
    temperature: float = 4.0
    labels_weight: float = 0.1
    batch_size: int = 128
    teacher_learning_rate: float = 0.4
    student_learning_rate: float = 4e-3
    quantization_learning_rate: float = 3e-4

    def load(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Images as bytes, shape (images, 32, 32, 3), and labels, by their purpose."""
        x, y, x_test, y_test = loaded("cifar10", self.data_dir, self.work_dir)
        x, y = x[: self.images], y[: self.images]
        held_out = len(x) // 10
        return {
            "training": (x[:-held_out], y[:-held_out]),
            "validation": (x[-held_out:], y[-held_out:]),
            "test": (x_test[: self.test_images], y_test[: self.test_images]),
        }

    @property
    def store(self) -> Path:
        """Where the teacher's outputs are."""
        return self.work_dir / "teacher.store"


def convolution(tensor: Any, filters: int, kernel: int = 3, strides: int = 1) -> Any:
    """Convolution and batch normalization."""
    tensor = keras.layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(tensor)
    return keras.layers.BatchNormalization()(tensor)


def student(seed: int) -> keras.Model:
    """ResNet-8 of MLPerf Tiny: three stages of one block, 16, 32 and 64 filters; logits out."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    tensor = keras.layers.ReLU()(convolution(inputs, 16))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        inner = keras.layers.ReLU()(convolution(tensor, filters, strides=strides))
        inner = convolution(inner, filters)
        if strides > 1:
            tensor = keras.layers.Conv2D(
                filters, 1, strides=strides, kernel_initializer="he_normal"
            )(tensor)
        tensor = keras.layers.ReLU()(keras.layers.Add()([inner, tensor]))
    tensor = keras.layers.AveragePooling2D(8)(tensor)
    tensor = keras.layers.Flatten()(tensor)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(tensor), name="resnet8")


def teacher(width: int, seed: int) -> keras.Model:
    """ResNet-9, a shallow wide network that trains in few epochs: (1, 2, 4, 8) times the width.

    Two residual blocks, each after a convolution and a pooling, as in Page, "How to train your
    ResNet", 2018; logits out.
    """
    keras.utils.set_random_seed(seed)
    relu, pool = keras.layers.ReLU, keras.layers.MaxPooling2D
    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    tensor = relu()(convolution(inputs, width))
    for factor, has_block in ((2, True), (4, False), (8, True)):
        tensor = pool()(relu()(convolution(tensor, factor * width)))
        if has_block:
            inner = relu()(convolution(tensor, factor * width))
            inner = relu()(convolution(inner, factor * width))
            tensor = keras.layers.Add()([tensor, inner])
    tensor = keras.layers.GlobalMaxPooling2D()(tensor)
    logits = keras.layers.Dense(10, use_bias=False)(tensor)
    return keras.Model(inputs, keras.layers.Rescaling(0.125, name="logits")(logits), name="resnet9")


def labels_loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def epochs_of(x: np.ndarray, y: np.ndarray, seed: int, batch_size: int) -> Epochs:
    """Images moved over a reflected border, half of them mirrored, others in each epoch."""

    def make(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng((seed, epoch))
        order = generator.permutation(len(x))
        images = moved(x[order], PADDING, generator, "reflect")
        mirrored = generator.random(len(x)) < 0.5
        images[mirrored] = images[mirrored, :, ::-1]
        return images, y[order]

    return Epochs(make, batch_size)


def augment(image: Any, seed: Any) -> Any:
    """The same changes of one image, as a function of a seed, for the store."""
    import tensorflow as tf

    margins = [(PADDING, PADDING), (PADDING, PADDING), (0, 0)]
    image = tf.pad(image, margins, "REFLECT")
    image = tf.image.stateless_random_crop(image, (SIDE, SIDE, 3), seed)
    return tf.image.stateless_random_flip_left_right(image, seed + 1)


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(outputs.argmax(axis=-1) == labels))


def accuracies(model: keras.Model, data: dict[str, tuple]) -> dict[str, float]:
    """The accuracy on validation and on test images."""
    found = {}
    for purpose in ("validation", "test"):
        x, y = data[purpose]
        found[purpose] = accuracy(model.predict(unit(x), batch_size=500, verbose=0), y)
    return {"accuracy": found["test"], "validation_accuracy": found["validation"]}


def cosine(rate: float, epochs: int, examples: int, batch_size: int) -> Any:
    """A learning rate that rises for a tenth of the steps and then falls to 0."""
    steps = max(2, epochs * (examples // batch_size))
    warm = max(1, steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        rate / 10, steps - warm, warmup_target=rate, warmup_steps=warm
    )


def train_teacher(settings: Settings, _: Results) -> dict[str, Any]:
    """Train the teacher on labels, with SGD."""
    data = settings.load()
    x, y = data["training"]
    model = teacher(settings.width, 0)
    epochs, size = settings.teacher_epochs, settings.batch_size
    rate = cosine(settings.teacher_learning_rate, epochs, len(x), size)
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-4), labels_loss()
    )
    path = settings.work_dir / "teacher.keras"
    fit(model, epochs_of(x, y, 0, size), epochs, path)
    keep(model, path)
    return {**accuracies(model, data), "parameters": model.count_params()}


def store_teacher(settings: Settings, _: Results) -> dict[str, Any]:
    """Write the teacher's logits for several crops of each image into a store."""
    x, y = settings.load()["training"]
    model = keras.models.load_model(settings.work_dir / "teacher.keras")
    keras_kd.teachers.StoredTeacher.create(
        model, (unit(x), y), settings.store, augment=augment, versions=settings.versions
    )
    return {"bytes": settings.store.stat().st_size}


def adam(settings: Settings, rate: float, epochs: int, examples: int) -> Any:
    return keras.optimizers.AdamW(
        cosine(rate, epochs, examples, settings.batch_size), weight_decay=1e-4
    )


def train_alone(settings: Settings, _: Results, name: str, seed: int) -> dict[str, Any]:
    """Train a student on labels, with the same augmentation."""
    data = settings.load()
    x, y = data["training"]
    model = student(seed)
    epochs = settings.student_epochs
    model.compile(adam(settings, settings.student_learning_rate, epochs, len(x)), labels_loss())
    path = settings.work_dir / f"{name}.keras"
    fit(model, epochs_of(x, y, seed, settings.batch_size), epochs, path)
    keep(model, path)
    return accuracies(model, data)


def distiller_of(settings: Settings, model: Any, rate: float, epochs: int) -> tuple[Any, Any]:
    """A compiled Distiller, and the function from a seed to its data."""
    x, y = settings.load()["training"]
    stored = keras_kd.teachers.StoredTeacher(settings.store, augment=augment)
    distiller = keras_kd.Distiller(
        stored,
        model,
        keras_kd.losses.SoftTargets(temperature=settings.temperature),
        student_loss_weight=settings.labels_weight,
    )
    distiller.compile(adam(settings, rate, epochs, len(x)), labels_loss())
    images = unit(x)
    return distiller, lambda seed: stored.join((images, y), settings.batch_size, seed=seed)


def train_distilled(settings: Settings, _: Results, name: str, seed: int) -> dict[str, Any]:
    """Distill a student from the stored outputs."""
    model = student(seed)
    epochs = settings.student_epochs
    distiller, data = distiller_of(settings, model, settings.student_learning_rate, epochs)
    path = settings.work_dir / f"{name}.keras"
    fit(distiller, data(1000 * seed), epochs, path)
    keep(model, path)
    return accuracies(model, settings.load())


def quantize(settings: Settings, _: Results, name: str, seed: int) -> dict[str, Any]:
    """The int8 file of a student; a distilled one is trained for it under the teacher."""
    data = settings.load()
    images = unit(data["training"][0])
    model = keras.models.load_model(settings.work_dir / f"{name}-{seed}.keras")
    if name == "distilled":
        model = compression.quantize_aware(model, images, input_range=(0, 1))
        epochs = settings.quantization_epochs
        distiller, joined = distiller_of(
            settings, model, settings.quantization_learning_rate, epochs
        )
        distiller.fit(joined(seed), epochs=epochs, shuffle=False, verbose=0)
    file = tflite.convert(
        model,
        "int8",
        (images, data["training"][1]),
        "microcontroller",
        input_range=(0, 1),
    )
    file.save(settings.work_dir / f"{name}-{seed}.tflite")
    x, y = data["test"]
    row = keras_kd.evaluation.compare({"int8": file}, unit(x), y)["int8"]
    return {
        "accuracy": row.value("accuracy"),
        "bytes": row.bytes,
        "arena_bytes": row.arena_bytes,
        "latency_microseconds": row.latency_microseconds,
    }


def jobs(settings: Settings) -> list[Job]:
    """All that is computed, in the order of its importance."""
    listed = [Job("teacher", train_teacher), Job("stored", store_teacher, ("teacher",))]
    for seed in range(settings.seeds):
        for name, run, needs in (
            ("alone", train_alone, ()),
            ("distilled", train_distilled, ("stored",)),
        ):
            key = f"{name}-{seed}"
            listed.append(Job(key, run, needs, (key, seed)))
            listed.append(Job(f"{key}-int8", quantize, (key, *needs), (name, seed)))
    return listed


def values(results: Results, name: str, suffix: str, key: str, seeds: int) -> list[Any]:
    """A value of all seeds that are finished."""
    names = [f"{name}-{seed}{suffix}" for seed in range(seeds)]
    return [results[each][key] for each in names if each in results]


def page(settings: Settings, pages: Path) -> Path:
    """Write the page of what is finished."""
    kept = read(settings.work_dir)
    results, s = kept["jobs"], kept["settings"]
    sections = [
        "# MLPerf Tiny's image classifier",
        f"ResNet-8 on CIFAR-10, {s['student_epochs']} epochs for each student; accuracy in percent "
        f"on {s['test_images']:,} test images, mean and standard error over the seeds.",
    ]
    if "teacher" in results:
        reached = results["teacher"]["accuracy"]
        sections.append(
            f"The teacher, {results['teacher']['parameters']:,} weights, reached "
            f"{100 * reached:.2f} % after {s['teacher_epochs']} epochs"
            + (
                "."
                if reached >= LEAST_TEACHER
                else f": less than the {100 * LEAST_TEACHER:.0f} % from which a teacher is worth "
                "its cost here; longer training is the first thing to try."
            )
        )
    rows = []
    for name in ("alone", "distilled"):
        for suffix, title in (("", "float"), ("-int8", "int8")):
            found = values(results, name, suffix, "accuracy", s["seeds"])
            if not found:
                continue
            costs = ["", "", ""]
            if suffix:
                costs = [
                    f"{max(values(results, name, suffix, key, s['seeds'])):,.0f}"
                    for key in ("bytes", "arena_bytes", "latency_microseconds")
                ]
            rows.append([f"{name}, {title}", len(found), percent(found), *costs])
    if rows:
        sections.append(table(["", "seeds", "accuracy", "bytes", "arena", "µs"], rows))
    gains = [
        distilled - alone
        for suffix in ("",)
        for distilled, alone in zip(
            values(results, "distilled", suffix, "accuracy", s["seeds"]),
            values(results, "alone", suffix, "accuracy", s["seeds"]),
            strict=False,
        )
    ]
    if gains:
        sections.append(f"Gain of distillation, pairs of the same seed: {percent(gains)} points.")
    files = values(results, "distilled", "-int8", "accuracy", s["seeds"])
    if files:
        size = max(values(results, "distilled", "-int8", "bytes", s["seeds"]))
        is_met = np.mean(files) >= GOAL and size <= MOST_BYTES
        sections.append(
            f"MLPerf Tiny's bar is {100 * BAR:.0f} % and the goal of this study "
            f"{100 * GOAL:.0f} % in at most {MOST_BYTES:,} bytes: "
            + ("reached." if is_met else "not reached.")
        )
    keys = ("images", "test_images", "width", "versions", "seeds")
    options = {key.replace("_", "-"): [s[key]] for key in keys}
    options["epochs"] = [s[f"{of}_epochs"] for of in ("teacher", "student", "quantization")]
    return write_page(pages, NAME, sections, kept, command(NAME, Settings, kept["settings"]))


def main(arguments: list[str] | None = None) -> None:
    run_study(__doc__, NAME, Settings, jobs, page, arguments)


if __name__ == "__main__":
    main()
