"""The two versions of Keras, and parts of them that are not public.

Users bring models of Keras 3 (`keras`); TensorFlow Model Optimization works on models of Keras 2
(`tf_keras`). Which one a model is, and what several packages need of Keras' internals, is here.
What concerns the graph of a model is in `_graphs.py`, attention layers in `_attention.py`.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import keras
from keras import ops

from keras_kd import _backends, _replicas
from keras_kd._checks import one_line, problem


def tf_keras() -> ModuleType:
    """Keras 2, imported when first needed: it takes seconds."""
    import tf_keras

    return tf_keras


def is_keras_model(model: Any) -> bool:
    """Whether `model` is a Keras 3 model."""
    return isinstance(model, keras.Model)


def is_tf_keras_model(model: Any) -> bool:
    """Whether `model` is a Keras 2 model. Imports nothing: without tf_keras there is none."""
    module = sys.modules.get("tf_keras")
    return module is not None and isinstance(model, module.Model)


def is_model(model: Any) -> bool:
    """Whether `model` is a model of either Keras."""
    return is_keras_model(model) or is_tf_keras_model(model)


def check_model(name: str, model: Any) -> Any:
    """Return `model` if it is a model of either Keras.

    Raises:
        ValueError: if it is anything else.
    """
    if not is_model(model):
        raise problem(
            f"{name}={short(model)} of type {type(model).__module__}.{type(model).__qualname__}",
            "a keras.Model or a tf_keras.Model",
            f"load or build the model first and pass it as `{name}`",
        )
    return model


def short(value: Any) -> str:
    """The beginning of what a value looks like, on one line; an array can have a thousand."""
    text = one_line(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


class Untracked:
    """Holds an object that Keras must not find when it looks through a model's attributes.

    Both versions of Keras make every model, list and dict that is set on a model a part of it: of
    its weights, its summary and its files.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


def at_least_float32(tensor: Any) -> Any:
    """Half precision cannot hold a sum over many values: compute in float32 or better."""
    tensor = ops.convert_to_tensor(tensor)
    wide = keras.backend.standardize_dtype(tensor.dtype) in ("float32", "float64")
    return tensor if wide else ops.cast(tensor, "float32")


