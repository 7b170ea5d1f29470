"""Summary of a student, layer by layer: zeros, values, bits, ranks and sizes."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._keras import check_model, is_keras_model, is_model
from keras_kd._tables import Report, Table, row_named
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.weights import is_seed, weight_name
from keras_kd.compression.factorization.candidate import FactorizedLayer, factorization_of
from keras_kd.compression.families import family_of
from keras_kd.compression.kernels import CLUSTERABLE, PRUNABLE, Kernel, is_depthwise, kernels
from keras_kd.compression.layers import class_of, row_of
from keras_kd.compression.pruning.flow import shapes_of
from keras_kd.compression.quantization.summary import LayerQuantization, quantization_of
from keras_kd.compression.stripping import unwrapped


@dataclass(frozen=True)
class KernelSummary:
    """One kernel: its zeros, its different values, and its size in bytes in several forms.

    Attributes:
        layer: the layer's own name.
        kernel: the kernel's name in it.
        weights: the number of weights.
        zeros: the number of weights that are zero.
        values: the number of different weights.
        values_per_channel: the largest number of different weights in one output channel of a
            convolution; None for other layers.
        float_bytes: the size as it is.
        indexed_bytes: each weight as an index of ceil(log2(values)) bits into a list of the values,
            which is included; with a list for each channel, or as it is, where that is smaller.
        entropy_bytes: the same with the entropy of the indices instead: the lower bound of any code
            for single weights, such as Huffman's.
        gzip_bytes: the floats after gzip.
    """

    layer: str
    kernel: str
    weights: int
    zeros: int
    values: int
    values_per_channel: int | None
    float_bytes: int
    indexed_bytes: int
    entropy_bytes: int
    gzip_bytes: int


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes:
        name: the layer's own name; of a quantized input, its name.
        kind: its class, or "Input".
        parameters: the number of its weights, biases and statistics included.
        channels: the number of filters or units; None for other layers.
        kernels: the weights that compression acts on.
        quantization: how a quantization-aware student rounds here; None for other students.
        factorization: the ranks and errors of a layer that `factorize` has replaced; None for other
            layers. They are those of `factorize`, before any training, and are not saved.
        note: why a layer stays in float or where it is rounded instead; why it was not factorized.
    """

    name: str
    kind: str
    parameters: int
    channels: int | None
    kernels: tuple[KernelSummary, ...]
    quantization: LayerQuantization | None = None
    factorization: FactorizedLayer | None = None
    note: str = ""

    @property
    def sparsity(self) -> float | None:
        """The share of zeros in its kernels, between 0 and 1; None without kernels."""
        return _share_of_zeros((kernel.weights, kernel.zeros) for kernel in self.kernels)

    @property
    def values(self) -> int | None:
        """The largest number of different values in a kernel; None without kernels."""
        return max((kernel.values for kernel in self.kernels), default=None)


