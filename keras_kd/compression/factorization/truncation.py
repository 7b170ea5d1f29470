"""Low-rank factorization: a layer becomes two smaller ones by truncating its singular values."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_kd._checks import check_choice, check_integer, check_number, problem, three_parts
from keras_kd._keras import check_model
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild
from keras_kd.compression.bridge.translation import LayerRecord, record_of
from keras_kd.compression.factorization import ranks
from keras_kd.compression.factorization.candidate import (
    Candidate,
    FactorizedLayer,
    Option,
    note_factorization,
)
from keras_kd.compression.factorization.forms import forms_of, obstacle
from keras_kd.compression.families import check_state
from keras_kd.compression.selection import Selection, select
from keras_kd.compression.stripping import strip


def factorize(
    student: Any,
    *,
    rank: int | Mapping[str, int] | None = None,
    energy: float | None = None,
    target_parameters: int | float | None = None,
    form: str = "auto",
    layers: Selection = None,
    skip: Selection = None,
) -> keras.Model:
    """Make a smaller student in which large layers are two of low rank, to be trained further.

    The kernel of each Dense, Conv1D, Conv2D, Conv3D or Embedding layer is replaced by a product of
    two, the closest of its rank (Eckart & Young, 1936). A Dense layer becomes one with `rank` units
    and one with all units (Xue et al., 2013); an Embedding becomes one of `rank` numbers for each
    word and a Dense layer (Lan et al., 2020). A convolution becomes, in the channel-wise form, one
    with `rank` filters and one of size 1 (Denton et al., 2014; Zhang et al., 2016); in the spatial
    form of Conv2D, one of a single column and one of a single row (Jaderberg et al., 2014; Tai et
    al., 2016). Only layers that get smaller by it are replaced.

    The second of the two has the name, bias, activation and output of the original, so that losses
    on features find it; the first is called `<name>_factor`, is linear and has no bias. Both have
    the kernel's regularizer. Unlike the zeros of pruning, what is saved here is saved in the file
    and in the computation. Distillation with `keras_kd.Distiller` recovers most of the accuracy.

    Pass exactly one of `rank`, `energy` and `target_parameters`.

    Args:
        student: a Sequential or Functional model of either Keras; it is not changed. Zeros that
            pruning has left in it are lost: factorize first, prune then.
        rank: how many singular values to keep of each kernel, or a mapping from names of layers to
            this number, which then is the choice of layers.
        energy: the share of the squared singular values to keep of each kernel, above 0. 1.0
            drops only what is below the precision of float32.
        target_parameters: the number of parameters that the model may have, non-trainable ones
            included, or as a float below 1, their share of the student's. The ranks are chosen
            for all layers together, so that the product of what is kept of each kernel's squared
            singular values is as large as the number allows (Zhang et al., 2016).
        form: "channel" or "spatial" for Conv2D. "auto" takes, with `rank`, the form of smaller
            error, and with `energy`, the form of fewer parameters.
        layers: the layers to factorize: names, types (`keras.layers.Dense`), or a function that is
            given a layer and returns a bool. None for every layer that can be.
        skip: the layers to leave unchanged, in the same forms.

    Returns:
        A functional Keras 3 model that shares nothing with `student` and is not compiled. Models
        nested in the student are flattened. `summary` of it has ranks and errors of each layer;
        saving the model does not keep them.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if not exactly one of the three is given, if one is out of range, if no layer
            gets smaller or `target_parameters` cannot be reached, or if the student is pruned,
            clustered or quantization-aware.

    Example:
        student = keras_kd.compression.factorize(teacher, energy=0.8)
        print(keras_kd.compression.summary(student, teacher))
        distiller = keras_kd.Distiller(teacher, student)
    """
    check_model("student", student)
    check_choice("form", form, ("auto", "channel", "spatial"))
    _check_criterion(rank, energy, target_parameters, layers)
    check_state(graphs.read(student), "factorize")
    graph = graphs.read(strip(student))
    names = graph.names()
    by_name = {names[id(layer)]: layer for layer in graph.layers()}
    choice = list(rank) if isinstance(rank, Mapping) else layers
    chosen = select(graph, choice, skip, lambda layer: obstacle(layer) is None, "factorized")
    candidates = [Candidate(name, by_name[name], forms_of(by_name[name], form)) for name in chosen]
    before = _parameters(graph)

    if rank is not None:
        wanted = rank if isinstance(rank, Mapping) else dict.fromkeys(chosen, rank)
        decisions = ranks.by_rank(candidates, wanted)
    elif energy is not None:
        decisions = ranks.by_energy(candidates, energy)
    else:
        decisions = ranks.by_parameters(candidates, before, _target(target_parameters, before))
    accepted = {name: option for name, option in decisions.items() if isinstance(option, Option)}
    if not accepted:
        raise ValueError(_nothing_smaller(decisions))

    model = _rebuilt(graph, {c.name: c for c in candidates if c.name in accepted}, accepted)
    note_factorization(model, _described(by_name, candidates, decisions))
    return model


def _check_criterion(rank: Any, energy: Any, target_parameters: Any, layers: Selection) -> None:
    criteria = {"rank": rank, "energy": energy, "target_parameters": target_parameters}
    given = [f"{name}={value!r}" for name, value in criteria.items() if value is not None]
    if len(given) != 1:
        raise problem(
            " and ".join(given) or "neither rank, nor energy, nor target_parameters",
            "exactly one of the three",
            "energy=0.8 keeps four fifths of the squared singular values of each kernel",
        )
    if isinstance(rank, Mapping):
        if layers is not None:
            raise problem(
                f"rank={rank!r} and layers={layers!r}",
                "one choice of layers",
                "leave `layers` out: the names in `rank` are the choice",
            )
        for name, value in rank.items():
            check_integer(f"rank[{name!r}]", value, at_least=1, fix="a rank of 8 is a beginning")
    elif rank is not None:
        check_integer("rank", rank, at_least=1, fix="a rank of 8 is a beginning")
    if energy is not None:
        check_number("energy", energy, above=0, at_most=1, fix="0.8 is a beginning")


def _target(target: Any, before: int) -> int:
    fix = "0.5 halves the parameters, 20_000 leaves that many"
    if isinstance(target, Integral):
        target = check_integer("target_parameters", target, at_least=1, fix=fix)
    else:
        check_number("target_parameters", target, above=0, at_most=1 - 1e-9, fix=fix)
        target = int(target * before)
    if target >= before:
        raise problem(
            f"target_parameters={target:,} for a student of {before:,} parameters",
            "fewer than it has",
            fix,
        )
    return target


def _nothing_smaller(decisions: ranks.Decisions) -> str:
    name, reason = next(iter(decisions.items()))
    return three_parts(
        f"a student in which no chosen layer gets smaller (layer {name!r}: {reason})",
        "at least one for which rank * (rows + columns) is below rows * columns",
        "keep less of the kernels (a lower rank or energy), or choose larger layers",
    )


def _rebuilt(
    graph: graphs.Graph, candidates: Mapping[str, Candidate], options: Mapping[str, Option]
) -> keras.Model:
    names = graph.names()
    taken = set(names.values())

    def dismantle(layer: Any) -> list[LayerRecord]:
        name = names[id(layer)]
        if name not in candidates:
            return [record_of(layer)]
        suffix = "_factor"
        while name + suffix in taken:
            suffix += "_factor"
        taken.add(name + suffix)
        return candidates[name].records(options[name], layer.name + suffix)

    return rebuild(graph, keras, dismantle)


def _described(
    by_name: Mapping[str, Any], candidates: list[Candidate], decisions: ranks.Decisions
) -> dict[str, FactorizedLayer | str]:
    """What each factorized layer saves and loses, and why each other one stays as it is."""
    described: dict[str, FactorizedLayer | str] = {
        candidate.name: candidate.describe(option)
        for candidate in candidates
        if isinstance(option := decisions[candidate.name], Option)
    }
    for name, layer in by_name.items():
        if name not in described and _has_kernel(layer):
            reason = decisions.get(name) or obstacle(layer)
            described[name] = str(reason or "left out by `layers` or `skip`")
    return described


def _has_kernel(layer: Any) -> bool:
    return any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ()))


def _parameters(graph: graphs.Graph) -> int:
    return sum(
        int(np.prod(weight.shape))
        for layer in graph.layers()
        for weight in getattr(layer, "weights", ())
    )
