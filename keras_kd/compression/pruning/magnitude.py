"""Pruning: weights of small magnitude become zero while the student trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_kd._checks import check_number, problem
from keras_kd._keras import check_model, tf_keras
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild, to_tf_keras
from keras_kd.compression.bridge.translation import record_of
from keras_kd.compression.pruning.schedule import Timetable
from keras_kd.compression.pruning.sparsity import PRUNABLE_WEIGHTS
from keras_kd.compression.selection import Selection, select
from keras_kd.compression.state import check_state


def prune(
    student: Any,
    final_sparsity: float | None = None,
    *,
    initial_sparsity: float = 0.0,
    begin_step: int = 0,
    end_step: int | None = None,
    frequency: int | None = None,
    block_size: tuple[int, int] | None = None,
    m_by_n: tuple[int, int] | None = None,
    layers: Selection = None,
    skip: Selection = None,
) -> Any:
    """Make a student whose weights become sparse while it trains (Zhu & Gupta, 2017).

    In every kernel of a Dense or convolution layer, every pointwise kernel of a separable
    convolution and every embedding, the share of zeros grows from `initial_sparsity` to
    `final_sparsity`, by TF-MOT's own wrappers. Depthwise kernels, biases, normalizations and frozen
    layers are left alone. Without `end_step` the schedule fits the first training: three quarters
    of its steps prune, the last quarter recovers at full sparsity.

    The wrappers need a callback while they train. `keras_kd.Distiller` adds it; in your own
    `fit`, pass `callbacks=pruned.training_callbacks()`.

    Pruning makes a compressed file smaller. It does not make the file itself smaller nor the model
    faster on a CPU.

    Args:
        student: a Sequential or Functional model of either Keras; it is not changed.
        final_sparsity: share of zeros at the end, between 0 and 1. None is 0.8, or m / n with
            `m_by_n`.
        initial_sparsity: share of zeros at the first update.
        begin_step: training step (batch) after which the masks are first chosen.
        end_step: training step at which `final_sparsity` is reached.
        frequency: steps between two updates of the masks, counted back from `end_step`.
        block_size: (rows, columns) of the blocks that become zero together; only kernels with two
            dimensions can have blocks.
        m_by_n: (m, n): of every n weights in a row, m are zero from the first update on.
        layers: the layers to prune: names, types (`keras.layers.Dense`), or a function that is
            given a layer and says whether to prune it. None for every layer that can be.
        skip: the layers that stay dense, in the same forms.

    Returns:
        A functional `tf_keras.Model`; compile it before training. `strip` makes a plain Keras 3
        model of it.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an argument is out of range, if nothing in the student can be pruned, or if
            the student is already pruned or quantization-aware.
    """
    check_model("student", student)
    timetable = Timetable(begin_step, end_step, frequency)
    final_sparsity = _check_sparsity(initial_sparsity, final_sparsity, m_by_n)
    if block_size is not None:
        _check_pair("block_size", block_size, "the rows and columns of a block, such as (1, 4)")
    graph = graphs.read(student)
    check_state(graph, (), "call `strip` first, and prune before `cluster` and `quantize_aware`")
    chosen = select(graph, layers, skip, _can_prune, "pruned")

    from keras_kd.compression.pruning import _wrapper

    plain = to_tf_keras(student)
    _check_shapes([plain.get_layer(name) for name in chosen], block_size, m_by_n)
    schedule = _wrapper.Schedule(initial_sparsity, final_sparsity, timetable)
    wrappers: list[Any] = []

    def wrap(layer: Any) -> Any:
        if layer.name not in chosen:
            return layer
        wrappers.append(
            _wrapper.PruneLowMagnitude(
                layer,
                pruning_schedule=schedule,
                block_size=block_size or (1, 1),
                sparsity_m_by_n=m_by_n,
            )
        )
        return wrappers[-1]

    pruned = rebuild(graphs.read(plain), tf_keras(), lambda layer: [record_of(layer)], wrap)
    if timetable.is_known:
        # TF-MOT leaves it to its callback, without which a step would end in an assertion.
        for wrapper in wrappers:
            wrapper.pruning_step.assign(0)
    pruned.training_callbacks = lambda: [_wrapper.PruningCallback(wrappers, schedule)]
    return pruned


def _check_sparsity(initial: float, final: float | None, m_by_n: tuple[int, int] | None) -> float:
    if m_by_n is not None:
        zeros, of = _check_pair("m_by_n", m_by_n, "(zeros, out of how many), such as (2, 4)")
        if zeros >= of or (final is not None and abs(final - zeros / of) > 1e-6):
            raise ValueError(
                problem(
                    f"m_by_n={m_by_n!r} with final_sparsity={final!r}",
                    "m below n, and no final_sparsity other than m / n",
                    "leave final_sparsity out, or choose another m_by_n",
                )
            )
        return zeros / of
    final = 0.8 if final is None else final
    fix = "0.8 prunes four weights of five"
    below_one = 1 - 1e-9
    check_number("final_sparsity", final, above=0, at_most=below_one, fix=fix)
    check_number("initial_sparsity", initial, at_least=0, at_most=final, fix="leave it at 0.0")
    return float(final)


def _check_pair(name: str, value: Any, meaning: str) -> tuple[int, int]:
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2
    if not is_pair or not all(type(number) is int and number > 0 for number in value):
        raise ValueError(
            problem(f"{name}={value!r}", f"two whole numbers: {meaning}", f"correct `{name}`")
        )
    return value[0], value[1]


def _can_prune(layer: Any) -> bool:
    return type(layer).__name__ in PRUNABLE_WEIGHTS and layer.trainable


def _check_shapes(
    layers: Sequence[Any], block_size: tuple[int, int] | None, m_by_n: tuple[int, int] | None
) -> None:
    """Blocks need two dimensions, m by n two or four; TF-MOT says so only while it trains."""
    for pattern, ranks in (("block_size", (2,)), ("m_by_n", (2, 4))):
        if {"block_size": block_size, "m_by_n": m_by_n}[pattern] is None:
            continue
        others = [
            layer.name
            for layer in layers
            if len(getattr(layer, PRUNABLE_WEIGHTS[type(layer).__name__]).shape) not in ranks
        ]
        if others:
            raise ValueError(
                problem(
                    f"{pattern} for the layers {others}",
                    f"kernels with {' or '.join(map(str, ranks))} dimensions",
                    f"pass skip={others}",
                )
            )