@contextmanager
def replaced_attributes(replacements: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Within this context objects have other attributes.

    Args:
        replacements: object, name of an attribute, and a function that makes the other value of
            the one it has.
    """
    if _replicas.number() > 1:
        with _replaced_in_this_thread(replacements):
            yield
        return
    originals = []
    try:
        for owner, name, replace in replacements:
            originals.append((owner, name, vars(owner).get(name)))
            # Past Keras' own __setattr__, for which this would be a part of the layer.
            object.__setattr__(owner, name, replace(getattr(owner, name)))
        yield
    finally:
        for owner, name, original in reversed(originals):
            if original is not None:
                object.__setattr__(owner, name, original)
            elif name in vars(owner):
                object.__delattr__(owner, name)


@contextmanager
def _replaced_in_this_thread(replacements: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """`replaced_attributes` for methods of layers that replicas call in turns.

    Each replica has a thread, and another one runs wherever replicas exchange something, such as
    within a synchronized BatchNormalization. Each must then record its own calls alone.
    """
    own = threading.get_ident()
    done: list[tuple[Any, str]] = []
    try:
        for owner, name, replace in replacements:
            shared = vars(owner).get(name)
            if not hasattr(shared, "by_thread"):
                shared = _by_thread(getattr(owner, name), shared)
                object.__setattr__(owner, name, shared)
            calls = shared.by_thread.setdefault(own, [shared.common])
            calls.append(replace(calls[-1]))
            done.append((owner, name))
        yield
    finally:
        for owner, name in reversed(done):
            shared = vars(owner)[name]
            shared.by_thread[own].pop()
            if len(shared.by_thread[own]) == 1:
                del shared.by_thread[own]
            if not shared.by_thread:
                if shared.before is not None:
                    object.__setattr__(owner, name, shared.before)
                else:
                    object.__delattr__(owner, name)


def _by_thread(common: Any, before: Any) -> Any:
    """A function that calls another one in each thread.

    Args:
        common: what it calls in threads that replaced nothing.
        before: what the object itself had under this name, or `None`.
    """

    def chosen() -> Any:
        return vars(called)["by_thread"].get(threading.get_ident(), [common])[-1]

    chosen = _backends.without_autograph(chosen)

    @functools.wraps(common)
    def called(*args: Any, **kwargs: Any) -> Any:
        return chosen()(*args, **kwargs)

    vars(called).update(by_thread={}, common=common, before=before)
    return called


@contextmanager
def building_from(model: Any, batch: Callable[[], Any]) -> Iterator[None]:
    """Within this context Keras 3 builds a model under a strategy from another batch.

    Otherwise it reads one of the data that the model is to be trained with, and begins them anew.

    Args:
        model: of either Keras; tf_keras builds in the first step.
        batch: gives the batch, of the same shapes and types.
    """
    if getattr(model, "_distribute_strategy", None) is None or not is_keras_model(model):
        yield
        return

    def replace(build: Callable[..., None]) -> Callable[..., None]:
        return lambda iterator=None, data_batch=None: build(data_batch=batch())

    with replaced_attributes([(model, "_maybe_symbolic_build", replace)]):
        yield


def unwrapped(layer: Any) -> Any:
    """What TF-MOT has wrapped, or the bridge to tf_keras keeps of Keras 3; other layers as is."""
    while True:
        is_wrapper = original_name(layer.name) != layer.name
        inner = getattr(layer, "layer" if is_wrapper else "keras_layer", None)
        if inner is None:
            return layer
        layer = inner


def copy_weights(copy: Any, model: Any) -> None:
    """Give a copy of a model of either Keras the weights of the model.

    `set_weights` leaves the numbers that a Normalization computes from its weights as they are.
    """
    copy.set_weights(model.get_weights())
    for layer in copy._flatten_layers():
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()


def take_losses(layer: keras.layers.Layer) -> list[Any]:
    """What a layer and those in it have added with `add_loss` since the last time."""
    losses = [loss for part in layer._flatten_layers() for loss in part._get_own_losses()]
    layer._clear_losses()
    return losses


def metrics_of_compile(model: Any) -> list[Any]:
    """The metrics that a model has by its `compile`, that of its loss included."""
    if is_keras_model(model):
        loss = model._compile_loss
        return [
            model._loss_tracker,
            model._compile_metrics,
            *([] if loss is None else loss.metrics),
        ]
    containers = (model.compiled_loss, model.compiled_metrics)
    return [metric for each in containers if each is not None for metric in each.metrics]


def losses_of_compile(model: Any) -> Any:
    """What holds the losses that a model was compiled with."""
    return model._compile_loss if is_keras_model(model) else model.compiled_loss


@contextmanager
def replacing(model: Any, part: Any) -> Iterator[None]:
    """Within this context take other layers and models into a model, in the place of a part.

    Keras 3 forgets a variable that an attribute no longer holds, but no layer, and takes no layers
    into a model that is built. tf_keras does both.
    """
    if not is_keras_model(model):
        yield
        return
    tracker = model._tracker
    locked = tracker.locked
    tracker.unlock()
    for old in keras.tree.flatten(part):
        tracker.untrack(old)
    try:
        yield
    finally:
        if locked:
            tracker.lock()


def saves_to_hdf5() -> bool:
    """Whether Keras 3 writes a configuration to an `.h5` file, or reads one.

    Such files hold the weights of layers only, and configurations in an older form, which does not
    name modules.
    """
    model = keras.Sequential([keras.layers.Identity(name="layer")], name="model")
    return "module" not in model.get_config()["layers"][0]


def computes_in_float16(model: Any) -> bool:
    """Whether any layer of a model computes in float16, so that gradients can underflow."""
    return any(layer.compute_dtype == "float16" for layer in model._flatten_layers())


_WRAPPER_PREFIXES = ("prune_low_magnitude_", "quant_", "cluster_")


def original_name(name: str) -> str:
    """The name that a layer had before TF-MOT wrapped it."""
    for prefix in _WRAPPER_PREFIXES:
        if name.startswith(prefix):
            return original_name(name.removeprefix(prefix))
    return name


def global_seed_generator() -> keras.random.SeedGenerator:
    """From which functions of `keras.random` draw that get no seed."""
    from keras.src.random import seed_generator

    return seed_generator.global_seed_generator()


def random_seed() -> int | None:
    """What `keras.utils.set_random_seed` was called with last, if it was."""
    from keras.src.utils import rng_utils

    seed: int | None = rng_utils.get_random_seed()
    return seed


def tf_keras_seeds() -> Any:
    """What holds the `generator` from which layers of tf_keras draw their seeds.

    `tf_keras.utils.set_random_seed` makes it; without it they draw from Python's own. None if
    tf_keras is not in use.
    """
    if "tf_keras" not in sys.modules:
        return None
    from tf_keras.src import backend

    return backend._SEED_GENERATOR


def keep_random_states(model: Any) -> bool:
    """Have layers of tf_keras such as Dropout draw from generators whose state can be saved.

    Without this they use operations of TensorFlow whose state nothing can read.

    Returns:
        Whether there were such layers: steps that were compiled before must be compiled anew.
    """
    changed = False
    for layer in model.submodules:
        generator: Any = getattr(layer, "_random_generator", None)
        if getattr(generator, "_rng_type", None) == "legacy_stateful":
            generator._rng_type, generator._built = "stateful", False
            generator._maybe_init()
            changed = True
    return changed
