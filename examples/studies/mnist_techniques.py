"""Three architectures in three sizes on MNIST, each compressed in nine ways, measured as .tflite.

    python examples/studies/mnist_techniques.py --data-dir ~/tensorflow_datasets

Which technique costs how much accuracy, and for how many bytes? Whether a student that imitates its
teacher more closely also classifies better is another question (Stanton et al., Does Knowledge
Distillation Really Work?, NeurIPS 2021): agreement and divergence stand beside the accuracy. The
teacher of all students is the model with the best accuracy on the last sixth of the training
images, which train no model.
"""

from __future__ import annotations

from collections.abc import Callable
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
    decaying,
    fit,
    keep,
    loaded,
    mean_and_error,
    percent,
    read,
    run_study,
    save_plot,
    table,
    write_page,
)

import keras_kd
from keras_kd import compression, tflite

NAME = "mnist_techniques"
FAMILIES = ("mlp", "cnn", "resnet")
SIZES = ("simple", "medium", "deep")
LOSS = "sparse_categorical_crossentropy"
# What becomes of a model: the name in the results, and how pages and plots call it.
TECHNIQUES = {
    "baseline": "baseline",
    "dynamic": "dynamic quantization",
    "int8": "int8 after training",
    "pruned-once": "pruned in one step",
    "pruned": "pruned gradually",
    "distilled": "distilled from the best",
    "distilled-family": "distilled from its family",
    "distilled-pruned": "distilled and pruned",
    "distilled-int8": "distilled and int8",
}
COLUMNS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "bytes": "bytes",
    "compressed_bytes": "gzip",
    "latency_microseconds": "µs",
    "agreement": "agrees",
    "divergence": "KL",
}


