"""Representative data: the examples from which the ranges of activations are read."""

from keras_kd._representative.examples import MAX_EXAMPLES, representative_examples
from keras_kd._representative.ranges import InputRange, Ranges, checked_ranges, usual_range

__all__ = [
    "MAX_EXAMPLES",
    "InputRange",
    "Ranges",
    "checked_ranges",
    "representative_examples",
    "usual_range",
]
