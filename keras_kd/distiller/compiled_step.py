"""A compiled step with nothing around it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_kd import _backends


class CompiledStep:
    """A step on the next batch of an iterator, called as `keras.Model.train_function` is.

    The function that Keras makes wraps the logs of each step in an optional value, which Python
    unwraps again, and TensorFlow looks for its trace in each call, by the types of the iterator and
    of all variables. For a small student that takes as long as a convolution. Here the logs come as
    they are, and the trace is looked for once per iterator.

    Args:
        step: takes the data of a batch and returns logs, as `keras.Model.train_step` does.
        jit_compile: whether XLA compiles the step.
        by_keras: Keras' function for the same step, for iterators that are none of `tf.data`, such
            as those of `tf.distribute`, and where `tf.config.run_functions_eagerly` is on.
    """

    def __init__(
        self,
        step: Callable[[Any], dict[str, Any]],
        jit_compile: bool,
        by_keras: Callable[[Any], dict[str, Any]],
    ) -> None:
        step = _backends.without_autograph(step)
        compiled = tf.function(step, jit_compile=jit_compile, reduce_retracing=True)

        def next_step(iterator: Any) -> dict[str, Any]:
            return compiled(keras.tree.map_structure(_none_for_optional, iterator.get_next()))

        self._function = tf.function(_backends.without_autograph(next_step), reduce_retracing=True)
        self._by_keras = by_keras
        self._traced = None
        self._traced_for: Callable[[], Any] = lambda: None

    def __call__(self, iterator: Any) -> dict[str, Any]:
        """The logs of the step on the iterator's next batch.

        Raises:
            tf.errors.OutOfRangeError: if there is none, which ends an epoch.
        """
        if not isinstance(iterator, tf.data.Iterator) or tf.config.functions_run_eagerly():
            return self._by_keras(iterator)
        if self._traced_for() is not iterator:
            self._traced = self._function.get_concrete_function(iterator)
            # The data are the caller's to keep or to let go.
            self._traced_for = weakref.ref(iterator)
        assert self._traced is not None
        return self._traced(iterator)


def _none_for_optional(part: Any) -> Any:
    """Keras' generators yield `None`, which `tf.data` lacks, as an optional without value."""
    return None if isinstance(part, tf.experimental.Optional) else part
