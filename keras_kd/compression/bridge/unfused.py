"""Batch normalization of tf_keras as Keras 3 computes it. Importing this imports tf_keras."""

from __future__ import annotations

from typing import Any

import tf_keras


class BatchNormalization(tf_keras.layers.BatchNormalization):
    """`fused=False`, which makes tf_keras compute as Keras 3 does, and which copies keep.

    The fused kernel's moving variance is N / (N - 1) times that of Keras 3. TF-MOT knows the class
    by its name, so it has its base's name and is not registered under another.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "fused": False})

    def get_config(self) -> dict[str, Any]:
        """The configuration with `fused`, which tf_keras leaves out."""
        return {**super().get_config(), "fused": False}
