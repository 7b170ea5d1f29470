"""The Distiller: how a step runs, what it minimises, what it saves."""

from keras_kd.distiller.distiller import Distiller

__all__ = ["Distiller"]
