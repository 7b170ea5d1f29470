"""Representative data: the examples from which the ranges of activations are read."""

from typing import TYPE_CHECKING

from keras_kd._lazy import lazy_names

if TYPE_CHECKING:
    from keras_kd._representative.examples import MAX_EXAMPLES, representative_examples
    from keras_kd._representative.ranges import InputRange, Ranges, checked_ranges, usual_range
    from keras_kd._representative.sampling import some_of

__all__ = [
    "MAX_EXAMPLES",
    "InputRange",
    "Ranges",
    "checked_ranges",
    "representative_examples",
    "some_of",
    "usual_range",
]

# A range is checked before Keras is needed.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "InputRange": "ranges",
        "MAX_EXAMPLES": "examples",
        "Ranges": "ranges",
        "checked_ranges": "ranges",
        "representative_examples": "examples",
        "some_of": "sampling",
        "usual_range": "ranges",
    },
)
