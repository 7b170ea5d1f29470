"""The search for the best student that fits a device."""

from keras_kd import _backends

# Before the modules that import TensorFlow.
_backends.check_tensorflow(__name__)

# ruff: noqa: E402
from keras_kd._lazy import publish
from keras_kd.search.candidates import Candidate, NothingFits
from keras_kd.search.fit import fit_to_device
from keras_kd.search.forms import Form
from keras_kd.search.measuring import Cost
from keras_kd.search.result import FitResult

__all__ = ["Candidate", "Cost", "FitResult", "Form", "NothingFits", "fit_to_device"]

publish(__name__, __all__)
