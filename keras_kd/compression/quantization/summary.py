"""Rounding in each layer of a quantization-aware student, and the layers that stay in float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keras_kd._keras import is_keras_model, tf_keras
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild
from keras_kd.compression.families import family_of
from keras_kd.compression.layers import Rounding, class_of
from keras_kd.compression.quantization.placement import Placement, place
from keras_kd.compression.quantization.structure import parts_of_structure
from keras_kd.compression.stripping import dismantle


@dataclass(frozen=True)
class LayerQuantization:
    """How one layer of a quantization-aware student rounds.

    Attributes:
        weight_bits: of its kernels, the fewest where they differ; None if they stay in float or if
            it has none.
        per_channel: whether a kernel has a range for each channel; None likewise.
        keeps: what training leaves as earlier compressions made it: "zeros", "clusters", both or
            nothing.
        output_bits: of its outputs; None if they are not rounded here.
        output_range: the smallest and the largest output that can be represented; None likewise.
        is_float: whether the layer computes in float while the student trains.
    """

    weight_bits: int | None
    per_channel: bool | None
    keeps: tuple[str, ...]
    output_bits: int | None
    output_range: tuple[float, float] | None
    is_float: bool = False

    def cells(self) -> tuple[str, str, str]:
        """Weights, output and what is kept, as texts."""
        weights = output = "-"
        if self.weight_bits is not None:
            scope = "channel" if self.per_channel else "tensor"
            weights = f"{self.weight_bits} bits per {scope}"
        if self.output_range is not None:
            low, high = self.output_range
            output = f"{self.output_bits} bits, {low:.4g} to {high:.4g}"
        return weights, output, " and ".join(self.keeps)


def quantization_of(student: Any) -> dict[str, tuple[LayerQuantization, str]]:
    """How each layer of a student rounds, by name, and a note; empty if it does not."""
    if is_keras_model(student):
        return {}
    return dict(_rows(graphs.read(student))) if any(map(_is_quantized, student.layers)) else {}


def _is_quantized(layer: Any) -> bool:
    family = family_of(layer)
    return family is not None and family.name == "quantize_aware"


def _rows(graph: graphs.Graph) -> Iterator[tuple[str, tuple[LayerQuantization, str]]]:
    quantized = [layer for layer in graph.layers() if _is_quantized(layer)]
    wrappers = {layer.layer.name: layer for layer in quantized if hasattr(layer, "layer")}
    for layer in quantized:
        if not hasattr(layer, "layer"):
            quantizer, limits = layer.quantizer, _limits(layer.quantizer_vars)
            row = LayerQuantization(None, None, (), quantizer.num_bits, limits)
            note = "fixed by input_range" if layer.has_fixed_range else ""
            yield layer.name.removeprefix("quantize_"), (row, note)
    plain = graphs.read(rebuild(graph, tf_keras(), dismantle))
    rounded = {name for name, wrapper in wrappers.items() if wrapper.rounds}
    every = place(plain, [layer.name for layer in plain.layers()], per_channel=True)
    chosen = rounded | {layer.name for layer in plain.layers() if not every[id(layer)].is_quantized}
    placements = place(plain, chosen, per_channel=True)
    for layer in plain.layers():
        yield layer.name, _row(layer, wrappers.get(layer.name), placements[id(layer)])


def _row(layer: Any, wrapper: Any, placement: Placement) -> tuple[LayerQuantization, str]:
    weights = [] if wrapper is None else wrapper.weight_quantizers
    rounding = [item for _, item, _ in weights if hasattr(item, "num_bits")]
    kept = [variables["structure"].numpy() for *_, variables in weights if "structure" in variables]
    output = None if wrapper is None else wrapper.output_quantizer
    quantization = LayerQuantization(
        weight_bits=min((item.num_bits for item in rounding), default=None),
        per_channel=_has_ranges_by_channel(layer, rounding, placement) if rounding else None,
        keeps=tuple(dict.fromkeys(part for one in kept for part in parts_of_structure(one))),
        output_bits=None if output is None else output[0].num_bits,
        output_range=None if output is None else _limits(output[1]),
        is_float=placement.kind is Rounding.FLOAT,
    )
    return quantization, _note(placement, {item.num_bits for item in rounding})


def _note(placement: Placement, bits: set[int]) -> str:
    if placement.kind is Rounding.FLOAT:
        return f"float: {placement.note}"
    # Of the two kernels of a separable convolution.
    depthwise = f"{max(bits)} bits in its depthwise kernel" if len(bits) > 1 else ""
    return "; ".join(part for part in (placement.note, depthwise) if part)


def _has_ranges_by_channel(layer: Any, rounding: list[Any], placement: Placement) -> bool:
    """Whether a kernel has a range for each channel in the file."""
    if any(item.per_axis for item in rounding):
        return True
    # The factors of the normalization become part of the scales.
    return class_of(layer).__name__ == "Conv2DTranspose" and placement.note.startswith("folded")


def _limits(variables: Mapping[str, Any]) -> tuple[float, float]:
    return float(variables["min_var"].numpy()), float(variables["max_var"].numpy())
