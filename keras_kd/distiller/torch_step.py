"""The steps of a Distiller on PyTorch."""

from __future__ import annotations

from typing import Any

import keras
import torch  # pyright: ignore[reportMissingImports]

from keras_kd._checks import problem
from keras_kd.distiller.steps import Steps


class TorchTeaching(Steps):
    """Steps that run operation by operation."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step: one forward pass of each model, then gradients for the student only."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = list(self.trainable_weights)
        for weight in weights:
            weight.value.grad = None
        loss, outputs, sample_weight = self._loss_of_batch(x, y, sample_weight, torch.no_grad)
        # Losses may have made their weights for the first batch.
        weights = list(self.trainable_weights)
        scheduled = self._scheduled_values()
        self.optimizer.scale_loss(loss).backward()
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
            if self.teacher is not None:
                self.teacher.after_step(self.student, self._step())
            return self._results(loss, x, y, outputs, sample_weight) | scheduled

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of evaluation: the same losses, and no weight changes."""
        return self._test_batch(data)

    def _check_backend(self) -> None:
        if keras.distribution.distribution() is not None:
            raise problem(
                "a distribution of keras.distribution, by which PyTorch trains on one device",
                "one device",
                "call keras.distribution.set_distribution(None), or train on JAX",
            )
