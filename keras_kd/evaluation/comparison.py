"""What was measured on several models, side by side."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._files import replacing
from keras_kd._json import json_value
from keras_kd._tables import row_named

if TYPE_CHECKING:
    from rich.table import Table

    from keras_kd.evaluation.report import Page


@dataclass(frozen=True)
class Measurement:
    """One model on one data set. None: does not apply, or was not asked for.

    Attributes:
        name: what the model is called.
        accuracy: share of test images it gets right, 0..1.
        f1: macro F1, 0..1.
        accuracy_per_class: accuracy on the images of each class, 0..1.
        agreement: share of test images on which it chooses the teacher's class, 0..1.
        divergence: mean KL(teacher || model), nats.
        parameters: number of weights of the Keras model.
        sparsity: share of zeros in the kernels of the Keras model, 0..1.
        bytes: size of the `.tflite`.
        compressed_bytes: size of the `.tflite` after gzip.
        latency_microseconds: median time for one image in LiteRT, one thread.
        arena_bytes: memory that TensorFlow Lite for Microcontrollers takes for tensors.
    """

    name: str
    accuracy: float
    f1: float
    accuracy_per_class: tuple[float, ...]
    agreement: float | None = None
    divergence: float | None = None
    parameters: int | None = None
    sparsity: float | None = None
    bytes: int | None = None
    compressed_bytes: int | None = None
    latency_microseconds: float | None = None
    arena_bytes: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Measurements of several models on the same test images.

    Attributes:
        dataset: the name of the data set.
        examples: how many test images there were.
        class_names: one name per class.
        rows: one `Measurement` per model, in the order they were given.
    """

    dataset: str
    examples: int
    class_names: tuple[str, ...]
    rows: tuple[Measurement, ...]

    def __getitem__(self, name: str) -> Measurement:
        """The measurement of the model called `name`.

        Raises:
            KeyError: if there is none.
        """
        return row_named(self.rows, name)

    def table(self) -> Table:
        """A `rich` table; `rich.print(comparison.table())` shows it."""
        from keras_kd.evaluation.table import table

        return table(self)

    def __str__(self) -> str:
        from keras_kd.evaluation.table import as_text

        return as_text(self)

    def to_dict(self) -> dict[str, Any]:
        """The comparison in types that JSON knows; NaN becomes None."""
        return json_value(asdict(self))

    def save_json(self, path: str | Path) -> Path:
        """Write `to_dict()` to a file and return its path."""
        path = Path(path)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        return path

    def save_report(self, path: str | Path, page: Page | None = None) -> Path:
        """Write an HTML page that needs no other file: the table, with texts and plots around it.

        Args:
            path: where it goes.
            page: the texts and plots. None: a title and accuracy over size.

        Returns:
            The path of the page.

        Raises:
            ModuleNotFoundError: without the `report` extra (jinja2, matplotlib).
        """
        from keras_kd.evaluation.report import save_report

        return save_report(self, path, page)