@dataclass(frozen=True)
class Settings(StudySettings):
    """What the results depend on."""

    images: int = 60_000
    test_images: int = 10_000
    families: tuple[str, ...] = FAMILIES
    sizes: tuple[str, ...] = SIZES
    epochs: int = 12
    fine_tuning_epochs: int = 4
    seeds: int = 3
    sparsity: float = 0.8
    temperature: float = 4.0
    labels_weight: float = 0.1
    batch_size: int = 128
    learning_rate: float = 1e-3

    def load(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Images (float32 in 0..1, shape (images, 28, 28, 1)) and labels, by their purpose."""
        x, y, x_test, y_test = loaded("mnist", self.data_dir, self.work_dir)
        x, x_test = (images.astype("float32") / 255 for images in (x[: self.images], x_test))
        y, held_out = y[: self.images], len(x) // 6
        return {
            "training": (x[:-held_out], y[:-held_out]),
            "validation": (x[-held_out:], y[-held_out:]),
            "test": (x_test[: self.test_images], y_test[: self.test_images]),
        }

    def path(self, name: str) -> Path:
        """The file of a trained model."""
        return self.work_dir / f"{name}.keras"


def build(family: str, size: str, seed: int) -> keras.Model:
    """A new model for digits that ends in probabilities."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((28, 28, 1), name="image")
    features = {"mlp": _mlp, "cnn": _cnn, "resnet": _resnet}[family](inputs, SIZES.index(size))
    outputs = keras.layers.Dense(10, activation="softmax", name="digit")(features)
    return keras.Model(inputs, outputs, name=f"{family}_{size}")


def _mlp(tensor: Any, size: int) -> Any:
    tensor = keras.layers.Flatten()(tensor)
    for units in ((32,), (128, 64), (512, 256, 128))[size]:
        tensor = keras.layers.Dense(units, activation="relu")(tensor)
    return tensor


def _cnn(tensor: Any, size: int) -> Any:
    for filters, strides in (
        ((8, 2), (16, 2)),
        ((16, 2), (32, 2), (32, 1)),
        ((32, 2), (32, 1), (64, 2), (64, 1), (128, 2)),
    )[size]:
        tensor = keras.layers.Conv2D(
            filters, 3, strides=strides, padding="same", activation="relu"
        )(tensor)
    return keras.layers.Flatten()(tensor)


def _resnet(tensor: Any, size: int) -> Any:
    """Stages of residual blocks (He et al., 2016), each at half the resolution of the last."""
    width, stages, blocks = ((8, 2, 1), (16, 2, 2), (24, 3, 2))[size]
    tensor = _convolution(tensor, width, 2)
    for stage in range(stages):
        for block in range(blocks):
            filters, strides = width * 2**stage, 2 if stage and not block else 1
            shortcut = tensor
            if strides > 1:
                shortcut = keras.layers.Conv2D(filters, 1, strides=strides)(tensor)
            inner = _convolution(tensor, filters, strides)
            inner = _convolution(inner, filters, 1, activation=None)
            tensor = keras.layers.ReLU()(keras.layers.Add()([inner, shortcut]))
    return keras.layers.GlobalAveragePooling2D()(tensor)


def _convolution(tensor: Any, filters: int, strides: int, activation: str | None = "relu") -> Any:
    tensor = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(
        tensor
    )
    tensor = keras.layers.BatchNormalization()(tensor)
    return keras.layers.ReLU()(tensor) if activation else tensor


def optimizer(settings: Settings, examples: int, epochs: int) -> Any:
    return decaying(settings.learning_rate, epochs, examples, settings.batch_size)


def train_baseline(
    settings: Settings, _: Results, name: str, family: str, size: str, seed: int
) -> dict[str, Any]:
    """Train on the labels; the accuracy on validation images decides which model is the teacher."""
    data = settings.load()
    x, y = data["training"]
    model = build(family, size, seed)
    model.compile(optimizer(settings, len(x), settings.epochs), LOSS, metrics=["accuracy"])

    def make(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng((seed, epoch)).permutation(len(x))
        return x[order], y[order]

    path = settings.path(name)
    fit(model, Epochs(make, settings.batch_size), settings.epochs, path)
    keep(model, path)
    _, accuracy = model.evaluate(*data["validation"], batch_size=500, verbose=0)
    return {"validation_accuracy": accuracy, "parameters": model.count_params()}


def best(results: Results) -> str:
    """The baseline with the highest accuracy on validation images, the first of equals."""
    baselines = [name for name, result in results.items() if "validation_accuracy" in result]
    return max(baselines, key=lambda name: results[name]["validation_accuracy"])


def choose_teacher(settings: Settings, results: Results) -> dict[str, Any]:
    """Choose the teacher and store its outputs, and those of the largest model of each family."""
    chosen = best(results)
    _store(settings, chosen, "best")
    largest = settings.sizes[-1]
    for family in settings.families:
        _store(settings, f"{family}-{largest}-0", family)
    return {"teacher": chosen}


def _store(settings: Settings, name: str, key: str) -> None:
    teacher = keras.models.load_model(settings.path(name))
    path = settings.work_dir / f"{key}.store"
    keras_kd.teachers.StoredTeacher.create(teacher, settings.load()["training"], path)


def teach(
    settings: Settings, teacher: str, student: Any, epochs: int, seed: int, path: Path | None = None
) -> Any:
    """Distill a student from stored outputs; with a path its training goes on where it stopped."""
    data = settings.load()["training"]
    stored = keras_kd.teachers.StoredTeacher(settings.work_dir / f"{teacher}.store")
    distiller = keras_kd.Distiller(
        stored,
        student,
        keras_kd.losses.SoftTargets(temperature=settings.temperature),
        student_loss_weight=settings.labels_weight,
    )
    distiller.compile(optimizer(settings, len(data[0]), epochs), LOSS)

    joined = stored.join(data, settings.batch_size, seed=1000 * seed)
    if path is None:
        distiller.fit(joined, epochs=epochs, shuffle=False, verbose=0)
    else:
        fit(distiller, joined, epochs, path)
        keep(student, path)
    return student


def distill(
    settings: Settings, _: Results, name: str, family: str, size: str, seed: int, teacher: str
) -> dict[str, Any]:
    """Distill a new student, as many epochs as it trains alone."""
    student = build(family, size, seed)
    teach(settings, teacher, student, settings.epochs, seed, settings.path(name))
    return {"parameters": student.count_params()}


def zeroed(model: keras.Model, sparsity: float) -> keras.Model:
    """A copy of a model in which the smallest weights of each kernel are zero, untrained."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
            kernel = np.array(layer.kernel)
            smallest = np.argsort(np.abs(kernel), axis=None)[: int(sparsity * kernel.size)]
            kernel.flat[smallest] = 0
            layer.kernel.assign(kernel)
    return copy


def trained_model(technique: str, name: str, seed: int) -> str:
    """The name of the trained model that a technique begins with."""
    if technique == "distilled-family":
        return f"{name}-{seed}-distilled-family"
    return f"{name}-{seed}-distilled" if technique.startswith("distilled") else f"{name}-{seed}"


def file_of(settings: Settings, technique: str, name: str, seed: int) -> tflite.TFLiteModel:
    """Make the .tflite of one technique; `name` is the model without its technique."""
    x, y = settings.load()["training"]
    epochs = settings.fine_tuning_epochs
    model = keras.models.load_model(settings.path(trained_model(technique, name, seed)))
    if technique in ("baseline", "distilled", "distilled-family"):
        return tflite.convert(model)
    if technique == "dynamic":
        return tflite.convert(model, "dynamic_int8")
    if technique == "int8":
        return tflite.convert(model, "int8", (x, y))
    if technique == "pruned-once":
        return tflite.convert(zeroed(model, settings.sparsity))
    if technique == "pruned":
        pruned = compression.prune(model, settings.sparsity)
        pruned.compile(optimizer(settings, len(x), epochs), LOSS)
        pruned.fit(
            x,
            y,
            settings.batch_size,
            epochs,
            verbose=0,
            callbacks=pruned.training_callbacks(),
        )
        return tflite.convert(compression.strip(pruned))
    if technique == "distilled-pruned":
        pruned = teach(settings, "best", compression.prune(model, settings.sparsity), epochs, seed)
        return tflite.convert(compression.strip(pruned))
    quantized = compression.quantize_aware(model, x, input_range=(0, 1))
    return tflite.convert(teach(settings, "best", quantized, epochs, seed), "int8", (x, y))


def measure(
    settings: Settings, results: Results, technique: str, name: str, seed: int
) -> dict[str, Any]:
    """Make the file of a technique and measure it on the test images."""
    model = file_of(settings, technique, name, seed)
    teacher = keras.models.load_model(settings.path(results["teacher"]["teacher"]))
    comparison = keras_kd.evaluation.compare(
        {"file": model}, *settings.load()["test"], teacher=teacher
    )
    return {key: comparison["file"].value(key) for key in COLUMNS}


def jobs(settings: Settings) -> list[Job]:
    """All that is computed; the first seed of everything before the next seed of anything."""
    models = [(family, size) for family in settings.families for size in settings.sizes]
    listed = [
        Job(f"{family}-{size}-{seed}", train_baseline, (), arguments)
        for seed in range(settings.seeds)
        for family, size in models
        for arguments in [(f"{family}-{size}-{seed}", family, size, seed)]
    ]
    # The teacher is of the first seed.
    listed.insert(
        len(models),
        Job("teacher", choose_teacher, tuple(job.name for job in listed[: len(models)])),
    )
    for seed in range(settings.seeds):
        for family, size in models:
            name = f"{family}-{size}"
            trained = {"distilled": "best"}
            if size != settings.sizes[-1]:
                trained["distilled-family"] = family
            for key, teacher in trained.items():
                arguments = (f"{name}-{seed}-{key}", family, size, seed, teacher)
                listed.append(Job(arguments[0], distill, ("teacher",), arguments))
            for technique in TECHNIQUES:
                if technique == "distilled-family" and technique not in trained:
                    continue
                needs = ("teacher", trained_model(technique, name, seed))
                job = f"{name}-{seed}:{technique}"
                listed.append(Job(job, measure, needs, (technique, name, seed)))
    return listed


def measured(results: Results, model: str, technique: str, key: str) -> list[float]:
    """A value of all seeds that are finished, in their order."""
    found = []
    for name, result in results.items():
        head, _, tail = name.partition(":")
        if tail == technique and head.rpartition("-")[0] == model and result[key] is not None:
            found.append((int(head.rpartition("-")[2]), result[key]))
    return [value for _, value in sorted(found)]


def written(values: list[float], key: str) -> str:
    """Their mean, with its standard error where it is a quality."""
    if not values:
        return ""
    mean, _ = mean_and_error(values)
    if key in ("bytes", "compressed_bytes"):
        return f"{mean:,.0f}"
    if key in ("latency_microseconds", "divergence"):
        return f"{mean:.1f}" if key == "latency_microseconds" else f"{mean:.4f}"
    return percent(values)


def differences(
    results: Results, models: list[str], technique: str, other: str, key: str = "accuracy"
) -> list[float]:
    """The value of a technique less that of another, one for each model and seed with both."""
    found = []
    for model in models:
        pairs = zip(
            measured(results, model, technique, key),
            measured(results, model, other, key),
            strict=False,
        )
        found += [first - second for first, second in pairs]
    return found


def page(settings: Settings, pages: Path) -> Path:
    """Write the page of what is finished."""
    kept = read(settings.work_dir)
    results, s = kept["jobs"], kept["settings"]
    models = [
        name
        for name in (f"{family}-{size}" for family in s["families"] for size in s["sizes"])
        if measured(results, name, "baseline", "accuracy")
    ]
    seeds = s["seeds"]
    sections = [
        "# Architectures and techniques on MNIST",
        f"Each row is a `.tflite`, measured itself on {s['test_images']:,} test images; means of "
        f"up to {seeds} {'seed' if seeds == 1 else 'seeds'}, ± is the standard error. Accuracy, F1 "
        "and agreement with the teacher are in percent, the divergence from it (KL) in nats, the "
        "latency is for one image in LiteRT on one thread.",
    ]
    if "teacher" in results:
        sections.append(
            f"The teacher is {results['teacher']['teacher'].rpartition('-')[0]}, the best on the "
            f"{s['images'] // 6:,} validation images. Pruning leaves "
            f"{100 - 100 * s['sparsity']:.0f} % of the weights of a kernel."
        )
    sections += _claims(results, models)
    for model in models:
        rows = [
            [title, *(written(measured(results, model, key, column), column) for column in COLUMNS)]
            for key, title in TECHNIQUES.items()
            if measured(results, model, key, "accuracy")
        ]
        sections += [f"## {model}", table(["", *COLUMNS.values()], rows)]
    if models:
        sections += ["## Plots", *_plots(results, models, pages)]
    options = {
        key: [s[key]] for key in ("images", "test_images", "epochs", "fine_tuning_epochs", "seeds")
    }
    options |= {"families": s["families"], "sizes": s["sizes"]}
    options = {key.replace("_", "-"): value for key, value in options.items()}
    return write_page(pages, NAME, sections, kept, command(NAME, Settings, kept["settings"]))


def _claims(results: Results, models: list[str]) -> list[str]:
    """Two claims on compression, beside what was measured."""
    ratios = [
        small / large
        for model in models
        for small, large in zip(
            measured(results, model, "dynamic", "bytes"),
            measured(results, model, "baseline", "bytes"),
            strict=False,
        )
    ]
    rows = []
    for title, key, other in (
        ("dynamic quantization against the baseline", "dynamic", "baseline"),
        ("int8 after training against the baseline", "int8", "baseline"),
        ("pruned in one step against the baseline", "pruned-once", "baseline"),
        ("pruned gradually against the baseline", "pruned", "baseline"),
        ("distilled against the baseline", "distilled", "baseline"),
        ("pruned under the teacher against distilled", "distilled-pruned", "distilled"),
        ("int8 under the teacher against distilled", "distilled-int8", "distilled"),
    ):
        found = differences(results, models, key, other)
        if found:
            agrees = differences(results, models, key, other, "agreement")
            rows.append(
                [
                    title,
                    len(found),
                    f"{100 * np.mean(found):+.2f}",
                    f"{100 * np.min(found):+.2f}",
                    f"{100 * np.max(found):+.2f}",
                    f"{100 * np.mean(agrees):+.2f}",
                ]
            )
    if not rows:
        return []
    sections = [
        "## What a technique changes",
        "Differences in points, over all models and seeds that have both.",
        table(
            ["", "pairs", "accuracy, mean", "lowest", "highest", "agreement, mean"],
            rows,
        ),
    ]
    if ratios:
        sections.append(
            f"Claimed elsewhere: dynamic quantization leaves 25 % of the size. Measured: "
            f"{100 * min(ratios):.0f} to {100 * max(ratios):.0f} % of the file, the smaller the "
            "larger the model is."
        )
    return sections


def _plots(results: Results, models: list[str], pages: Path) -> list[str]:
    """The four plots, written beside the page, as images in Markdown."""

    def mean(model: str, technique: str, key: str = "accuracy") -> float | None:
        values = measured(results, model, technique, key)
        return float(np.mean(values)) if values else None

    def over_size(axes: Any) -> None:
        for marker, (key, title) in zip("osD^vP*Xd", TECHNIQUES.items(), strict=True):
            points = [
                (mean(model, key, "compressed_bytes"), 100 * mean(model, key))
                for model in models
                if mean(model, key) is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker, label=title, alpha=0.8)
        axes.set_xscale("log")
        axes.set_xlabel("bytes after gzip (logarithmic)")
        axes.set_ylabel("accuracy in %")
        axes.legend(fontsize=7)

    def impact(*techniques: str) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            height = 0.8 / len(techniques)
            for index, key in enumerate(techniques):
                bars = [
                    (place + index * height, 100 * (mean(model, key) - mean(model, "baseline")))
                    for place, model in enumerate(models)
                    if mean(model, key) is not None
                ]
                if bars:
                    axes.barh(*zip(*bars, strict=True), height=height, label=TECHNIQUES[key])
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set_yticks([place + 0.4 - height / 2 for place in range(len(models))], models)
            axes.invert_yaxis()
            axes.set_xlabel("accuracy against the baseline, in points")
            axes.legend(fontsize=7)

        return draw

    def beside_teacher(axes: Any) -> None:
        teacher = results["teacher"]["teacher"].rpartition("-")[0]
        for key, marker in (("baseline", "s"), ("distilled", "o")):
            points = [
                (100 * mean(model, key), place)
                for place, model in enumerate(models)
                if mean(model, key) is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker, label=TECHNIQUES[key])
        if mean(teacher, "baseline") is not None:
            axes.axvline(100 * mean(teacher, "baseline"), linestyle=":", label="teacher")
        axes.set_yticks(range(len(models)), models)
        axes.invert_yaxis()
        axes.set_xlabel("accuracy in %")
        axes.legend(fontsize=7)

    lines = []
    for key, title, draw in (
        ("size", "Accuracy over size, all models and techniques", over_size),
        ("distillation", "The impact of distillation", impact("distilled", "distilled-family")),
        ("teacher", "The teacher and its students", beside_teacher),
        (
            "compression",
            "The impact of quantization and of pruning",
            impact("dynamic", "int8", "pruned-once", "pruned", "distilled-pruned"),
        ),
    ):
        save_plot(lambda figure, draw=draw: draw(figure.subplots()), pages / f"{NAME}_{key}.svg", 4)
        lines.append(f"![{title}]({NAME}_{key}.svg)")
    return lines


def main(arguments: list[str] | None = None) -> None:
    run_study(__doc__, NAME, Settings, jobs, page, arguments)


if __name__ == "__main__":
    main()