@dataclass(frozen=True)
class Summary(Report):
    """A student: `print` shows tables of what compression has changed in it.

    Attributes:
        name: the model's.
        parameters: the number of all weights.
        multiplications: of Dense and convolution layers, for one example; None for tf_keras
            models, subclassed models, and where sizes are not known before a model sees data.
        sparsity: the share of zeros in all kernels together, between 0 and 1; None without kernels.
            A depthwise kernel, which is pruned only on request, counts once it has a zero.
        layers: every layer.
        original: the model that this one is compared with.
    """

    name: str
    parameters: int
    multiplications: int | None
    sparsity: float | None
    layers: tuple[LayerSummary, ...]
    original: Summary | None = None

    def __getitem__(self, name: str) -> LayerSummary:
        """The layer of that name.

        Raises:
            KeyError: if there is none.
        """
        return row_named(self.layers, name)

    @property
    def kernels(self) -> tuple[KernelSummary, ...]:
        """The kernels of all layers."""
        return tuple(kernel for layer in self.layers for kernel in layer.kernels)

    @property
    def sparsities(self) -> dict[str, float]:
        """The sparsity of each layer with kernels, by name."""
        return {one.name: one.sparsity for one in self.layers if one.sparsity is not None}

    @property
    def values(self) -> dict[str, int]:
        """The largest number of different values in a kernel of each layer with kernels."""
        return {one.name: one.values for one in self.layers if one.values is not None}

    @property
    def float_bytes(self) -> int:
        """The size of all kernels as they are."""
        return sum(kernel.float_bytes for kernel in self.kernels)

    @property
    def indexed_bytes(self) -> int:
        """The size of all kernels as indices and lists of values."""
        return sum(kernel.indexed_bytes for kernel in self.kernels)

    @property
    def entropy_bytes(self) -> int:
        """The smallest size of all kernels with any code for single weights."""
        return sum(kernel.entropy_bytes for kernel in self.kernels)

    @property
    def gzip_bytes(self) -> int:
        """The size of all kernels after gzip, each for itself."""
        return sum(kernel.gzip_bytes for kernel in self.kernels)

    def _parts(self) -> Sequence[Table | str]:
        parts: list[Table | str] = [self._headline()]
        for table in (
            self._kernel_table(),
            self._channel_table(),
            self._quantization_table(),
            self._factorization_table(),
        ):
            if table.rows:
                parts += ["", table]
        factorized = any(layer.factorization for layer in self.layers)
        kept = [layer for layer in self.layers if factorized and layer.note]
        return [*parts, *(f"not factorized: {layer.name}, {layer.note}" for layer in kept)]

    def _headline(self) -> str:
        facts = [f"{self.parameters:,} parameters"]
        if self.multiplications is not None:
            facts.append(f"{self.multiplications:,} multiplications")
        if self.sparsity is not None:
            facts.append(f"{self.sparsity:.1%} zeros")
        return f"{self.name}: {', '.join(facts)}"

    def _kernel_table(self) -> Table:
        header = ("layer", "kernel", "weights", "zeros", "values", "channel")
        sizes = ("bytes", "indexed", "entropy", "gzip")
        rows = [
            (
                kernel.layer,
                kernel.kernel,
                _count(kernel.weights),
                f"{kernel.zeros / kernel.weights:.1%}",
                *map(_count, (kernel.values, kernel.values_per_channel)),
                *_sizes(kernel),
            )
            for kernel in self.kernels
        ]
        if rows:
            weights = sum(kernel.weights for kernel in self.kernels)
            overall = (_count(weights), f"{self.sparsity or 0:.1%}", "", "", *_sizes(self))
            rows.append(("overall", "", *overall))
        return Table((*header, *sizes), rows, left=2)

    def _channel_table(self) -> Table:
        header = ("filters or units of", "before", "after", "left")
        if self.original is None:
            return Table(header, [])
        before = {layer.name: layer.channels for layer in self.original.layers}
        counts = [(layer.name, before.get(layer.name), layer.channels) for layer in self.layers]
        counts.append(("all parameters", self.original.parameters, self.parameters))
        counts.append(("multiplications", self.original.multiplications, self.multiplications))
        rows = [
            (name, f"{old:,}", f"{new:,}", f"{new / old:.0%}")
            for name, old, new in counts
            if old and new is not None
        ]
        return Table(header, rows)

    def _quantization_table(self) -> Table:
        rows = [
            (layer.name, layer.kind, *layer.quantization.cells(), layer.note)
            for layer in self.layers
            if layer.quantization is not None
        ]
        return Table(("layer", "class", "weights", "output", "keeps", "note"), rows, left=6)

    def _factorization_table(self) -> Table:
        header = ("layer", "form", "kernel", "rank", "of", "before", "after")
        rows = [
            (layer.name, *layer.factorization.cells())
            for layer in self.layers
            if layer.factorization is not None
        ]
        return Table((*header, "error", "output error"), rows, left=3)

    def _records(self) -> Sequence[Mapping[str, Any]]:
        return [record for layer in self.layers for record in _records_of(layer)]


