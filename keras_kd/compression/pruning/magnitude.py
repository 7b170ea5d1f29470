"""Pruning: weights of small magnitude become zero while the student trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from keras_kd._checks import check_number, problem
from keras_kd._keras import check_model, tf_keras
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.graph import Graph
from keras_kd.compression.bridge.rebuilding import rebuild, to_tf_keras
from keras_kd.compression.bridge.translation import record_of
from keras_kd.compression.families import check_state
from keras_kd.compression.kernels import is_depthwise, kernels
from keras_kd.compression.pruning.patterns import MByN, Pattern, Single
from keras_kd.compression.pruning.schedule import ConstantSchedule, PolynomialSchedule
from keras_kd.compression.selection import Selection, select

_OWN_SCHEDULES = (PolynomialSchedule, ConstantSchedule)
# One share for all layers, one by name or type, or a function of the student's own layer.
SparsityTarget = float | Mapping[str | type, float] | Callable[[Any], float | None]
_PURPOSE = "pruned"


def prune(
    student: Any,
    sparsity: SparsityTarget | None = None,
    *,
    schedule: Any = None,
    pattern: Pattern | None = None,
    layers: Selection = None,
    skip: Selection = None,
) -> Any:
    """Make a student whose weights become sparse while it trains.

    In every kernel the share of zeros grows to `sparsity`. Kernels are those of Dense, EinsumDense
    and convolution layers, the pointwise ones of separable convolutions, both kinds of recurrent
    layers (also in Bidirectional and TimeDistributed), the projections of attention and embeddings,
    also inside a custom layer; if its class has a method `get_prunable_weights`, those listed by it
    instead. Depthwise kernels are pruned only if `layers` or `sparsity` names their layer and the
    layer has no other kernels; biases, normalizations and frozen layers never are.

    Without an end the schedule fits the first training: three quarters of its steps prune, the last
    quarter recovers at full sparsity. That needs a callback. `keras_kd.Distiller` adds it; in your
    own `fit`, pass `callbacks=pruned.training_callbacks()`.

    Masks are chosen after the steps of an optimizer of tf_keras and hold from then on. Pruning
    makes a compressed file smaller. It makes neither the file itself smaller nor, unless a runtime
    has kernels for it (see `layers_for_xnnpack`), the model faster; removing whole filters does.

    Args:
        student: a Sequential or Functional model of either Keras; it is not changed.
        sparsity: share of zeros at the end, between 0 and 1; or one for each layer, as a mapping
            from names or types, or a function of a layer that may return None. Layers not mentioned
            stay dense. None is 0.8, m / n with `MByN(m, n)`, or the value of TF-MOT's schedule.
        schedule: when the sparsity grows: a `PolynomialSchedule`, which is the default, or a
            `ConstantSchedule`; or a `PruningSchedule` of TF-MOT, which also sets `sparsity`.
        pattern: which weights become zero together: `Blocks`, or `MByN` for m of every n in a row.
            None for single weights.
        layers: the layers to prune: names, types (`keras.layers.Dense`), or a function of a layer
            that returns whether to prune it. None for every layer that can be, without those whose
            kernels are too small for `pattern`.
        skip: the layers that stay dense, in the same forms.

    Returns:
        A functional `tf_keras.Model`; compile it before training. `strip` makes a plain Keras 3
        model of it, `load` reads it back from a file.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an argument is out of range or contradicts another, if nothing in the student
            can be pruned, or if the student is already pruned, clustered or quantization-aware.

    Example:
        >>> schedule = PolynomialSchedule(end_epoch=3)
        >>> pruned = prune(student, {keras.layers.Conv2D: 0.5, "hidden": 0.9}, schedule=schedule)
        >>> pruned = prune(student, 0.8, pattern=Blocks((4, 1)))

    Reference:
        Zhu, M. and Gupta, S. To prune, or not to prune: exploring the efficacy of pruning for model
        compression. ICLR workshop, 2018.
    """
    check_model("student", student)
    schedule = PolynomialSchedule() if schedule is None else schedule
    pattern = Single() if pattern is None else pattern
    target = _target(sparsity, schedule, pattern)
    graph = graphs.read(student)
    check_state(graph, "prune")
    shares = sparsities(graph, target, layers, skip)
    if isinstance(schedule, _OWN_SCHEDULES):
        schedule.curve(min(shares.values()))

    from keras_kd.compression.pruning import _schedules, _wrapper

    plain = to_tf_keras(student)
    _check_axes([plain.get_layer(name) for name in shares], pattern)
    is_default = layers is None and (sparsity is None or isinstance(sparsity, Real))
    shares = _fitting(shares, plain, pattern, must_fit=not is_default)

    def wrap(layer: Any) -> Any:
        if layer.name not in shares:
            return layer
        own = _schedules.of_layer(schedule, shares[layer.name])
        return _wrapper.PruneLowMagnitude(layer, own, pattern)

    pruned = rebuild(graphs.read(plain), tf_keras(), lambda layer: [record_of(layer)], wrap)
    _wrapper.set_callbacks(pruned)
    return pruned


def _target(sparsity: SparsityTarget | None, schedule: Any, pattern: Any) -> SparsityTarget:
    """The sparsity that the arguments of `prune` mean together.

    Raises:
        TypeError: if `schedule` or `pattern` is of another type.
        ValueError: if they contradict one another.
    """
    if not isinstance(pattern, Pattern):
        raise problem(
            f"pattern={pattern!r}",
            "an object of keras_kd.compression.Blocks or MByN",
            "pass pattern=Blocks((4, 1)) or pattern=MByN(2, 4)",
            kind=TypeError,
        )
    target = sparsity
    if not isinstance(schedule, _OWN_SCHEDULES):
        target = _final_sparsity(schedule)
        if sparsity is not None:
            raise problem(
                f"schedule={schedule!r} with sparsity={sparsity!r}",
                "one sparsity: a schedule of TF-MOT has its own",
                "leave `sparsity` out, or pass a PolynomialSchedule",
            )
    if not isinstance(pattern, MByN):
        return 0.8 if target is None else target
    share = pattern.zeros / pattern.of
    if target is not None and (not isinstance(target, int | float) or abs(target - share) > 1e-6):
        raise problem(
            f"pattern={pattern} with sparsity={target!r}",
            f"the sparsity of the pattern, {share:g}",
            "leave `sparsity` out, or choose another pattern",
        )
    return share


def _final_sparsity(schedule: Any) -> float | None:
    """The last sparsity of a `PruningSchedule` of TF-MOT; None if it has no such attribute."""
    if not any(base.__name__ == "PruningSchedule" for base in type(schedule).__mro__):
        raise problem(
            f"schedule={schedule!r}",
            "an object of PolynomialSchedule, ConstantSchedule or TF-MOT's PruningSchedule",
            "pass schedule=PolynomialSchedule(end_epoch=3), or leave it out",
            kind=TypeError,
        )
    return getattr(schedule, "final_sparsity", getattr(schedule, "target_sparsity", None))


def _fitting(
    shares: dict[str, float], plain: Any, pattern: Pattern, must_fit: bool
) -> dict[str, float]:
    """The shares of the layers whose kernels are large enough for the pattern."""

    def fits(kernel: Any) -> bool:
        shape = kernel.variable.shape
        return kernel.axes is None or pattern.fits(*kernel.axes.sizes(shape))

    small = [name for name in shares if not all(map(fits, kernels(plain.get_layer(name))))]
    if small and (must_fit or len(small) == len(shares)):
        raise problem(
            f"{pattern} for the layers {small}, whose kernels are too small for it: none of "
            "their weights could become zero",
            "kernels of more inputs, or of more than one block",
            f"pass skip={small}, or a smaller pattern",
        )
    return {name: share for name, share in shares.items() if name not in small}


def _check_axes(layers: list[Any], pattern: Pattern) -> None:
    unknown = [layer.name for layer in layers for kernel in kernels(layer) if kernel.axes is None]
    if unknown and pattern.needs_axes:
        raise problem(
            f"{pattern} for the layers {unknown}",
            "kernels with known input and output axes: those of Keras' own layers, and others"
            " with two dimensions",
            f"pass skip={unknown}",
        )


def sparsities(
    graph: Graph, sparsity: SparsityTarget, layers: Selection, skip: Selection
) -> dict[str, float]:
    """The final share of zeros of each layer to prune, by its unique name (see `Graph.names`).

    Args:
        graph: the student's.
        sparsity: see `prune`. Layers that a mapping or a function leaves out stay
            dense.
        layers: see `prune`.
        skip: see `prune`.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if a share is out of range, or if nothing is left to prune.
    """
    by_name = {graph.names()[id(layer)]: layer for layer in graph.layers()}
    if callable(sparsity):
        wanted = {name: sparsity(layer) for name, layer in by_name.items() if _can(layer)}
        named = {name: share for name, share in wanted.items() if share is not None}
    elif isinstance(sparsity, Mapping):
        named = _by_name(graph, sparsity)
    else:
        _check_share("sparsity", sparsity)
        return dict.fromkeys(_select(graph, layers, skip), float(sparsity))
    for name, share in named.items():
        _check_share(f"sparsity of layer {name!r}", share)
    chosen = _select(graph, list(named) if layers is None else layers, skip)
    if not set(chosen) & set(named):
        raise problem(
            f"layers={layers!r}, none of which has a sparsity ({sorted(named)} have)",
            "layers that have a sparsity",
            "leave `layers` out",
        )
    return {name: float(named[name]) for name in chosen if name in named}


def _select(graph: Graph, layers: Selection, skip: Selection) -> list[str]:
    def supports(layer: Any) -> bool:
        return _can(layer) and (layers is not None or not is_depthwise(layer))

    return select(graph, layers, skip, supports, _PURPOSE)


def _by_name(graph: Graph, shares: Mapping[str | type, float]) -> dict[str, float]:
    """A layer's own name takes precedence over its type."""
    found: dict[str, float] = {}
    for kind in (type, str):
        for key, share in shares.items():
            if isinstance(key, kind):
                found |= dict.fromkeys(select(graph, [key], None, _can, _PURPOSE), share)
    if others := [key for key in shares if not isinstance(key, str | type)]:
        raise problem(
            f"sparsity with the keys {others}",
            "names or types of layers",
            'pass {"hidden": 0.9, keras.layers.Conv2D: 0.5}',
            kind=TypeError,
        )
    return found


def _check_share(name: str, share: Any) -> None:
    fix = "0.8 prunes four weights of five; leave out layers that stay dense"
    check_number(name, share, above=0, at_most=1 - 1e-9, fix=fix)


def _can(layer: Any) -> bool:
    return layer.trainable and bool(kernels(layer))
