"""Pruning: weights of small magnitude become zero while the student trains."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Real
from typing import Any

from keras_kd._checks import check_choice, problem
from keras_kd._keras import check_model, tf_keras
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild, to_tf_keras
from keras_kd.compression.bridge.translation import record_of
from keras_kd.compression.kernels import kernels
from keras_kd.compression.pruning.arguments import curve_of, final_sparsity_of, pattern_of
from keras_kd.compression.pruning.latency import check_supports_sparse_inference, is_pointwise
from keras_kd.compression.pruning.patterns import Pattern
from keras_kd.compression.pruning.schedule import Plan
from keras_kd.compression.pruning.targets import FinalSparsity, final_sparsities
from keras_kd.compression.selection import Selection
from keras_kd.compression.state import check_state

_POLICIES = ("xnnpack",)


def prune(
    student: Any,
    final_sparsity: FinalSparsity | None = None,
    *,
    schedule: Any = "polynomial",
    initial_sparsity: float | None = None,
    power: float | None = None,
    begin_step: int | None = None,
    end_step: int | None = None,
    begin_epoch: int | None = None,
    end_epoch: int | None = None,
    frequency: int | None = None,
    block_size: tuple[int, int] | None = None,
    block_pooling: str | None = None,
    m_by_n: tuple[int, int] | None = None,
    policy: str | None = None,
    layers: Selection = None,
    skip: Selection = None,
) -> Any:
    """Make a student whose weights become sparse while it trains.

    In every kernel the share of zeros grows from `initial_sparsity` to `final_sparsity`. Kernels
    are those of Dense, EinsumDense and convolution layers, the pointwise ones of separable
    convolutions, both kinds of recurrent layers (also in Bidirectional and TimeDistributed), the
    projections of attention and embeddings, also inside a custom layer; if its class has a method
    `get_prunable_weights`, what that lists instead. Depthwise kernels are pruned only if `layers`
    or `final_sparsity` names their layer, which has no others; biases, normalizations and frozen
    layers never are.

    Without an end the schedule fits the first training: three quarters of its steps prune, the last
    quarter recovers at full sparsity. That needs a callback. `keras_kd.Distiller` adds it; in your
    own `fit`, pass `callbacks=pruned.training_callbacks()`.

    Masks are chosen after the steps of an optimizer of tf_keras and hold from then on. Pruning
    makes a compressed file smaller. It makes neither the file itself smaller nor, unless a runtime
    has kernels for it (see `policy`), the model faster; removing whole filters does.

    Args:
        student: a Sequential or Functional model of either Keras; it is not changed.
        final_sparsity: share of zeros at the end, between 0 and 1; or one for each layer, as a
            mapping from names or types, or a function of a layer that may return None. Layers not
            mentioned stay dense. None is 0.8, or m / n with `m_by_n`.
        schedule: `"polynomial"` (Zhu & Gupta, 2017); `"constant"`, at `final_sparsity` from the
            first update on; or a `PruningSchedule` of TF-MOT, in place of all arguments from
            `final_sparsity` to `frequency`.
        initial_sparsity: share of zeros at the first update; None is 0.0.
        power: exponent of the polynomial; None is 3.
        begin_step: training step (batch), after which the next one chooses the first masks; None is
            0.
        end_step: training step at which `final_sparsity` is reached.
        begin_epoch: as `begin_step`, in epochs counted from 0.
        end_epoch: as `end_step`: the epoch, counted from 0, at whose beginning it is reached.
        frequency: steps between two updates of the masks, counted back from the end. None makes
            about 100 updates.
        block_size: (inputs, outputs) of the blocks that become zero together. In convolutions there
            are blocks at each position of the kernel.
        block_pooling: `"AVG"`, also for None, to compare blocks by their mean magnitude; `"MAX"` by
            their largest.
        m_by_n: (m, n): of every n consecutive inputs of an output, m are zero at the end, fewer
            before, as the schedule says. That is n consecutive values of the file's tensors: TFLite
            stores the inputs last (of an embedding, one word's values).
        policy: `"xnnpack"` to prune only the 1x1 convolutions in which XNNPACK, TFLite's library
            for CPUs, can skip zeros (Elsen et al., 2020). The student must be of the form that it
            can do that with; the zeros must be stored sparsely, as TensorFlow's converter does with
            `tf.lite.Optimize.EXPERIMENTAL_SPARSITY`.
        layers: the layers to prune: names, types (`keras.layers.Dense`), or a function that is
            given a layer and says whether to prune it. None for every layer that can be, without
            those whose kernels are too small for `block_size` or `m_by_n`.
        skip: the layers that stay dense, in the same forms.

    Returns:
        A functional `tf_keras.Model`; compile it before training. `strip` makes a plain Keras 3
        model of it, `load` reads it back from a file.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an argument is out of range or contradicts another, if nothing in the student
            can be pruned, or if the student is already pruned or quantization-aware.

    Example:
        >>> pruned = prune(student, {keras.layers.Conv2D: 0.5, "hidden": 0.9}, end_epoch=3)

    References:
        Zhu, M. and Gupta, S. To prune, or not to prune: exploring the efficacy of pruning for model
        compression. ICLR workshop, 2018 (arXiv 2017).
        Elsen, E. et al. Fast Sparse ConvNets. CVPR, 2020.
    """
    check_model("student", student)
    plan = Plan(begin_step, end_step, begin_epoch, end_epoch, frequency)
    pattern = pattern_of(block_size, block_pooling, m_by_n)
    given = {
        "final_sparsity": final_sparsity,
        "initial_sparsity": initial_sparsity,
        "power": power,
        **{name: getattr(plan, name) for name in plan.given},
    }
    final = final_sparsity_of(schedule, given, pattern)
    graph = graphs.read(student)
    check_state(graph, (), "call `strip` first, and prune before `cluster` and `quantize_aware`")
    if policy is not None:
        check_choice("policy", policy, _POLICIES)
        check_supports_sparse_inference(graph)
        layers = is_pointwise if layers is None else layers
    shares = final_sparsities(graph, final, layers, skip)
    if policy is not None:
        _check_pointwise(graph, shares)
    initial, power = curve_of(schedule, initial_sparsity, power, min(shares.values()))

    from keras_kd.compression.pruning import _callback, _schedules, _wrapper

    plain = to_tf_keras(student)
    _check_axes([plain.get_layer(name) for name in shares], pattern)
    is_default = layers is None and (final_sparsity is None or isinstance(final_sparsity, Real))
    shares = _fitting(shares, plain, pattern, must_fit=not is_default)

    def wrap(layer: Any) -> Any:
        if layer.name not in shares:
            return layer
        if not isinstance(schedule, str):
            return _wrapper.PruneLowMagnitude(layer, _schedules.completed(schedule), pattern)
        share = shares[layer.name]
        start = share if initial is None else initial
        own = _schedules.Schedule(start, share, power, plan)
        return _wrapper.PruneLowMagnitude(layer, own, pattern)

    pruned = rebuild(graphs.read(plain), tf_keras(), lambda layer: [record_of(layer)], wrap)
    _callback.set_callbacks(pruned)
    return pruned


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


def _check_pointwise(graph: graphs.Graph, chosen: Collection[str]) -> None:
    names = graph.names()
    by_name = {names[id(layer)]: layer for layer in graph.layers()}
    others = [name for name in chosen if not is_pointwise(by_name[name])]
    if others:
        raise problem(
            f"policy='xnnpack' with layers {others} to prune",
            "nothing but 1x1 Conv2D layers, in which XNNPACK can skip zeros",
            f"pass skip={others}",
        )


def _check_axes(layers: list[Any], pattern: Pattern) -> None:
    unknown = [layer.name for layer in layers for kernel in kernels(layer) if kernel.axes is None]
    if unknown and pattern.needs_axes:
        raise problem(
            f"{pattern} for the layers {unknown}",
            "kernels of which it is known what they are multiplied with: those of Keras' own"
            " layers, and others with two dimensions",
            f"pass skip={unknown}",
        )
