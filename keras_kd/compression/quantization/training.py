"""Quantization-aware training: the student learns with the rounding errors of 8 bits."""

from __future__ import annotations

from typing import Any

from keras_kd._checks import problem
from keras_kd._keras import check_model, is_keras_model, tf_keras
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild, to_tf_keras
from keras_kd.compression.bridge.translation import record_of
from keras_kd.compression.quantization.calibration import calibrate
from keras_kd.compression.state import CLUSTERED, PRUNED, check_state
from keras_kd.compression.stripping import dismantle


def quantize_aware(student: Any, representative_data: Any = None) -> Any:
    """Make a student that computes as if in 8 bits while it trains (Jacob et al., 2018).

    TF-MOT's default 8-bit scheme. Weights that are exactly zero stay zero (a student that was
    pruned keeps its sparsity), frozen layers stay frozen. Layers that TF-MOT does not support
    compute in float and have their outputs quantized; embeddings stay in float.

    Args:
        student: a Sequential or Functional model of either Keras, plain or pruned; it is not
            changed.
        representative_data: inputs like those that the student is trained on, from which the ranges
            of activations are measured: an array, a dict of arrays by input name where there are
            several inputs, or an iterable of batches of these. Without it they begin at -6 to 6 and
            follow slowly while the student trains, which costs accuracy in trainings of fewer than
            some thousand steps.

    Returns:
        A functional `tf_keras.Model`; compile it before training. Save it as `.h5`: TF-MOT's own
        layers do not load from `.keras`. One that was loaded converts as it was, but does not guard
        its zeros any more; to train a sparse one further, pass `strip(loaded)` here again.

    Raises:
        TypeError: if `representative_data` is of another type.
        ValueError: if TF-MOT cannot quantize the student (it cannot where there are masks), if it
            is quantization-aware already, or if `representative_data` does not fit.
    """
    check_model("student", student)
    graph = graphs.read(student)
    _check_can_be_quantized(graph)

    from keras_kd.compression.quantization import _scheme

    def split(layer: Any) -> list[Any]:
        return [part for record in dismantle(layer) for part in _scheme.split(record)]

    plain = rebuild(_graph_in_tf_keras(student), tf_keras(), split)
    graph = graphs.read(plain)
    folding, in_float = _scheme.folding_layers(graph), _scheme.float_layers(graph)

    def annotate(layer: Any) -> Any:
        is_float = layer.name in in_float
        return layer if is_float else _scheme.annotate(layer, layer.name in folding)

    annotated = rebuild(graph, tf_keras(), lambda layer: [record_of(layer)], annotate)
    quantized = _scheme.apply(annotated)
    if representative_data is not None:
        calibrate(
            quantized,
            _scheme.quantize_layers(quantized),
            _scheme.wrappers(quantized),
            representative_data,
        )
    return quantized


def _check_can_be_quantized(graph: graphs.Graph) -> None:
    check_state(graph, (PRUNED, CLUSTERED), "train this one, or call `strip` on it first")
    for layer in graph.layers():
        if type(layer).__name__ == "Masking" or getattr(layer, "mask_zero", False):
            raise ValueError(
                problem(
                    f"a student with masks (layer {layer.name!r}), which TF-MOT's wrappers drop",
                    "a student without masks",
                    "build it with mask_zero=False and without Masking, or leave"
                    " quantization-aware training out",
                )
            )


def _graph_in_tf_keras(student: Any) -> graphs.Graph:
    # A pruned student must not be copied: the copy has no trained masks.
    return graphs.read(to_tf_keras(student) if is_keras_model(student) else student)
