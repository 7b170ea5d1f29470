"""Differences between TensorFlow, JAX and PyTorch as backends of Keras 3.

Steps of training are in `distiller/`, a module for each backend. All the rest of the package is
written in `keras.ops`, or works on TensorFlow only and calls `check_tensorflow`.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem

TENSORFLOW, JAX, TORCH = "tensorflow", "jax", "torch"
# Notes on tensors that take no attributes, such as those of JAX: by name, then by id.
_NOTES: dict[str, dict[int, Any]] = {}


def is_tensorflow() -> bool:
    """Whether Keras 3 computes with TensorFlow."""
    return keras.backend.backend() == TENSORFLOW


def check_backend() -> None:
    """Refuse to train on a backend that this package was not tested on.

    Raises:
        ValueError: if Keras runs on none of the three.
    """
    backend = keras.backend.backend()
    if backend not in (TENSORFLOW, JAX, TORCH):
        raise problem(
            f"the Keras backend {backend!r}",
            "TensorFlow, JAX or PyTorch",
            "set the environment variable KERAS_BACKEND=tensorflow before importing keras",
        )


def check_tensorflow(what: str) -> None:
    """Refuse what works with TensorFlow only.

    Args:
        what: the function or package, in the words of the caller.

    Raises:
        ImportError: if Keras runs on another backend.
    """
    backend = keras.backend.backend()
    if backend != TENSORFLOW:
        raise problem(
            f"the Keras backend {backend!r} for {what}",
            "TensorFlow, with which TF-MOT and the TFLite converter work",
            "save the student, distiller.student.save('student.keras'), and run keras-kd convert "
            "student.keras, or use a process with KERAS_BACKEND=tensorflow",
            kind=ImportError,
        )


def runs_eagerly() -> bool:
    """Whether tensors have values here, and Python code runs in every step."""
    if is_tensorflow():
        import tensorflow as tf

        return tf.executing_eagerly()
    # Gradients of JAX are taken of traced functions, with run_eagerly, too.
    return keras.backend.backend() == TORCH


def has_no_values(tensors: Any) -> bool:
    """Whether tensors of PyTorch represent shapes only, as where Keras learns of those."""
    return any(
        getattr(getattr(tensor, "device", None), "type", None) == "meta"
        for tensor in keras.tree.flatten(tensors)
    )


def value_of(variable: Any) -> np.ndarray:
    """The value of a variable of either Keras, outside of compiled functions."""
    tensor = variable.value if isinstance(variable, keras.Variable) else variable
    # Without NumPy's warning about variables that lack its newest arguments.
    return tensor.numpy() if is_tensorflow() else keras.ops.convert_to_numpy(tensor)


def note(tensor: Any, name: str, value: Any) -> None:
    """Note something of a tensor, for as long as it exists, for `noted`."""
    try:
        setattr(tensor, name, value)
    except AttributeError:
        notes = _NOTES.setdefault(name, {})
        if id(tensor) not in notes:
            weakref.finalize(tensor, notes.pop, id(tensor), None)
        notes[id(tensor)] = value


def noted(tensor: Any, name: str) -> Any:
    """What was noted of a tensor; `None` where nothing was."""
    value = getattr(tensor, name, None)
    return _NOTES.get(name, {}).get(id(tensor)) if value is None else value


def mask_of(tensor: Any) -> Any:
    """The mask that a Masking or Embedding layer upstream gave a tensor, or `None`."""
    mask = getattr(tensor, "_keras_mask", None)
    if mask is None and keras.backend.backend() == JAX:
        # Where Keras keeps what tensors of JAX cannot hold.
        from keras.src.backend.common.masking import get_keras_mask

        return get_keras_mask(tensor)
    return mask


def new_variable(
    shape: tuple[int, ...], value: float | keras.initializers.Initializer, name: str
) -> keras.Variable:
    """A trainable variable, also where a step is being compiled.

    Args:
        shape: its shape.
        value: one number that fills it, or an initializer.
        name: its name.
    """
    is_initializer = isinstance(value, keras.initializers.Initializer)
    initializer = value if is_initializer else keras.initializers.Constant(value)
    with outside_of_steps():
        return keras.Variable(initializer, shape=shape, dtype="float32", name=name)


def outside_of_steps() -> Any:
    """A context in which variables are made while TensorFlow traces a step."""
    if not is_tensorflow():
        return nullcontext()
    import tensorflow as tf

    return tf.init_scope()


def call_numpy(function: Callable[..., Any], inputs: list[Any], specs: list[Any]) -> list[Any]:
    """Call a function of arrays from a step that may be compiled.

    Args:
        function: takes one array per input and returns one per spec.
        inputs: tensors.
        specs: tensors without values, with the shapes and dtypes of what the function returns.
            A batch of unknown size is that of the first input.
    """
    if keras.backend.backend() == TORCH:
        arrays = function(*map(keras.ops.convert_to_numpy, inputs))
        return [keras.ops.convert_to_tensor(array) for array in arrays]
    if keras.backend.backend() == JAX:
        return _call_from_jax(function, inputs, specs)
    return call_from_tensorflow(function, inputs, specs)


def call_from_tensorflow(
    function: Callable[..., Any], inputs: list[Any], specs: list[Any]
) -> list[Any]:
    """`call_numpy` in functions that TensorFlow compiles, such as those of `tf.data`."""
    import tensorflow as tf

    outputs = tf.numpy_function(function, inputs, [spec.dtype for spec in specs])
    # A list of one comes back as a tensor where nothing is compiled.
    outputs = keras.tree.flatten(outputs)
    for output, spec in zip(outputs, specs, strict=True):
        # The shapes of results of Python are unknown to TensorFlow.
        output.set_shape(spec.shape)
    return outputs


def _call_from_jax(function: Callable[..., Any], inputs: list[Any], specs: list[Any]) -> list[Any]:
    import jax  # pyright: ignore[reportMissingImports]

    size = inputs[0].shape[0]
    shapes = []
    for spec in specs:
        shape = [size if spec.shape[0] is None else spec.shape[0], *spec.shape[1:]]
        if None in shape:
            raise problem(
                f"outputs of the shape {tuple(spec.shape)} on JAX",
                "sizes that are known before the function runs",
                "give the size of every axis but the batch",
            )
        shapes.append(jax.ShapeDtypeStruct(shape, spec.dtype))

    def called(*arrays: Any) -> list[np.ndarray]:
        return list(function(*map(np.asarray, arrays)))

    return list(jax.pure_callback(called, shapes, *inputs))


@contextmanager
def numpy_errors_in_one_line() -> Iterator[None]:
    """Raise the `problem` that a function of `call_numpy` raised, with its own text.

    TensorFlow and JAX wrap it into another error, with twenty lines of traceback as text.

    Raises:
        ValueError: in the place of that error.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("keras_kd", "builtins"):
            raise
        end = r"(?:\nTraceback|\n\n|\n?$)"
        own = re.search(r"(?:Type|Value)Error: (Received .* To fix it: .*?)" + end, str(error))
        if own is None:
            raise
        raise ValueError(own[1]) from None


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """`keras.ops.custom_gradient` for a function of one tensor, alike on all backends.

    Args:
        function: returns its result, and a function from the gradient by the result to that by the
            tensor. PyTorch's passes the tensor, too.
    """

    @keras.ops.custom_gradient
    def called(tensor: Any) -> tuple[Any, Callable[..., Any]]:
        result, gradient = function(tensor)

        def of_upstream(*args: Any, upstream: Any = None) -> Any:
            return gradient(args[0] if upstream is None else upstream)

        return result, of_upstream

    return called


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors that changes no variable, compiled where the backend compiles."""
    if is_tensorflow():
        import tensorflow as tf

        return tf.function(function)
    if keras.backend.backend() == TORCH:
        import torch  # pyright: ignore[reportMissingImports]

        return torch.no_grad()(function)
    import jax  # pyright: ignore[reportMissingImports]

    return jax.jit(function)


def without_autograph(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that AutoGraph leaves as it is, which tf_keras applies to layers.

    To convert one can take seconds.
    """
    if not is_tensorflow():
        return function
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def traced_once(function: Any) -> Any:
    """A step of Keras that TensorFlow need not trace twice.

    TensorFlow traces a function again if its first trace made variables, such as those of an
    optimizer and of metrics. Those that are made in `tf.init_scope` are none of the function's own,
    so that here they are no reason for a second trace.
    """
    import tensorflow as tf

    def made(create: Any, **options: Any) -> Any:
        if tf.executing_eagerly():
            options["experimental_enable_variable_lifting"] = False
        return create(**options)

    @functools.wraps(function)
    def called(*args: Any) -> Any:
        if tf.distribute.has_strategy():
            return function(*args)
        with tf.variable_creator_scope(made):
            return function(*args)

    return called
