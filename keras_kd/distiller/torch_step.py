"""The steps of a Distiller on PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import torch  # pyright: ignore[reportMissingImports]

from keras_kd import _backends
from keras_kd._checks import problem
from keras_kd.distiller.teaching import Teaching


class TorchTeaching(Teaching):
    """Steps that run operation by operation."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step: one forward pass of each model, then gradients for the student only."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = list(self.trainable_weights)
        for weight in weights:
            weight.value.grad = None
        loss, outputs, sample_weight = self._loss_of_batch(x, y, sample_weight, torch.no_grad)
        # Losses with weights of their own may have made them for the first batch.
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

    def make_train_function(self, force: bool = False) -> Callable[..., Any]:
        """A step, followed by a check of the teacher's outputs.

        Raises:
            ValueError: if the student has nothing to train.
        """
        self._check_step()
        _check_distribution()
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._watched(self.train_function)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Callable[..., Any]:
        """An evaluation step, followed by a check of the teacher's outputs."""
        self._settle_terms()
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = self._watched(self.test_function)
        return self.test_function

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(data: Any) -> dict[str, Any]:
            with _backends.numpy_errors_in_one_line():
                logs = function(data)
            self._check_logs(logs)
            return logs

        return step


def _check_distribution() -> None:
    if keras.distribution.distribution() is not None:
        raise problem(
            "a distribution of keras.distribution, by which PyTorch trains on one device",
            "one device",
            "call keras.distribution.set_distribution(None), or train on JAX",
        )
