"""A plain student with TF-MOT's quantizers put into it. Importing this imports TF-MOT."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tf_keras

from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild
from keras_kd.compression.bridge.translation import record_of
from keras_kd.compression.kernels import CLUSTERABLE, Kernel, kernels
from keras_kd.compression.quantization._quantizers import (
    StructureKeeper,
    WeightQuantizer,
    activation_quantizer,
    input_quantizer,
)
from keras_kd.compression.quantization._wrapper import (
    QuantizeConfig,
    QuantizeLayer,
    QuantizeWrapper,
    wrappers,
)
from keras_kd.compression.quantization.placement import (
    Placement,
    bits_of_kernel,
    inputs_to_quantize,
    place,
)
from keras_kd.compression.quantization.structure import structure_of


@dataclass(frozen=True)
class Scheme:
    """How a student is quantized; see `quantize_aware`.

    Attributes:
        weight_bits: of weights; up to 4 not where no runtime has them (`bits_of_kernel`).
        activation_bits: of activations, outputs and inputs.
        per_channel: whether kernels have a range for each channel where that is possible.
        input_ranges: the fixed range of each input by its name, or None.
        preserve_sparsity: whether zeros are kept.
        preserve_clusters: whether equal weights are kept equal.
    """

    weight_bits: int
    activation_bits: int
    per_channel: bool
    input_ranges: Mapping[str, tuple[float, float] | None]
    preserve_sparsity: bool
    preserve_clusters: bool

    def apply(self, graph: graphs.Graph, chosen: Collection[str]) -> Any:
        """A new model in which the chosen layers of a plain tf_keras graph are quantized."""
        placements = place(graph, chosen, self.per_channel)
        structures = {layer.name: self._structures(layer) for layer in graph.layers()}
        configs = {
            layer.name: self._config(layer, placements[id(layer)], structures[layer.name])
            for layer in graph.layers()
        }

        def wrap(layer: Any) -> Any:
            config = configs.get(layer.name)
            return layer if config is None else QuantizeWrapper(layer, config)

        quantized = rebuild(
            self._with_quantized_inputs(graph, placements),
            tf_keras,
            lambda layer: [record_of(layer)],
            wrap,
        )
        for wrapper in wrappers(quantized):
            for path, variables in wrapper.weight_variables():
                if "structure" in variables:
                    variables["structure"].assign(structures[wrapper.layer.name][path])
        return quantized

    def _structures(self, layer: Any) -> dict[str, np.ndarray]:
        """The structures to keep in a layer, by the paths of its weights."""
        if not layer.trainable:
            return {}
        found = {}
        for path, kernel in _by_path(layer):
            axis = kernel.channel_axis
            found[path] = structure_of(
                kernel.weight.numpy(),
                -1 if axis is None else axis,
                zeros=self.preserve_sparsity,
                clusters=self.preserve_clusters,
            )
        return {path: structure for path, structure in found.items() if structure is not None}

    def _config(
        self, layer: Any, placement: Placement, structures: Mapping[str, np.ndarray]
    ) -> QuantizeConfig | None:
        """What the wrapper of a layer does; None if it needs none."""
        weights: dict[str, Any] = {path: StructureKeeper() for path in structures}
        for path, channel_axes in placement.weights.items():
            bits = bits_of_kernel(layer, path, self.weight_bits)
            weights[path] = WeightQuantizer(bits, channel_axes, path in structures)
        between, activation, output = (
            activation_quantizer(self.activation_bits) if is_quantized else None
            for is_quantized in (placement.between, placement.activation, placement.output)
        )
        if not weights and output is None:
            return None
        return QuantizeConfig(weights, between, activation, output)

    def _with_quantized_inputs(
        self, graph: graphs.Graph, placements: Mapping[int, Placement]
    ) -> graphs.Graph:
        """The graph with a layer that quantizes it after each input for which one is needed."""
        specs = [graph.input_specs[index] for index in inputs_to_quantize(graph, placements)]
        unused = 1 + max(slot.index for slot in _every_slot(graph))
        quantized = {spec.slot: graphs.Slot(unused + number) for number, spec in enumerate(specs)}
        calls = [
            graphs.Call(layer, layer.name, ((spec.slot,), {}), (quantized[spec.slot],), True)
            for spec in specs
            for layer in [self._input_layer(spec)]
        ]
        for call in graph.calls:
            arguments = keras.tree.map_structure(
                lambda leaf: quantized.get(leaf, leaf) if isinstance(leaf, graphs.Slot) else leaf,
                call.arguments,
            )
            calls.append(replace(call, arguments=arguments))
        return replace(graph, calls=tuple(calls))

    def _input_layer(self, spec: graphs.InputSpec) -> QuantizeLayer:
        quantizer = input_quantizer(self.activation_bits, self.input_ranges[spec.name])
        layer = QuantizeLayer(quantizer, name=f"quantize_{spec.name}")
        layer.build(spec.shape)
        return layer


def _by_path(layer: Any) -> Iterator[tuple[str, Kernel]]:
    """The weights in a layer that earlier compressions act on, and where they are."""
    places = {id(part): path for part, path in _places(layer, "")}
    for kernel in kernels(layer, CLUSTERABLE):
        if id(kernel.part) in places:
            yield places[id(kernel.part)] + kernel.attribute, kernel


def _places(layer: Any, prefix: str) -> Iterator[tuple[Any, str]]:
    """A layer and those that it has as attributes, each with the path to its own attributes."""
    yield layer, prefix
    for name, value in sorted(vars(layer).items()):
        if isinstance(value, tf_keras.layers.Layer):
            yield from _places(value, f"{prefix}{name}.")


def _every_slot(graph: graphs.Graph) -> list[graphs.Slot]:
    return [
        *(spec.slot for spec in graph.input_specs),
        *(slot for call in graph.calls for slot in call.results),
    ]
