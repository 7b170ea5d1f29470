"""The default distillation loss, chosen by the loss on labels and the outputs."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from keras_kd import _graphs
from keras_kd._checks import three_parts
from keras_kd.losses import LogitsMSE, SoftTargets
from keras_kd.losses.base import OutputKey, outputs_by_key

CLASSES = "classes"
NUMBERS = "numbers"

# What the outputs are that a loss on labels measures, by its name without case and underscores, as
# a function, a class or an abbreviation of Keras.
_KINDS = {
    "binarycrossentropy": CLASSES,
    "binaryfocalcrossentropy": CLASSES,
    "categoricalcrossentropy": CLASSES,
    "categoricalfocalcrossentropy": CLASSES,
    "categoricalgeneralizedcrossentropy": CLASSES,
    "categoricalhinge": CLASSES,
    "ctc": CLASSES,
    "dice": CLASSES,
    "hinge": CLASSES,
    "kld": CLASSES,
    "kldivergence": CLASSES,
    "kullbackleiblerdivergence": CLASSES,
    "sparsecategoricalcrossentropy": CLASSES,
    "squaredhinge": CLASSES,
    "tversky": CLASSES,
    "cosinesimilarity": NUMBERS,
    "huber": NUMBERS,
    "huberloss": NUMBERS,
    "logcosh": NUMBERS,
    "mae": NUMBERS,
    "mape": NUMBERS,
    "meanabsoluteerror": NUMBERS,
    "meanabsolutepercentageerror": NUMBERS,
    "meansquarederror": NUMBERS,
    "meansquaredlogarithmicerror": NUMBERS,
    "mse": NUMBERS,
    "msle": NUMBERS,
    "poisson": NUMBERS,
}


def kind_of_loss(loss: Any) -> str | None:
    """What the outputs are that a loss on labels measures: `CLASSES` or `NUMBERS`.

    Args:
        loss: a name, a function, or an object of either Keras.

    Returns:
        `None` for a loss that Keras does not have, and that is derived from none of its losses.
    """
    return next((_KINDS[name] for name in _names(loss) if name in _KINDS), None)


def _names(loss: Any) -> list[str]:
    while isinstance(loss, functools.partial):
        loss = loss.func
    if isinstance(loss, str):
        names = [loss]
    elif hasattr(loss, "__name__"):
        names = [loss.__name__]
    else:
        function = getattr(loss, "fn", None)
        names = [one.__name__ for one in type(loss).__mro__]
        names += [] if function is None else _names(function)
    return [name.replace("_", "").lower() for name in names]


def choose_losses(student: Any, loss: Any, models: Sequence[Any]) -> list[Any]:
    """The distillation losses for a student that is trained with this loss on labels.

    Args:
        student: the student.
        loss: what `compile` was given, for one output or several; `None` for no labels.
        models: the models whose own `compile` decides for outputs without labels, the student
            first.

    Returns:
        `SoftTargets(temperature=4.0)`, or `LogitsMSE()` for outputs that are numbers; one of each,
        with the names of their outputs, where there are both.
    """
    ends = _ends(student, loss)
    asked = [_by_output(model, getattr(model, "loss", None), ends) for model in models]
    given = _by_output(student, loss, ends)
    kinds: dict[OutputKey | None, str] = {}
    for key, end in ends.items():
        given_losses = [given[key], *(one[key] for one in asked if given[key] is None)]
        found = [kind for kind in map(kind_of_loss, given_losses) if kind is not None]
        if end in ("softmax", "sigmoid") or not found:
            kinds[key] = CLASSES
        else:
            kinds[key] = found[0]
        unclear = given[key] is not None or end == "one linear unit"
        if not found and end not in ("softmax", "sigmoid") and unclear:
            _warn_of_unknown(student, key, given[key])
    soft, numbers = (
        [key for key, kind in kinds.items() if kind == one] for one in (CLASSES, NUMBERS)
    )
    named = [[key for key in keys if key is not None] for keys in (soft, numbers)]
    if not numbers:
        return [SoftTargets(temperature=4.0)]
    if not soft:
        return [LogitsMSE()]
    return [SoftTargets(temperature=4.0, outputs=named[0]), LogitsMSE(outputs=named[1])]


def _warn_of_unknown(student: Any, key: OutputKey | None, loss: Any) -> None:
    output = f"the student {student.name!r}" if key is None else f"its output {key!r}"
    name = getattr(loss, "name", None) or getattr(loss, "__name__", None) or loss
    warnings.warn(
        three_parts(
            f"no distillation_losses with loss={name}, which does not show whether {output} gives "
            "class scores, as is assumed, or numbers",
            "distillation_losses, if the loss is not one of Keras, or for one linear unit without "
            "labels",
            "pass distillation_losses=keras_kd.losses.SoftTargets() for classes, or "
            "keras_kd.losses.LogitsMSE() for numbers, to the Distiller",
        ),
        stacklevel=6,
    )


def _ends(student: Any, loss: Any) -> dict[OutputKey | None, str | None]:
    """By the key of each output what it ends in; `None` where that is not seen."""
    if getattr(student, "inputs", None) is not None:
        outputs = outputs_by_key(_graphs.symbolic_outputs(student))
        return {key: _end(output) for key, output in outputs.items()}
    specs = _graphs.output_specs(student)
    return dict.fromkeys(outputs_by_key(loss if specs is None else specs))


def _end(output: Any) -> str | None:
    ends = {_graphs.last_activation(part) for part in keras.tree.flatten(output)}
    end = ends.pop() if len(ends) == 1 else None
    is_single = end == "linear" and keras.tree.flatten(output)[0].shape[-1] == 1
    return "one linear unit" if is_single else end


def _by_output(model: Any, loss: Any, keys: dict[OutputKey | None, Any]) -> dict[Any, Any]:
    """The loss of each output of the student, `None` where it has none."""
    if not isinstance(loss, dict | list | tuple):
        return dict.fromkeys(keys, loss)
    if isinstance(loss, dict):
        names = list(getattr(model, "output_names", None) or [])
        by_name = {key: loss.get(key) for key in keys}
        # Keras takes the names of outputs also where they come in a list, or alone.
        return {
            key: by_name[key]
            if by_name[key] is not None or len(names) <= place
            else loss.get(names[place])
            for place, key in enumerate(keys)
        }
    # As Keras flattens a dict of outputs.
    names = [key for key in keys if isinstance(key, str)]
    ordered = sorted(names) if len(names) == len(keys) else list(keys)
    return dict.fromkeys(keys) | dict(zip(ordered, loss, strict=False))


def advice_for(loss: Any) -> str:
    """What to pass as a distillation loss instead of a loss on labels, code of Python."""
    names = _names(loss)
    kind = next((name for name in names if name in _KINDS), None)
    if kind is None:
        return "keras_kd.losses.SoftTargets(temperature=4.0)"
    if kind in ("mse", "meansquarederror"):
        return "keras_kd.losses.LogitsMSE()"
    if "crossentropy" in kind:
        return "keras_kd.losses.SoftCrossEntropy(temperature=4.0)"
    if _KINDS[kind] == CLASSES:
        return "keras_kd.losses.SoftTargets(temperature=4.0)"
    return (
        "keras.distillation.LogitsDistillation(temperature=1.0, loss=keras.losses."
        f"{_CLASSES_OF_KERAS[kind]}())"
    )


_CLASSES_OF_KERAS = {
    "cosinesimilarity": "CosineSimilarity",
    "huber": "Huber",
    "huberloss": "Huber",
    "logcosh": "LogCosh",
    "mae": "MeanAbsoluteError",
    "mape": "MeanAbsolutePercentageError",
    "meanabsoluteerror": "MeanAbsoluteError",
    "meanabsolutepercentageerror": "MeanAbsolutePercentageError",
    "meansquaredlogarithmicerror": "MeanSquaredLogarithmicError",
    "msle": "MeanSquaredLogarithmicError",
    "poisson": "Poisson",
}
