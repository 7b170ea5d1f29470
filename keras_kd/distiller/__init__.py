"""The Distiller: steps, total loss, saving."""

from typing import TYPE_CHECKING

from keras_kd._lazy import lazy_names
from keras_kd.distiller.distiller import Distiller

if TYPE_CHECKING:
    from keras_kd.distiller.tf_keras_distiller import TfKerasDistiller

__all__ = ["Distiller", "TfKerasDistiller"]

__getattr__, __dir__ = lazy_names(__name__, {"TfKerasDistiller": "tf_keras_distiller"})
# Users find it one level higher.
Distiller.__module__ = "keras_kd"
