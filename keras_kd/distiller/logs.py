"""Values that `keras.callbacks.TensorBoard` shows of a distillation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_kd import _backends
from keras_kd._fitting import listed, own


class DistillationLogs(keras.callbacks.Callback):
    """Adds to the logs of each epoch what a `Distiller` does beside its losses.

    `fit` of a Distiller adds it before `keras.callbacks.TensorBoard`; give it yourself, before
    the others, for `CSVLogger` and other callbacks. The logs get

    - `<loss>_loss`: each distillation loss before its weight, by the name of its class;
    - `<loss>_weight`, `<loss>_temperature`, `student_loss_weight`;
    - `sparsity/<kernel>`: the share of zeros in each kernel of the student, 0 to 1;
    - `examples_per_second`: in training, without validation.

    Example:
        ```python
        board = keras.callbacks.TensorBoard("runs/board")
        distiller.fit(x, y, epochs=5, callbacks=[board])
        ```
    """

    def __init__(self) -> None:
        super().__init__()
        self._began = 0.0
        self._rate: float | None = None

    def set_model(self, model: Any) -> None:
        """Have the steps of `model` measure each loss, if it is a Distiller."""
        super().set_model(model)
        if hasattr(model, "show_terms"):
            model.show_terms()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin to measure the time."""
        self._began, self._rate = time.perf_counter(), None

    def on_test_begin(self, logs: Any = None) -> None:
        """End it before validation."""
        self._measure()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add to the logs."""
        self._measure()
        if logs is None or not hasattr(self.model, "student"):
            return
        for name, value in self.model._objective.settings.items():
            if not callable(value):
                logs[name] = float(value)
        logs.update(sparsities(self.model.student))
        logs["examples_per_second"] = self._rate

    def _measure(self) -> None:
        if self._rate is None and hasattr(self.model, "total_loss_tracker"):
            count = float(_backends.value_of(self.model.total_loss_tracker.count))
            self._rate = count / max(time.perf_counter() - self._began, 1e-9)


def with_logs(callbacks: Any) -> Any:
    """The callbacks of `fit`, with `DistillationLogs` before the first TensorBoard."""
    given = [own(item) for item in listed(callbacks)]
    boards = [number for number, item in enumerate(given) if type(item).__name__ == "TensorBoard"]
    is_list_of_keras = hasattr(callbacks, "callbacks")
    if not boards or is_list_of_keras or any(isinstance(i, DistillationLogs) for i in given):
        return callbacks
    found = listed(callbacks)
    return [*found[: boards[0]], DistillationLogs(), *found[boards[0] :]]


def sparsities(student: Any) -> dict[str, float]:
    """The share of zeros in each kernel, by names for the logs; masked weights count as zeros."""
    return {f"sparsity/{name}": float(np.mean(values == 0.0)) for name, values in _kernels(student)}


def _kernels(student: Any) -> Iterator[tuple[str, np.ndarray]]:
    masks = {}
    for layer in getattr(student, "submodules", ()):
        for weight, mask, _ in getattr(layer, "pruning_vars", ()):
            masks[id(weight)] = np.asarray(mask)
    for weight in student.trainable_weights:
        if len(weight.shape) > 1:
            name = getattr(weight, "path", weight.name).split(":")[0]
            yield (
                name.removeprefix(f"{student.name}/"),
                _backends.value_of(weight) * masks.get(id(weight), 1.0),
            )
