"""Tensors that TensorFlow's converter would give a range that is not theirs.

Some operators need one scale for what they read and what they write. Where such an operator reads
several tensors, the converter gives each of them the range of its result, for all their readers:
in `h + minimum(h, 0.2)` the addition reads an `h` that ends at 0.2. In the file with calibrated
ranges, which the converter makes first, such a tensor can be kept apart: the operator reads a copy
with the other scale, QUANTIZE in the finished file.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_kd.tflite.contents.packing import operator_code, operator_name

# One scale for all that they read and write.
_ONE_SCALE = (
    "AVERAGE_POOL_2D",
    "BATCH_TO_SPACE_ND",
    "BROADCAST_TO",
    "CONCATENATION",
    "DEPTH_TO_SPACE",
    "DYNAMIC_UPDATE_SLICE",
    "EXPAND_DIMS",
    "GATHER",
    "GATHER_ND",
    "MAXIMUM",
    "MAX_POOL_2D",
    "MINIMUM",
    "MIRROR_PAD",
    "PACK",
    "PAD",
    "PADV2",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "REVERSE_V2",
    "SELECT",
    "SELECT_V2",
    "SLICE",
    "SPACE_TO_BATCH_ND",
    "SPACE_TO_DEPTH",
    "SPLIT",
    "SPLIT_V",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TILE",
    "TRANSPOSE",
    "UNPACK",
)
# Of these, what they read must not be cut off: the mean of clipped numbers is another.
_AVERAGING = ("AVERAGE_POOL_2D", "RESIZE_BILINEAR")
# From where to where, whatever was calibrated.
_FIXED = {
    "LOGISTIC": (0.0, 255 / 256),
    "SOFTMAX": (0.0, 255 / 256),
    "TANH": (-1.0, 127 / 128),
    "L2_NORMALIZATION": (-1.0, 127 / 128),
    "LOG_SOFTMAX": (-255 / 16, 0.0),
}
_STEPS = 255
# Twice as wide a range costs the other readers one bit; a copy costs time and memory.
_MOST_WIDENED = 2.0


class _Range(NamedTuple):
    """What 8 bits hold: the numbers from -128 - zero_point to 127 - zero_point, times the scale."""

    scale: float
    zero_point: int

    @classmethod
    def of(cls, low: float, high: float) -> _Range:
        """One that holds all from `low` to `high`, and 0.

        Its ends are numbers of float32, whose quotient is the very scale: other ones would differ
        in the last bit after they have been in a file, and so be another scale.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        fraction, exponent = math.frexp(max((high - low) / _STEPS, 1e-30))
        scale = math.ldexp(math.ceil(fraction * 4096), exponent - 12)
        return cls(scale, round(-128 - low / scale))

    @classmethod
    def exactly(cls, low: float, high: float) -> _Range:
        """The one that holds these numbers, and 0, and no more."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / _STEPS
        return cls(scale, round(-128 - low / scale))

    @property
    def low(self) -> float:
        """The smallest number in it."""
        return self.scale * (-128 - self.zero_point)

    @property
    def high(self) -> float:
        """The largest number in it."""
        return self.scale * (127 - self.zero_point)

    def is_fit_for(self, other: _Range) -> bool:
        """Whether a tensor of the range `other` loses little if it is stored in this one."""
        cut_off = max(self.low - other.low, other.high - self.high)
        return cut_off <= other.scale and self.scale <= _MOST_WIDENED * other.scale


def keep_tensors_apart(model: Any, input_ranges: Mapping[str, tuple[float, float]] | None) -> bool:
    """Put QUANTIZE and DEQUANTIZE in front of operators that need another range of a tensor.

    No tensor then gets two ranges, or that of one of its readers.

    Args:
        model: the `ModelT` of a float32 file with calibrated ranges. It is changed.
        input_ranges: from where to where inputs reach, by their names, whatever was calibrated
            and whatever their readers need.

    Returns:
        Whether anything was changed.
    """
    graphs = [_Graph(model, graph) for graph in model.subgraphs]
    changed = [graphs[0].fix_inputs(input_ranges or {})]
    changed += [change() for graph in graphs for change in (graph.forget, graph.keep_apart)]
    return any(changed)


class _Graph:
    """A subgraph of a calibrated file."""

    def __init__(self, model: Any, graph: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._model = model
        self._graph = graph
        self._operators = list(graph.operators or [])
        codes = [operator_name(code) for code in model.operatorCodes or []]
        self._names = [codes[operator.opcodeIndex] for operator in self._operators]
        self._makers: dict[int, int] = {}
        self._reads = Counter(map(int, graph.outputs))
        for number, operator in enumerate(self._operators):
            self._makers.update(dict.fromkeys(map(int, operator.outputs), number))
            self._reads.update(map(int, operator.inputs))
        # What they will have: first as calibrated, then as readers demand.
        self._ranges = {i: r for i in range(len(graph.tensors)) if (r := self._range(i))}
        self._settled: set[int] = set()
        self._kept_as: dict[int, int] = {}
        self._inserted: dict[float, list[Any]] = {}

    def fix_inputs(self, ranges: Mapping[str, tuple[float, float]]) -> bool:
        """Give inputs their ranges, and what passes them on; return whether there are any."""
        for entry in self._model.signatureDefs[0].inputs if ranges else ():
            limits = ranges.get(entry.name.decode())
            if limits is not None:
                self._fix(int(entry.tensorIndex), _Range.exactly(*limits))
        return bool(ranges)

    def _fix(self, root: int, found: _Range) -> None:
        self._settled.add(root)
        for index in [index for index in self._ranges if self._root(index) == root]:
            self._ranges[index] = found
            quantization = self._graph.tensors[index].quantization
            quantization.min, quantization.max = [found.low], [found.high]

    def forget(self) -> bool:
        """Forget the ranges of what training has given one, and return whether there are any.

        The converter would store such a tensor in both, and go through real numbers in between.
        """
        readers: dict[int, set[str]] = {int(i): {"output"} for i in self._graph.outputs}
        for name, operator in zip(self._names, self._operators, strict=True):
            for index in map(int, operator.inputs):
                readers.setdefault(index, set()).add(name)
        restored = {i for i, n in self._makers.items() if self._names[n] == "DEQUANTIZE"}
        trained = [i for i in self._ranges if i in restored or readers.get(i) == {"QUANTIZE"}]
        for index in trained:
            del self._ranges[index]
            self._graph.tensors[index].quantization = None
        return bool(trained)

    def keep_apart(self) -> bool:
        """Insert copies where they are needed, and return whether there are any."""
        for number in reversed(range(len(self._operators))):
            reads = dict.fromkeys(i for i in self._floats(number) if not self._is_constant(i))
            if self._names[number] in _ONE_SCALE and len(self._floats(number)) > 1:
                self._serve(number, [index for index in reads if self._reached(index)])
        if not self._inserted:
            return False
        for index, found in self._ranges.items():
            quantization = self._graph.tensors[index].quantization
            if quantization is not None and quantization.min is not None:
                quantization.min, quantization.max = [found.low], [found.high]
        places = {**dict(enumerate([o] for o in self._operators)), **self._inserted}
        self._graph.operators = [o for place in sorted(places) for o in places[place]]
        return True

    def _serve(self, number: int, reads: list[int]) -> None:
        """Give an operator what it reads in the range of its result."""
        operator = self._operators[number]
        target = self._reached(int(operator.outputs[0]))
        if target is None:
            return
        bound = [index for index in reads if self._is_bound(index)]
        are_kept = any(not self._takes(index, target) for index in bound)
        for index in reads:
            if not (are_kept and index in bound):
                self._ranges[self._root(index)] = target
            elif self._reached(index) != target:
                copied = self._added(index, "copied")
                self._stored(self._kept(index), target, copied, number - 0.5)
                operator.inputs = _replaced(operator.inputs, index, copied)
            self._settled.add(self._root(index))

    def _takes(self, index: int, target: _Range) -> bool:
        """Whether a tensor may have this range for all its readers."""
        found = self._reached(index)
        is_free = self._root(index) not in self._settled
        return found == target or (is_free and found is not None and target.is_fit_for(found))

    def _reached(self, index: int) -> _Range | None:
        """The range that a tensor has so far."""
        return self._ranges.get(self._root(index))

    def _root(self, index: int) -> int:
        """The tensor whose scale this one has: operators with one operand keep it."""
        while (number := self._makers.get(index)) is not None and self._names[number] in _ONE_SCALE:
            floats = self._floats(number)
            if len(floats) != 1:
                break
            index = floats[0]
        return index

    def _is_bound(self, index: int) -> bool:
        """Whether its range is not for one reader to choose."""
        root = self._root(index)
        while self._reads[index] == 1 and index in self._makers:
            number = self._makers[index]
            if index == root:
                return self._names[number] in _FIXED
            others = [i for i in self._operators[number].outputs if self._reads[int(i)]]
            if self._names[number] in _AVERAGING or len(others) > 1:
                return True
            [index] = self._floats(number)
        return True

    def _floats(self, number: int) -> list[int]:
        """The real numbers that an operator reads, by index of the tensor."""
        read = [int(i) for i in self._operators[number].inputs if i >= 0]
        float32 = self._schema.TensorType.FLOAT32
        return [i for i in read if self._graph.tensors[i].type == float32]

    def _is_constant(self, index: int) -> bool:
        return self._model.buffers[self._graph.tensors[index].buffer].data is not None

    def _kept(self, index: int) -> int:
        """The index of a tensor in 8 bits, in a range that is its own and that no reader changes.

        All that read the tensor then read what is in these bits.
        """
        if index not in self._kept_as:
            source = self._added(index, "float")
            if index in self._makers:
                maker = self._operators[self._makers[index]]
                maker.outputs = _replaced(maker.outputs, index, source)
            else:
                self._make_input(source, index)
            place = self._makers.get(index, -1) + 0.25
            found = self._reached(index)
            assert found is not None  # `_serve` is called with tensors that have one.
            self._kept_as[index] = self._stored(source, found, index, place)
        return self._kept_as[index]

    def _make_input(self, new: int, old: int) -> None:
        """Let a new tensor be an input of the model instead of another one."""
        tensors = self._graph.tensors
        tensors[new].name, tensors[old].name = tensors[old].name, tensors[new].name
        self._graph.inputs = _replaced(self._graph.inputs, old, new)
        for signature in self._model.signatureDefs or []:
            if self._model.subgraphs[signature.subgraphIndex] is self._graph:
                for entry in signature.inputs:
                    entry.tensorIndex = new if entry.tensorIndex == old else entry.tensorIndex

    def _stored(self, source: int, found: _Range, result: int, place: float) -> int:
        """The index of what is between two tensors: the first one in 8 bits."""
        tensors = self._graph.tensors
        stored = self._added(source, "stored")
        tensors[stored].type = self._schema.TensorType.INT8
        tensors[stored].quantization = self._schema.QuantizationParametersT(
            scale=[found.scale], zeroPoint=[found.zero_point]
        )
        # What is calibrated must not compete with it.
        tensors[result].quantization = None
        self._inserted.setdefault(place, []).extend(
            [
                self._operator("QUANTIZE", source, stored),
                self._operator("DEQUANTIZE", stored, result),
            ]
        )
        return stored

    def _added(self, index: int, suffix: str) -> int:
        """The index of a new tensor like another one, without its range."""
        added = copy.copy(self._graph.tensors[index])
        added.name = (added.name or b"") + f"/{suffix}_{len(self._graph.tensors)}".encode()
        added.quantization = None
        self._graph.tensors.append(added)
        return len(self._graph.tensors) - 1

    def _operator(self, name: str, read: int, written: int) -> Any:
        code = operator_code(self._model, name)
        return self._schema.OperatorT(opcodeIndex=code, inputs=[read], outputs=[written])

    def _range(self, index: int) -> _Range | None:
        """What a tensor has been calibrated to."""
        name = self._names[self._makers[index]] if index in self._makers else None
        if name in _FIXED:
            return _Range.of(*_FIXED[name])
        quantization = self._graph.tensors[index].quantization
        lows = getattr(quantization, "min", None)
        if lows is None or len(lows) != 1:
            return None
        return _Range.of(float(lows[0]), float(quantization.max[0]))


def _replaced(indices: Any, old: int, new: int) -> list[int]:
    return [new if int(index) == old else int(index) for index in indices]
