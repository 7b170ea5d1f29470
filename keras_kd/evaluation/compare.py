"""Measuring several models on the same test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._keras import is_keras_model, is_tf_keras_model
from keras_kd._limits import is_watched, watched_batch
from keras_kd.compression.pruning.sparsity import prunable_weights, sparsity
from keras_kd.data import Dataset
from keras_kd.evaluation import metrics
from keras_kd.evaluation.comparison import Comparison, Measurement
from keras_kd.tflite import TFLiteModel, microcontroller

_BATCH_SIZE = 256


def compare(
    models: Mapping[str, Any],
    dataset: Dataset,
    *,
    teacher: Any = None,
    sources: Mapping[str, Any] | None = None,
    on_measured: Callable[[Measurement], None] | None = None,
) -> Comparison:
    """Measure models on the test images of a data set, side by side.

    A `TFLiteModel` is run itself, in LiteRT: its accuracy is the accuracy on the device. If
    tflite-micro is installed and supports it, it also runs there once, to measure its arena.

    Args:
        models: a Keras model or a `keras_kd.tflite.TFLiteModel` for each name. Each gives one
            score per class, logits or probabilities.
        dataset: whose test images are used.
        teacher: the model to agree with. None: the one called "teacher", if there is one.
        sources: the Keras models that files were converted from, by the names in `models`; they
            give the number of parameters and the sparsity.
        on_measured: called with each `Measurement` as soon as it is there, to show progress.

    Returns:
        A `Comparison` with a row for each model, in the order of `models`.

    Raises:
        TypeError: if a model is neither a Keras model nor a `TFLiteModel`.
        ValueError: if there are no models or no test images, or a model's outputs do not have the
            shape (examples, classes).
    """
    _check(models, dataset, sources or {})
    teacher = models.get("teacher") if teacher is None else teacher
    teacher_scores = None if teacher is None else _scores("teacher", teacher, dataset)
    rows = []
    for name, model in models.items():
        source = (sources or {}).get(name, model)
        scores = teacher_scores if model is teacher else _scores(name, model, dataset)
        row = Measurement(
            name=name,
            **_quality(scores, dataset.y_test, teacher_scores),
            **_weights(source),
            **_file(model, dataset.x_test[:1]),
        )
        rows.append(row)
        if on_measured is not None:
            on_measured(row)
    return Comparison(
        dataset=dataset.name,
        examples=len(dataset.y_test),
        class_names=dataset.class_names,
        rows=tuple(rows),
    )


def _check(models: Mapping[str, Any], dataset: Dataset, sources: Mapping[str, Any]) -> None:
    if not models:
        raise ValueError(problem("no models", "at least one", "pass {'student': student}"))
    if not len(dataset.y_test):
        raise ValueError(
            problem("a data set without test images", "at least one", "pass one that has some")
        )
    if len(dataset.x_test) != len(dataset.y_test):
        raise ValueError(
            problem(
                f"{len(dataset.x_test)} test images and {len(dataset.y_test)} labels",
                "a label for each image",
                "cut both to the same length",
            )
        )
    largest = int(dataset.y_test.max())
    if largest >= dataset.number_of_classes:
        raise ValueError(
            problem(
                f"the label {largest} in a data set of {dataset.number_of_classes} classes",
                f"labels from 0 to {dataset.number_of_classes - 1}",
                "name all classes, or pass the labels of these models",
            )
        )
    unknown = sorted(set(sources) - set(models))
    if unknown:
        raise ValueError(
            problem(
                f"sources for {unknown}", "names of models", "use the same names in both mappings"
            )
        )


def _scores(name: str, model: Any, dataset: Dataset) -> np.ndarray:
    if isinstance(model, TFLiteModel):
        scores = model.predict(dataset.x_test)
    elif is_keras_model(model) or is_tf_keras_model(model):
        scores = _predicted(name, model, dataset.x_test)
    else:
        raise TypeError(
            problem(
                f"{name!r} of type {type(model).__name__}",
                "a Keras model or a keras_kd.tflite.TFLiteModel",
                "load the model first",
            )
        )
    expected = (len(dataset.x_test), dataset.number_of_classes)
    if not isinstance(scores, np.ndarray) or scores.shape != expected:
        received = getattr(scores, "shape", None) or type(scores).__name__
        raise ValueError(
            problem(
                f"outputs {received} of {name!r} for {dataset.name}",
                f"one array of shape {expected}",
                "compare classifiers of this data set's classes with one output",
            )
        )
    return scores


def _predicted(name: str, model: Any, images: np.ndarray) -> Any:
    """What the model predicts; a process that another one watches is watched batch by batch."""
    if not is_watched():
        return model.predict(images, batch_size=_BATCH_SIZE, verbose=0)
    parts = []
    for start in range(0, len(images), _BATCH_SIZE):
        with watched_batch(name, min(_BATCH_SIZE, len(images) - start)):
            batch = images[start : start + _BATCH_SIZE]
            parts.append(model.predict(batch, batch_size=_BATCH_SIZE, verbose=0))
    # Several outputs are no array, and are refused as they are.
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else parts[0]


def _quality(
    scores: np.ndarray, labels: np.ndarray, teacher_scores: np.ndarray | None
) -> dict[str, Any]:
    quality = {
        "accuracy": metrics.accuracy(scores, labels),
        "f1": metrics.macro_f1(scores, labels),
        "accuracy_per_class": metrics.accuracy_per_class(scores, labels),
    }
    if teacher_scores is not None:
        quality["agreement"] = metrics.agreement(scores, teacher_scores)
        quality["divergence"] = metrics.divergence(scores, teacher_scores)
    return quality


def _weights(source: Any) -> dict[str, Any]:
    if isinstance(source, TFLiteModel):
        return {}
    can_be_pruned = any(True for _ in prunable_weights(source))
    return {
        "parameters": int(source.count_params()),
        "sparsity": sparsity(source).overall if can_be_pruned else None,
    }


def _file(model: Any, example: np.ndarray) -> dict[str, Any]:
    if not isinstance(model, TFLiteModel):
        return {}
    return {
        "bytes": model.size,
        "compressed_bytes": model.compressed_size,
        "latency_microseconds": model.latency().median,
        "arena_bytes": _arena_bytes(model, example),
    }


def _arena_bytes(model: TFLiteModel, example: np.ndarray) -> int | None:
    if not microcontroller.is_installed():
        return None
    try:
        return microcontroller.run(model, example).arena_bytes
    except ValueError:
        # TFLM refuses what is made for phones only, hybrid operators for one: no arena then.
        return None