def summary(student: Any, original: Any = None) -> Summary:
    """Measure what compression has made of a student.

    The kernels are the weights that `prune` and `cluster` act on: those of Dense, EinsumDense and
    convolution layers, the pointwise ones of separable convolutions, those of recurrent layers,
    attention and embeddings, also inside custom layers, in frozen layers too. Biases and
    normalizations are no kernels.

    Sizes are those of the kernels, not of a file: a `.tflite` file holds floats or integers, never
    indices. Clustering and pruning do not shrink the file, but its size after gzip.

    Args:
        student: a model of either Keras, plain, pruned, clustered, quantization-aware or
            factorized; the float weights are measured that `strip` gives.
        original: the student from before `remove_filters` or `factorize`, to compare with.

    Returns:
        A `Summary`: `print` shows tables, `summary["conv"]` is one layer, and `to_dict` and
        `to_dataframe` give the numbers.

    Raises:
        ValueError: if one of the two is no model, or if they have no layer in common.

    Example:
        >>> print(summary(student))
        student: 3,462 parameters, 31,200 multiplications, 0.0% zeros
        <BLANKLINE>
        layer    kernel  weights  zeros  values  channel   bytes  indexed  entropy    gzip
        conv     kernel       72   0.0%      16        7     288      100       93     132
        logits   kernel    3,380   0.0%      16            13,520    1,754    1,528   2,017
        overall            3,452   0.0%                    13,808    1,854    1,621   2,149
    """
    check_model("student", student)
    before = None if original is None else summary(original)
    factorization = factorization_of(student)
    quantization = quantization_of(student)
    plain = list(_plain_layers(student))
    layers = tuple(_layer(*each, quantization, factorization) for each in plain)
    names = {layer.name for layer in layers}
    if before is not None and names.isdisjoint(layer.name for layer in before.layers):
        raise problem(
            f"two models, {student.name!r} and {before.name!r}, without a common layer",
            "a student and the model that it was made from",
            "pass the student from before `remove_filters` or `factorize`",
        )
    return Summary(
        name=student.name,
        parameters=sum(layer.parameters for layer in layers),
        multiplications=_multiplications(student),
        sparsity=_sparsity(plain),
        layers=layers,
        original=before,
    )


def sparsity_of(model: Any) -> float | None:
    """The attribute `sparsity` of the `Summary` of a model, without the rest of it."""
    return _sparsity(_plain_layers(model))


def kernel_values(model: Any) -> Iterator[np.ndarray]:
    """The kernels of a model as they are after `strip`."""
    for layer, weights in _plain_layers(model):
        for _, value in _values(layer, weights):
            yield value


def _sparsity(layers: Iterable[tuple[Any, Mapping[str, Any]]]) -> float | None:
    return _share_of_zeros(
        (value.size, zeros)
        for layer, weights in layers
        for _, value in _values(layer, weights)
        if (zeros := int(np.sum(value == 0))) or not is_depthwise(layer)
    )


