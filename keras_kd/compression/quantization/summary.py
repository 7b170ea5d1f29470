"""What of a quantization-aware student is quantized, how, and why the rest is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keras_kd._checks import problem
from keras_kd._keras import check_model, is_keras_model, tf_keras
from keras_kd._tables import aligned
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild
from keras_kd.compression.layers import Rounding
from keras_kd.compression.quantization.placement import Placement, class_of, place
from keras_kd.compression.quantization.structure import parts_of_structure
from keras_kd.compression.state import QUANTIZATION_AWARE, state_of
from keras_kd.compression.stripping import dismantle


@dataclass(frozen=True)
class LayerQuantization:
    """One layer of a quantization-aware student.

    Attributes:
        name: the layer's own name.
        kind: its class.
        weight_bits: of its kernels, the fewest where they differ; None if they stay in float or if
            it has none.
        per_channel: whether a kernel has a range for each channel; None likewise.
        keeps: what training leaves as earlier compressions made it: "zeros", "clusters", both or
            nothing.
        output_bits: of its outputs; None if they are not rounded here.
        output_range: the smallest and the largest output that can be told apart; None likewise.
        note: why something stays in float, or where it is rounded instead.
    """

    name: str
    kind: str
    weight_bits: int | None
    per_channel: bool | None
    keeps: tuple[str, ...]
    output_bits: int | None
    output_range: tuple[float, float] | None
    note: str

    @property
    def is_float(self) -> bool:
        """Whether the layer computes in float while the student trains."""
        return self.note.startswith("float")


@dataclass(frozen=True)
class Quantization:
    """The layers of a quantization-aware student, inputs first; `print` it for a table."""

    layers: tuple[LayerQuantization, ...]

    def __getitem__(self, name: str) -> LayerQuantization:
        """The layer of that name.

        Raises:
            KeyError: if there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def __str__(self) -> str:
        header = ("layer", "class", "weights", "output", "note")
        return aligned(header, [_cells(layer) for layer in self.layers], left=5)


def quantization_summary(student: Any) -> Quantization:
    """Say of each layer of a quantization-aware student what is quantized, how, or why not.

    Args:
        student: what `quantize_aware` returned, trained or not.

    Raises:
        ValueError: if it is no quantization-aware student.
    """
    check_model("student", student)
    graph = None if is_keras_model(student) else graphs.read(student)
    if graph is None or QUANTIZATION_AWARE not in map(state_of, graph.layers()):
        raise problem(
            f"model {student.name!r}, which is not quantization-aware",
            "what `quantize_aware` returned",
            "call keras_kd.compression.quantize_aware first, and this before `strip`",
        )
    return Quantization(tuple(_rows(graph)))


def _rows(graph: graphs.Graph) -> Iterator[LayerQuantization]:
    quantized = [layer for layer in graph.layers() if state_of(layer) == QUANTIZATION_AWARE]
    wrappers = {layer.layer.name: layer for layer in quantized if hasattr(layer, "layer")}
    for layer in quantized:
        if not hasattr(layer, "layer"):
            yield _row_of_input(layer)
    plain = graphs.read(rebuild(graph, tf_keras(), dismantle))
    rounded = {name for name, wrapper in wrappers.items() if wrapper.rounds}
    every = place(plain, [layer.name for layer in plain.layers()], per_channel=True)
    chosen = rounded | {layer.name for layer in plain.layers() if not every[id(layer)].is_quantized}
    placements = place(plain, chosen, per_channel=True)
    for layer in plain.layers():
        wrapper = wrappers.get(layer.name)
        yield _row(layer, wrapper, placements[id(layer)])


def _row_of_input(layer: Any) -> LayerQuantization:
    quantizer, variables = layer.quantizer, layer.quantizer_vars
    return LayerQuantization(
        name=layer.name.removeprefix("quantize_"),
        kind="Input",
        weight_bits=None,
        per_channel=None,
        keeps=(),
        output_bits=quantizer.num_bits,
        output_range=_limits(variables),
        note="fixed by input_range" if layer.has_fixed_range else "",
    )


def _row(layer: Any, wrapper: Any, placement: Placement) -> LayerQuantization:
    weights = [] if wrapper is None else wrapper.weight_quantizers
    rounding = [item for _, item, _ in weights if hasattr(item, "num_bits")]
    kept = [variables["structure"].numpy() for *_, variables in weights if "structure" in variables]
    output = None if wrapper is None else wrapper.output_quantizer
    return LayerQuantization(
        name=layer.name,
        kind=class_of(layer).__name__,
        weight_bits=min((item.num_bits for item in rounding), default=None),
        per_channel=_has_ranges_by_channel(layer, rounding, placement) if rounding else None,
        keeps=tuple(dict.fromkeys(part for one in kept for part in parts_of_structure(one))),
        output_bits=None if output is None else output[0].num_bits,
        output_range=None if output is None else _limits(output[1]),
        note=_note(placement, {item.num_bits for item in rounding}),
    )


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


def _cells(layer: LayerQuantization) -> tuple[str, ...]:
    weights = output = "-"
    if layer.weight_bits is not None:
        weights = f"{layer.weight_bits} bits per {'axis' if layer.per_channel else 'tensor'}"
    if layer.output_range is not None:
        low, high = layer.output_range
        output = f"{layer.output_bits} bits, {low:.4g} to {high:.4g}"
    kept = f"keeps {' and '.join(layer.keeps)}" if layer.keeps else ""
    note = "; ".join(part for part in (kept, layer.note) if part)
    return layer.name, layer.kind, weights, output, note
