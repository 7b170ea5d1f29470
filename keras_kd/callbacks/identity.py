"""The identity of a training, and the differences between two trainings."""

from __future__ import annotations

import inspect
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_kd._fitting import listed, own
from keras_kd.callbacks.batches import fingerprint

# Names that Keras counts within a process, and seeds that it draws where none was given.
_BY_CHANCE = ("name", "seed", "build_config", "registered_name", "shared_object_id")
_OF_KERAS = ("keras.", "tf_keras.")


def identity_of(model: Any, arguments: Mapping[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """What a training depends on, as JSON types.

    Args:
        model: a compiled model, or a Distiller.
        arguments: those of `fit`.
        data: `Batches.identity`.
    """
    student = getattr(model, "student", model)
    validation = arguments.get("validation_data")
    found = {
        "model": _of_model(student),
        "optimizer": described(model.optimizer),
        "data": data,
        "validation_data": [
            fingerprint(part) if hasattr(part, "shape") else type(part).__name__
            for part in keras.tree.flatten(validation)
            if part is not None
        ],
        "callbacks": [_of_callback(item) for item in listed(arguments.get("callbacks"))],
        **{
            name: described(arguments.get(name))
            for name in ("class_weight", "steps_per_epoch", "validation_freq", "validation_split")
        },
    }
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync > 1:
        # Each has random numbers and statistics of its own.
        found["replicas"] = strategy.num_replicas_in_sync
        found["replicas of a worker"] = len(strategy.extended.worker_devices)
    if student is model:
        found["loss"] = described(getattr(model, "loss", None))
    else:
        found |= _of_distiller(model)
    return json.loads(json.dumps(found))


def _of_distiller(distiller: Any) -> dict[str, Any]:
    compiled = distiller._compile_arguments.value
    teacher = distiller.teacher
    models = [] if teacher is None else teacher.models
    return {
        "loss": described(compiled.loss),
        "distillation_losses": described(distiller.distillation_losses),
        "distillation_loss_weights": described(distiller.distillation_loss_weights),
        "student_loss_weight": described(distiller.student_loss_weight),
        "teacher": {
            "type": type(teacher).__name__,
            "weights": [
                zlib.crc32(b"".join(np.ascontiguousarray(value).tobytes() for value in weights))
                for weights in (one.get_weights() for one in models)
            ],
        },
    }


def _of_model(model: Any) -> dict[str, Any]:
    """The configuration, without the names that Keras gives by counting, and the shapes."""
    try:
        config = json.loads(json.dumps(model.get_config(), default=_kind))
    except Exception:
        # Layers of users need no configuration to be trained.
        config = {}
    layers = config.get("layers", []) if isinstance(config, dict) else []
    names = {
        layer["config"]["name"]: f"layer {number}"
        for number, layer in enumerate(layers)
        if isinstance(layer, dict) and "name" in (layer.get("config") or {})
    }
    return {
        "type": type(model).__name__,
        "config": _without_names(config, names),
        "weights": [[*map(int, weight.shape)] for weight in model.weights],
    }


def _without_names(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_names(part, names) for key, part in value.items() if key not in _BY_CHANCE
        }
    if isinstance(value, list):
        return [_without_names(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


def _of_callback(callback: Any) -> dict[str, Any]:
    """The class, and the numbers among the arguments of Keras' own callbacks."""
    callback = own(callback)
    kind = type(callback)
    found: dict[str, Any] = {"type": kind.__name__}
    if kind.__module__.startswith(_OF_KERAS):
        for name in inspect.signature(kind).parameters:
            value = vars(callback).get(name)
            if isinstance(value, bool | int | float):
                # Keras gives `min_delta` a sign in the first epoch.
                found[name] = abs(value)
    return found


def described(value: Any) -> Any:
    """An argument as JSON types, the same in each process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): described(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "get_config"):
        try:
            config = json.loads(json.dumps(value.get_config(), default=_kind))
        except Exception:
            # What cannot be saved may still be trained with.
            config = {}
        return {"type": type(value).__name__, **_without_names(config, {})}
    return _kind(value)


def _kind(value: Any) -> str:
    """The substitute for a value that has no configuration: a name without an address."""
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else type(value).__name__


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """What is not the same, as "optimizer.learning_rate: 0.1 there, 0.01 here"."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            deeper = f"{path}.{key}" if path else key
            yield from differences(before.get(key), now.get(key), deeper)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif not _equal(before, now):
        yield f"{path}: {_short(before)} there, {_short(now)} here"


def _equal(one: Any, other: Any) -> bool:
    return one == other or (one != one and other != other)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
