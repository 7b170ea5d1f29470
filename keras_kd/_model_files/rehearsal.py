"""The size of a model, measured by building it without its weights."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_kd._graphs import graph_steps
from keras_kd._memory import check_expansion, check_results, most_result_bytes, size_of


def check_size(config: dict[str, Any], custom_objects: dict[str, Any], stored: int) -> None:
    """Refuse a model that would take far more memory than its file, before it takes any.

    A config of some hundred bytes can define a layer of a trillion units, which Keras would fill
    with random numbers before it looks at the weights.

    Args:
        config: what a file contains of its model.
        custom_objects: as for `keras.saving.load_model`.
        stored: how many bytes the whole file has.

    Raises:
        ValueError: if its weights, or what its layers return for one example, are out of
            proportion.
    """
    _check_shapes(config)
    refusals: list[ValueError] = []

    def rehearse() -> None:
        try:
            with (
                keras.StatelessScope(initialize_variables=False),
                small_results(stored),
            ):
                model = _build(config, custom_objects)
                _check_results(model)
        except _OutOfProportionError as error:
            refusals.append(error)
        except Exception:
            # Keras raises the other errors when it loads the model.
            return

    # Keras keeps its scopes, the names it has given and the variables that it has yet to fill by
    # thread: with this one, all that is forgotten.
    thread = threading.Thread(target=rehearse)
    thread.start()
    thread.join()
    if refusals:
        raise ValueError(str(refusals[0]))


class _OutOfProportionError(ValueError):
    """A model that is too large to be built."""


@contextmanager
def small_results(stored: int) -> Iterator[None]:
    """While models are built, refuse giant tensors: results of layers and operations, and weights.

    Args:
        stored: how many bytes the whole file has.

    Raises:
        ValueError: if one does.
    """
    most = most_result_bytes()
    found: list[ValueError] = []
    declared = 0

    def check(tensor: keras.KerasTensor) -> None:
        if size_of(tensor.shape, tensor.dtype) <= most:
            return
        found.append(_giant(tensor))
        raise found[0]

    def add(shape: tuple[int | None, ...], dtype: str) -> None:
        # Also of layers that the model does not reach.
        nonlocal declared
        declared += size_of(shape, dtype)
        try:
            check_expansion("the model", declared, stored)
        except ValueError as error:
            found.append(_OutOfProportionError(str(error)))
            raise found[0] from error

    try:
        with _checking_what_is_built(check, add):
            yield
    except Exception as error:
        # Keras adds text around the errors of layers.
        if found:
            raise found[0] from error
        raise


def _giant(tensor: keras.KerasTensor) -> _OutOfProportionError:
    operation = _calling()
    kind = "layer" if isinstance(operation, keras.layers.Layer) else "operation"
    values = math.prod(size for size in tensor.shape if size is not None)
    name = getattr(operation, "name", "")
    return _OutOfProportionError(f"its {kind} {name!r} returns {values} numbers for one example")


def _calling() -> keras.Operation | None:
    """The layer or operation that is being called."""
    frame = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.Operation):
            return caller
        frame = frame.f_back
    return None


def _check_shapes(config: Any, name: str = "") -> None:
    """Refuse shapes with which layers are built, without their inputs, as large as that."""
    if isinstance(config, dict):
        for key, value in config.items():
            _check_shapes(value, key if key not in ("items", "config") else name)
    elif isinstance(config, list):
        sizes = [size for size in config if type(size) is int and size > 0]
        # Products of numbers of a thousand digits take minutes.
        is_giant = "shape" in name and any(size >= 1 << 63 for size in sizes)
        if is_giant or ("shape" in name and size_of(sizes, "float32") > most_result_bytes()):
            raise ValueError(f"its {name} of {len(sizes)} sizes has more numbers than memory holds")
        for value in config:
            if isinstance(value, dict | list):
                _check_shapes(value, name)


def _build(config: dict[str, Any], custom_objects: dict[str, Any]) -> Any:
    if "module" not in config:
        # An .h5 does not record where the classes of models are.
        is_graph = config["class_name"] in ("Functional", "Model")
        module = "keras.src.models.functional" if is_graph else "keras"
        name = "Functional" if is_graph else config["class_name"]
        config = {**config, "module": module, "class_name": name, "registered_name": None}
    return keras.saving.deserialize_keras_object(
        config, custom_objects=custom_objects, safe_mode=True
    )


def _check_results(model: Any) -> None:
    """Refuse results that are small one by one and many at one time."""
    try:
        check_results("layers", model, _described)
    except ValueError as error:
        raise _OutOfProportionError(str(error)) from error


def _described(model: Any) -> tuple[list[tuple], list[int]]:
    """A model for `check_results`; what is computed inside a step are models in it."""
    steps = [
        (
            operation.name,
            [id(tensor) for tensor in read],
            {id(tensor): size_of(tensor.shape, tensor.dtype) for tensor in returned},
            [operation] if graph_steps(operation) else [],
        )
        for operation, read, returned in graph_steps(model)
    ]
    return steps, [id(tensor) for tensor in getattr(model, "outputs", None) or []]


_CHECKS: dict[int, tuple[Callable[..., None], Callable[..., None]]] = {}


_CHECKS_LOCK = threading.Lock()


_new_symbolic_tensor = keras.KerasTensor.__init__


_new_variable = keras.Variable.__init__


@contextmanager
def _checking_what_is_built(
    check_tensor: Callable[[keras.KerasTensor], None],
    check_variable: Callable[[tuple[int | None, ...], str], None],
) -> Iterator[None]:
    """Call a function on each symbolic tensor and variable that this thread makes.

    Args:
        check_tensor: given the tensor before anything is done with it: layers compute constants of
            the size of their inputs when they are built.
        check_variable: given the shape and the dtype of a variable before it is filled.
    """
    thread = threading.get_ident()
    with _CHECKS_LOCK:
        before = _CHECKS.get(thread)
        _CHECKS[thread] = check_tensor, check_variable
        keras.KerasTensor.__init__ = _checked_symbolic_tensor
        keras.Variable.__init__ = _checked_variable
    try:
        yield
    finally:
        with _CHECKS_LOCK:
            del _CHECKS[thread]
            if before is not None:
                _CHECKS[thread] = before
            if not _CHECKS:
                keras.KerasTensor.__init__ = _new_symbolic_tensor
                keras.Variable.__init__ = _new_variable


def _checked_symbolic_tensor(self: keras.KerasTensor, *arguments: Any, **options: Any) -> None:
    _new_symbolic_tensor(self, *arguments, **options)
    checks = _CHECKS.get(threading.get_ident())
    if checks is not None:
        checks[0](self)


def _checked_variable(
    self: keras.Variable,
    initializer: Any,
    shape: Any = None,
    dtype: Any = None,
    *arguments: Any,
    **options: Any,
) -> None:
    checks = _CHECKS.get(threading.get_ident())
    if checks is not None:
        size = getattr(initializer, "shape", ()) if shape is None else shape
        checks[1](tuple(size), keras.backend.standardize_dtype(dtype))
    _new_variable(self, initializer, shape, dtype, *arguments, **options)