def _plain_layers(model: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The layers of a model and of those nested in it, with their weights after `strip`."""
    for layer in model.layers:
        if is_model(layer):
            yield from _plain_layers(layer)
        elif type(layer).__name__ != "InputLayer":
            yield unwrapped(layer)


def _values(layer: Any, weights: Mapping[str, Any]) -> Iterator[tuple[Kernel, np.ndarray]]:
    """The kernels of a plain layer, with their values."""
    found = [*kernels(layer, PRUNABLE), *kernels(layer, CLUSTERABLE)]
    for kernel in {kernel.name: kernel for kernel in found}.values():
        value = weights[kernel.name]
        # NumPy has no array of a variable that tf.distribute mirrors.
        yield kernel, value if isinstance(value, np.ndarray) else value.numpy()


def _layer(
    layer: Any,
    weights: Mapping[str, Any],
    quantization: Mapping[str, tuple[LayerQuantization, str]],
    factorization: Mapping[str, FactorizedLayer | str],
) -> LayerSummary:
    row = row_of(class_of(layer))
    # What is left of TF-MOT's layers here is the one that quantizes an input.
    is_input = family_of(layer) is not None
    name = layer.name.removeprefix("quantize_") if is_input else layer.name
    quantized, note = quantization.get(name, (None, ""))
    factorized = factorization.get(name)
    return LayerSummary(
        name=name,
        kind="Input" if is_input else class_of(layer).__name__,
        parameters=sum(
            math.prod(weight.shape) for name, weight in weights.items() if not is_seed(name)
        ),
        channels=None if row is None or row.size is None else getattr(layer, row.size),
        kernels=tuple(_measured(layer, kernel, value) for kernel, value in _values(layer, weights)),
        quantization=quantized,
        factorization=factorized if isinstance(factorized, FactorizedLayer) else None,
        note=factorized if isinstance(factorized, str) else note,
    )


def _measured(layer: Any, found: Kernel, kernel: np.ndarray) -> KernelSummary:
    axis = found.channel_axis
    channels = None if axis is None else np.moveaxis(kernel, axis, 0)
    whole = _Codes([kernel])
    split = whole if channels is None else _Codes(channels)
    return KernelSummary(
        layer=layer.name,
        kernel=found.name,
        weights=kernel.size,
        zeros=int(np.sum(kernel == 0)),
        values=whole.most_values,
        values_per_channel=None if channels is None else split.most_values,
        float_bytes=kernel.nbytes,
        indexed_bytes=min(kernel.nbytes, whole.indexed_bytes, split.indexed_bytes),
        entropy_bytes=min(kernel.nbytes, whole.entropy_bytes, split.entropy_bytes),
        gzip_bytes=len(gzip.compress(kernel.tobytes(), mtime=0)),
    )


class _Codes:
    """Groups of weights, each coded with its own list of values."""

    def __init__(self, groups: Iterable[np.ndarray]) -> None:
        groups = list(groups)
        self._occurrences = [np.unique(group, return_counts=True)[1] for group in groups]
        self._lists = sum(map(len, self._occurrences)) * groups[0].itemsize

    @property
    def most_values(self) -> int:
        return max(map(len, self._occurrences))

    @property
    def indexed_bytes(self) -> int:
        bits = (counts.sum() * math.ceil(math.log2(len(counts))) for counts in self._occurrences)
        return self._lists + math.ceil(sum(bits) / 8)

    @property
    def entropy_bytes(self) -> int:
        bits = (np.sum(counts * np.log2(counts.sum() / counts)) for counts in self._occurrences)
        return self._lists + math.ceil(sum(bits) / 8)


def _share_of_zeros(counts: Iterable[tuple[int, int]]) -> float | None:
    counts = list(counts)
    weights = sum(count for count, _ in counts)
    return sum(zeros for _, zeros in counts) / weights if weights else None


def _multiplications(model: Any) -> int | None:
    if not is_keras_model(model):
        return None
    try:
        graph = graphs.read(model)
    except ValueError:
        # A subclassed model has no graph.
        return None
    shapes = shapes_of(graph)
    total = 0
    for call in graph.calls:
        row = row_of(type(call.layer))
        if row is None or row.channels not in ("mix", "depthwise"):
            continue
        # Each entry of a kernel is used once per position; a transposed convolution spreads inputs.
        slot = call.operands()[0] if row.name.endswith("Transpose") else call.results[0]
        sizes = shapes[slot][1:-1]
        positions = [size for size in sizes if size is not None]
        if len(positions) < len(sizes):
            return None
        used = [math.prod(w.shape) for w in call.layer.weights if row.kernel(weight_name(w))]
        total += sum(used) * math.prod(positions)
    return total


def _records_of(layer: LayerSummary) -> Iterator[Mapping[str, Any]]:
    common = {
        "layer": layer.name,
        "class": layer.kind,
        "parameters": layer.parameters,
        "channels": layer.channels,
    }
    more = [each for each in (layer.quantization, layer.factorization) if each is not None]
    facts = {name: value for each in more for name, value in asdict(each).items()}
    for kernel in layer.kernels or [None]:
        yield common | (asdict(kernel) if kernel else {}) | facts | {"note": layer.note}


def _sizes(measured: KernelSummary | Summary) -> tuple[str, ...]:
    names = ("float_bytes", "indexed_bytes", "entropy_bytes", "gzip_bytes")
    return tuple(_count(getattr(measured, name)) for name in names)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
