"""Losses on hidden features, one example at a time."""

from keras_kd.losses.features.hint import Hint

__all__ = ["Hint"]
