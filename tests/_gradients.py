"""The value of a function and its gradients, on each backend of Keras."""

import keras
import numpy as np


def value_and_gradients(function, tensors, variables=()):
    """A scalar, and its gradients with respect to tensors and variables.

    Args:
        function: takes a list of tensors.
        tensors: a list of arrays.
        variables: variables of Keras that the function reads.

    Returns:
        The value, one array for each tensor, one for each variable; zeros where the value does not
        depend on it.
    """
    by_backend = {"tensorflow": _by_tape, "jax": _by_tracing, "torch": _by_backward}
    tensors = [keras.ops.convert_to_tensor(tensor) for tensor in tensors]
    value, gradients = by_backend[keras.backend.backend()](function, tensors, list(variables))
    sources = [*tensors, *variables]
    arrays = [
        np.zeros(source.shape) if one is None else np.asarray(keras.ops.convert_to_numpy(one))
        for one, source in zip(gradients, sources, strict=True)
    ]
    return float(value), arrays[: len(tensors)], arrays[len(tensors) :]


def _by_tape(function, tensors, variables):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(tensors)
    sources = [*tensors, *(variable.value for variable in variables)]
    return value, tape.gradient(value, sources)


def _by_tracing(function, tensors, variables):
    import jax

    def stateless(tensors, values):
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return function(tensors)

    values = [variable.value for variable in variables]
    # One program compiles faster than each of its operations.
    value, (first, second) = jax.jit(jax.value_and_grad(stateless, (0, 1)))(tensors, values)
    return value, [*first, *second]


def _by_backward(function, tensors, variables):
    sources = [tensor.detach().clone() for tensor in tensors]
    tensors = [
        source.requires_grad_() if source.is_floating_point() else source for source in sources
    ]
    for variable in variables:
        variable.value.grad = None
    value = function(tensors)
    if value.requires_grad:
        value.backward()
    gradients = [tensor.grad for tensor in tensors]
    return value.detach(), gradients + [variable.value.grad for variable in variables]
