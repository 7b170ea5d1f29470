"""The quickstart: train, distill, prune, quantize, convert, measure, report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from keras_kd import compression, tflite
from keras_kd._files import check_output, filling
from keras_kd._json import json_value
from keras_kd._progress import Progress
from keras_kd._state_files import directory_of, using
from keras_kd.data import Splits
from keras_kd.evaluation import Comparison, compare, save_report
from keras_kd.evaluation.extra import check_report_extra
from keras_kd.evaluation.machine import machine
from keras_kd.quickstart import variants
from keras_kd.quickstart.page import page
from keras_kd.quickstart.settings import Settings
from keras_kd.quickstart.training import CALIBRATION_IMAGES, Training, compute_deterministically

_UNFINISHED = "unfinished"


def run(settings: Settings, console: Console | None = None) -> Comparison:
    """Train a teacher and students on digits, convert and measure them, and write a report.

    An interrupted run leaves its trainings in `unfinished/` there. The same call resumes them at
    the epoch that was running, with the same results, and removes them at the end. Trainings of
    other settings, versions or processors, which would give other results, are ignored.

    Writes into `settings.output`: `report.html`, `results.json`, the models as `.tflite` and
    `.keras` in `models/`, and the smallest one as C source in `c/` (with tflite-micro installed).

    TensorFlow computes deterministically from here on, for the rest of the process: that is what
    makes the same seed give the same table, apart from measured times.

    Args:
        settings: what to do, and how much of it.
        console: where progress and the table are shown; None: standard output.

    Returns:
        What was measured on each `.tflite`.

    Raises:
        BlockingIOError: if another one is running with this output.
        FileNotFoundError: if the data set or the place for the results is not there.
        ModuleNotFoundError: if an extra that is needed is not installed.
        OSError: if the results cannot be written.
    """
    console = console or Console()
    check_output(settings.output)
    check_report_extra()
    dataset = settings.load()
    compute_deterministically()
    with using(settings.output / _UNFINISHED, "a quickstart"):
        return _work(settings, dataset, console)


def _work(settings: Settings, dataset: Splits, console: Console) -> Comparison:
    stages = _Stages(console)
    trained = _train(settings, dataset, stages)
    plain = {name: compression.strip(model) for name, model in trained.items()}
    with filling(settings.output) as directory:
        files = _convert(trained, dataset, stages)
        with stages.stage("run on the test images", len(files)):
            comparison = compare(
                files,
                dataset.x_test,
                dataset.y_test,
                class_names=dataset.class_names,
                name=dataset.name,
                baseline=variants.DISTILLED,
                sources=plain,
                on_measured=stages.advance,
            )
        _write(directory, settings, plain, files, comparison, dataset.x_test)
    shutil.rmtree(settings.output / _UNFINISHED, ignore_errors=True)
    # The table keeps its width where the console is narrower than it.
    console.print(str(comparison), soft_wrap=True, markup=False, highlight=False)
    _say_where(console, settings.output)
    return comparison


class _Stages:
    """Shows one stage of the work after the other.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._current: Progress | None = None

    @contextmanager
    def stage(self, description: str, steps: int) -> Iterator[None]:
        """Show the work done in the body as `steps` steps, counted by `advance`."""
        with Progress(description, steps, console=self._console) as self._current:
            yield

    def advance(self, *_: object) -> None:
        """Count one step of the current stage as done."""
        if self._current is not None:
            self._current.advance()


def _train(settings: Settings, dataset: Splits, stages: _Stages) -> dict[str, Any]:
    """All models by their names, in the form in which they are converted."""
    directory = directory_of(settings.output / _UNFINISHED, _identity(settings))
    training = Training(dataset, settings.seed, stages.advance, directory)
    epochs, fine_tuning = settings.epochs, settings.fine_tuning_epochs
    with stages.stage("train the teacher", epochs):
        teacher = training.teacher(epochs)
    with stages.stage("train the student alone", epochs):
        alone = training.alone(epochs)
    with stages.stage("distill", epochs):
        distilled = training.distilled(teacher, epochs)
    with stages.stage("distill and prune", fine_tuning):
        pruned = training.pruned(teacher, distilled, fine_tuning)
    with stages.stage("distill, quantization-aware", fine_tuning):
        quantized = training.quantization_aware(teacher, distilled, fine_tuning)
    with stages.stage("distill the pruned one, quantization-aware", fine_tuning):
        smallest = training.quantization_aware(
            teacher, pruned, fine_tuning, "pruned_quantization_aware"
        )
    return {
        variants.TEACHER: teacher,
        variants.ALONE: alone,
        variants.DISTILLED: distilled,
        variants.DISTILLED_INT8: distilled,
        variants.PRUNED: pruned,
        variants.QUANTIZATION_AWARE: quantized,
        variants.SMALLEST: smallest,
    }


def _convert(
    trained: dict[str, Any], dataset: Splits, stages: _Stages
) -> dict[str, tflite.TFLiteModel]:
    files = {}
    with stages.stage("convert to .tflite", len(variants.ALL)):
        for variant in variants.ALL:
            files[variant.name] = tflite.convert(
                trained[variant.name],
                variant.quantization,
                dataset.x_train[:CALIBRATION_IMAGES] if variant.calibrated else None,
                target=variant.target,
            )
            stages.advance()
    return files


def _write(
    directory: Path,
    settings: Settings,
    plain: dict[str, keras.Model],
    files: dict[str, tflite.TFLiteModel],
    comparison: Comparison,
    x: np.ndarray,
) -> None:
    models = directory / "models"
    models.mkdir()
    for variant in variants.ALL:
        files[variant.name].save(models / f"{variant.file_name}.tflite")
        if not variant.calibrated:
            plain[variant.name].save(models / f"{variant.file_name}.keras")
    if tflite.microcontroller.is_installed():
        tflite.microcontroller.write_c_source(
            files[variants.SMALLEST],
            directory / "c",
            name="student",
            arena_bytes=comparison[variants.SMALLEST].arena_bytes,
        )
    results = {"settings": _described(settings), **comparison.to_dict()}
    (directory / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    save_report(
        comparison, directory / "report.html", page(comparison, settings.epochs, settings.seed, x)
    )


def _described(settings: Settings) -> dict[str, Any]:
    """The settings as JSON types."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(settings).items()
    }


def _identity(settings: Settings) -> Any:
    """What the weights of the trained models depend on."""
    chosen = _described(settings)
    # The directory may have been moved, and its path may be relative.
    del chosen["output"]
    return json_value({**chosen, "machine": machine()})


def _say_where(console: Console, output: Path) -> None:
    places = {
        "Report": output / "report.html",
        "Numbers": output / "results.json",
        "Models": output / "models",
        "C source": output / "c",
    }
    for name, path in places.items():
        if path.exists():
            console.print(f"{name + ':':9} {path}", soft_wrap=True, markup=False, highlight=False)
