"""How large a model will be, found out by building it without its weights."""

from __future__ import annotations

import math
import threading
from typing import Any

import keras

from keras_kd._archives import check_expansion

# A tensor of 8 GiB for one example: no device of today holds it.
_MOST_VALUES = 2**31
_BYTES_OF_A_WEIGHT = 4


def check_size(config: dict[str, Any], custom_objects: dict[str, Any], stored: int) -> None:
    """Refuse a model that would take far more memory than its file, before it takes any.

    A config of some hundred bytes can ask for a layer of a trillion units, which Keras would fill
    with random numbers before it looks at the weights.

    Args:
        config: what a file says of its model.
        custom_objects: as for `keras.saving.load_model`.
        stored: how many bytes of weights there are.

    Raises:
        ValueError: if its weights, or what a layer returns for one example, are out of proportion.
    """
    refusals: list[ValueError] = []

    def rehearse() -> None:
        try:
            with keras.StatelessScope(initialize_variables=False):
                model = _build(config, custom_objects)
                _check_weights(model, stored)
                _check_outputs(model)
        except _OutOfProportionError as error:
            refusals.append(ValueError(str(error)))
        except Exception:
            # What is wrong otherwise, Keras says when it loads the model.
            return

    # Keras keeps its scopes, the names it has given and the variables that it has yet to fill by
    # thread: with this one, all that is forgotten.
    thread = threading.Thread(target=rehearse)
    thread.start()
    thread.join()
    if refusals:
        raise refusals[0]


class _OutOfProportionError(Exception):
    """A model that is too large to be built."""


def _build(config: dict[str, Any], custom_objects: dict[str, Any]) -> Any:
    if "module" not in config:
        # An .h5 does not say where the classes of models are.
        is_graph = config["class_name"] in ("Functional", "Model")
        module = "keras.src.models.functional" if is_graph else "keras"
        name = "Functional" if is_graph else config["class_name"]
        config = {**config, "module": module, "class_name": name, "registered_name": None}
    return keras.saving.deserialize_keras_object(
        config, custom_objects=custom_objects, safe_mode=True
    )


def _check_weights(model: Any, stored: int) -> None:
    declared = _BYTES_OF_A_WEIGHT * sum(math.prod(weight.shape) for weight in model.weights)
    try:
        check_expansion("the model", declared, stored)
    except ValueError as error:
        raise _OutOfProportionError(str(error)) from error


def _check_outputs(model: Any) -> None:
    for layer in getattr(model, "layers", []):
        try:
            outputs = keras.tree.flatten(layer.output)
        except (AttributeError, ValueError):
            continue  # It was called several times or never, or is no part of a graph.
        for output in outputs:
            values = math.prod(size for size in output.shape if size is not None)
            if values > _MOST_VALUES:
                raise _OutOfProportionError(
                    f"its layer {layer.name!r} returns {values} numbers for one example"
                )
