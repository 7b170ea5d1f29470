"""The measurements of a pipeline, step by step."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from keras_kd._json import json_value
from keras_kd._tables import Report, Table
from keras_kd.compression.report import kernel_values, sparsity_of


@dataclass(frozen=True)
class Stage:
    """What was measured of the student after a step.

    Attributes:
        name: the kind of step, or "start".
        epochs: how long the step was trained.
        parameters: number of weights of the plain student.
        sparsity: share of zeros in the weights that pruning acts on; None where there are none.
        distinct_values: the largest number of distinct values in a clustered kernel (in one of its
            channels, where these have clusters of their own); None where there is none.
        compressed_bytes: the float32 weights after gzip, in bytes.
        metrics: the loss and metrics of `evaluate` on the validation data; empty without.
        seconds: how long the step took.
    """

    name: str
    epochs: int
    parameters: int
    sparsity: float | None
    distinct_values: int | None
    compressed_bytes: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class PipelineResult(Report):
    """The student of the last step, and what was measured after each.

    Attributes:
        student: quantization-aware (a `tf_keras.Model`) if that was the last step, otherwise a
            plain Keras 3 model. `keras_kd.tflite.convert` takes both.
        stages: the student at the start, then after each step.
    """

    student: Any
    stages: tuple[Stage, ...]

    def _parts(self) -> Sequence[Table | str]:
        metrics = list(dict.fromkeys(name for stage in self.stages for name in stage.metrics))
        # Of the losses the table shows the total only.
        metrics = [name for name in metrics if name == "loss" or "loss" not in name]
        header = ["step", "epochs", "parameters", "sparsity", "values", "gzip bytes", *metrics]
        rows = [
            [
                stage.name,
                str(stage.epochs),
                f"{stage.parameters:,}",
                "-" if stage.sparsity is None else f"{stage.sparsity:.1%}",
                "-" if stage.distinct_values is None else f"{stage.distinct_values:,}",
                f"{stage.compressed_bytes:,}",
                *(
                    f"{stage.metrics[name]:.4f}" if name in stage.metrics else "-"
                    for name in metrics
                ),
            ]
            for stage in self.stages
        ]
        return [Table(header, rows)]

    def _records(self) -> Sequence[Mapping[str, Any]]:
        return [{**asdict(stage), **stage.metrics} for stage in self.stages]

    def to_dict(self) -> dict[str, Any]:
        """The stages, in the types of JSON."""
        return {"stages": json_value(self.stages)}


def measure(
    name: str, epochs: int, plain: keras.Model, metrics: Mapping[str, float], seconds: float
) -> Stage:
    """Measure a plain student."""
    counts = [count for count in map(_distinct_values, kernel_values(plain)) if count is not None]
    return Stage(
        name=name,
        epochs=epochs,
        parameters=int(plain.count_params()),
        sparsity=sparsity_of(plain),
        distinct_values=max(counts, default=None),
        compressed_bytes=_compressed_bytes(plain),
        metrics=dict(metrics),
        seconds=seconds,
    )


def _distinct_values(kernel: np.ndarray) -> int | None:
    """How many values a kernel, or the fullest of its channels, has; None if it has no clusters."""
    channels = np.moveaxis(kernel, -1, 0)
    for parts in ([kernel], channels):
        others = [part[part != 0] for part in parts]
        counts = [np.unique(part).size for part in others]
        # A sparse kernel repeats its zero; a clustered one repeats the other values as well.
        if all(2 * count <= part.size for count, part in zip(counts, others, strict=True)):
            return max(
                count + int(part.size > other.size)
                for count, part, other in zip(counts, parts, others, strict=True)
            )
    return None


def _compressed_bytes(plain: keras.Model) -> int:
    content = b"".join(np.asarray(weight).tobytes() for weight in plain.weights)
    return len(gzip.compress(content, mtime=0))
