"""The targets, one row each: what their runtimes accept, and the errors for the rest."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, problem, three_parts
from keras_kd.tflite.contents.packing import operator_code, operator_name, packed, unpacked
from keras_kd.tflite.conversion.forms import DENSE, FORMS, Form
from keras_kd.tflite.microcontroller import running
from keras_kd.tflite.microcontroller.agreement import compare_stored
from keras_kd.tflite.microcontroller.operators import registrations
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import random_stored

# The inputs that TFLM's CONCATENATION takes.
_MOST_INPUTS = 10


# TensorFlow Lite Micro (TFLM) lacks TILE, which RepeatVector, `tile` and `repeat` become, and its
# CONCATENATION takes ten inputs at most. Both become chains of CONCATENATIONs, which copy numbers
# and round nothing.


def rewritten(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The file without TILE and with no more than ten inputs for a CONCATENATION.

    Args:
        content: the bytes of a file that the converter has made.

    Returns:
        The bytes of a file that computes the same, and the names of the operators that were
        replaced in it; `content` itself if there were none.
    """
    model = unpacked(content)
    rewriter = _Rewriter(model)
    for graph in model.subgraphs:
        rewriter.rewrite(graph)
    if not rewriter.replaced:
        return content, ()
    _drop_unused_codes(model)
    return packed(model, len(content)), tuple(sorted(rewriter.replaced))


def _drop_unused_codes(model: Any) -> None:
    """Runtimes look for the kernel of each operator that is listed, also of those that none is."""
    operators = [operator for graph in model.subgraphs for operator in graph.operators or []]
    used = sorted({operator.opcodeIndex for operator in operators})
    numbers = {index: number for number, index in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for operator in operators:
        operator.opcodeIndex = numbers[operator.opcodeIndex]


class _Rewriter:
    """Replaces operators in an unpacked model; `replaced` has the names of those that it found."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._names = [operator_name(code) for code in model.operatorCodes]
        self.replaced: set[str] = set()

    def rewrite(self, graph: Any) -> None:
        """Replace what TFLM lacks in one graph."""
        operators: list[Any] = []
        for operator in graph.operators or []:
            name = self._names[operator.opcodeIndex]
            chain = None
            if name == "TILE":
                chain = self._tiled(graph, operator)
            elif name == "CONCATENATION" and len(operator.inputs) > _MOST_INPUTS:
                axis, inputs = operator.builtinOptions.axis, list(map(int, operator.inputs))
                chain = self._joined(graph, inputs, axis, int(operator.outputs[0]))
            if chain is not None:
                self.replaced.add(name)
            operators += [operator] if chain is None else chain
        graph.operators = operators

    def _tiled(self, graph: Any, operator: Any) -> list[Any] | None:
        """Along one axis after the other; None where it is not known how often."""
        source, multiples, result = (int(i) for i in (*operator.inputs, operator.outputs[0]))
        times = self._integers(graph.tensors[multiples])
        if times is None or not (times > 1).any() or (times < 1).any():
            return None
        axes = [axis for axis, count in enumerate(times) if count > 1]
        chain: list[Any] = []
        for axis in axes:
            inputs = [source] * int(times[axis])
            output = result if axis == axes[-1] else self._joined_tensor(graph, inputs, axis)
            chain += self._joined(graph, inputs, axis, output)
            source = output
        return chain

    def _joined(self, graph: Any, inputs: Sequence[int], axis: int, output: int) -> list[Any]:
        """The operators that put tensors one after the other into `output`."""
        chain: list[Any] = []
        parts = list(inputs)
        while len(parts) > _MOST_INPUTS:
            groups = [parts[i : i + _MOST_INPUTS] for i in range(0, len(parts), _MOST_INPUTS)]
            made: dict[tuple[int, ...], int] = {}
            parts = []
            for group in groups:
                if len(group) == 1:
                    parts += group
                    continue
                if tuple(group) not in made:
                    # The same tensors side by side need not be copied again.
                    made[tuple(group)] = self._joined_tensor(graph, group, axis)
                    chain.append(self._concatenation(group, axis, made[tuple(group)]))
                parts.append(made[tuple(group)])
        return [*chain, self._concatenation(parts, axis, output)]

    def _joined_tensor(self, graph: Any, inputs: Sequence[int], axis: int) -> int:
        """The index of a new tensor for some that are put one after the other."""
        tensor = copy.copy(graph.tensors[inputs[0]])
        shape = np.array(tensor.shape, np.int32)
        shape[axis] = sum(int(graph.tensors[index].shape[axis]) for index in inputs)
        tensor.shape, tensor.shapeSignature = shape, None
        # Its values are computed, also where those of the first one are stored.
        tensor.buffer = 0
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def _concatenation(self, inputs: Sequence[int], axis: int, output: int) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        return schema.OperatorT(
            opcodeIndex=operator_code(self._model, "CONCATENATION"),
            inputs=np.array(inputs, np.int32),
            outputs=np.array([output], np.int32),
            builtinOptionsType=schema.BuiltinOptions.ConcatenationOptions,
            builtinOptions=schema.ConcatenationOptionsT(axis=axis),
        )

    def _integers(self, tensor: Any) -> np.ndarray | None:
        """The stored values of a tensor of integers; None where they are computed."""
        from ai_edge_litert import schema_py_generated as schema

        stored = self._model.buffers[tensor.buffer].data
        if stored is None:
            return None
        width = 8 if tensor.type == schema.TensorType.INT64 else 4
        return np.frombuffer(np.asarray(stored, np.uint8).tobytes(), f"<i{width}")


# How real numbers can be stored in inputs and outputs.
_END_TYPES = ("float32", "int8", "uint8", "int16")


@dataclass(frozen=True)
class Target:
    """A place where files run.

    Attributes:
        name: what users call it.
        stores_integers: whether inputs and outputs of integer forms are integers unless users
            choose; otherwise they are float32.
        takes_integers: whether users may choose integers there.
        takes_any_length: whether inputs may be resized there.
        per_tensor: which weights have one scale per tensor, as for `convert`, unless users choose.
        missing: operators that it lacks and that innocent layers convert to.
        refused: the forms that it does not run, and what to choose instead.
        slow: the forms that it runs, but much slower than users expect, and what to choose instead.
        finished: the bytes of a model as they are best for it.
        rewritten: the bytes of a file without operators that it lacks, and the names of those that
            were replaced; None where nothing is.
        check: raises ValueError if the finished model does not run there, or computes something
            else there; given examples by input name.
    """

    name: str
    stores_integers: bool
    takes_integers: bool
    takes_any_length: bool
    finished: Callable[[TFLiteModel], bytes]
    check: Callable[[TFLiteModel, Mapping[str, np.ndarray]], None]
    rewritten: Callable[[bytes], tuple[bytes, tuple[str, ...]]] | None = None
    per_tensor: bool | str = False
    missing: frozenset[str] = frozenset()
    refused: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    slow: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def fallback(self) -> str:
        """A form that computes in real numbers there, for what integers cannot compute."""
        return "float32" if "dynamic_int8" in self.refused else "dynamic_int8"

    def check_form(self, form: str) -> None:
        """Refuse, or warn of, a form before any work is done for it.

        Raises:
            ValueError: if it does not run there.
        """
        self.check_refused(form)
        if form in self.slow:
            why, fix = self.slow[form]
            warnings.warn(three_parts(self._received(form), why, fix), stacklevel=3)

    def check_refused(self, form: str) -> None:
        """Refuse a form that does not run there.

        Raises:
            ValueError: if it does not.
        """
        if form in self.refused:
            why, fix = self.refused[form]
            allowed = ", ".join(repr(name) for name in FORMS if name not in self.refused)
            raise problem(self._received(form), f"one of {allowed}: {why}", fix)

    def _received(self, form: str) -> str:
        return f"quantization={form!r} for target={self.name!r}"

    def end_types(
        self, form: Form, has_recipe: bool, input_type: Any, output_type: Any
    ) -> tuple[str, str]:
        """The types of real numbers in inputs and outputs: the requested or the usual ones.

        Args:
            form: the requested form.
            has_recipe: whether layers have different forms.
            input_type: as for `convert`.
            output_type: as for `convert`.

        Raises:
            TypeError: if a type is not a string.
            ValueError: if a type is unknown, or if the form or the place has no such ends.
        """
        usual = form.integers if form.integers is not None and self.stores_integers else "float32"
        return (
            usual if input_type is None else self._end("input_type", input_type, form, has_recipe),
            usual
            if output_type is None
            else self._end("output_type", output_type, form, has_recipe),
        )

    def _end(self, name: str, asked: Any, form: Form, has_recipe: bool) -> str:
        check_choice(name, asked, _END_TYPES)
        if asked not in form.end_types:
            received = "a recipe" if has_recipe else f"quantization={form.name!r}"
            able = [repr(other.name) for other in FORMS.values() if asked in other.end_types]
            raise problem(
                f"{name}={asked!r} with {received}",
                f"one of {', '.join(map(repr, form.end_types))}",
                f"leave it out, or choose quantization={' or '.join(able)}",
            )
        if asked != "float32" and not self.takes_integers:
            raise problem(
                f"{name}={asked!r} for target={self.name!r}",
                "float32 in its inputs and outputs, which is all that LiteRT in browsers takes",
                f"leave {name} out, or choose target='android' or 'microcontroller'",
            )
        return asked

    def check_lengths(self, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
        """Refuse inputs of any length where memory is laid out once.

        Args:
            shapes: of the inputs, by name; None where a size is unknown.

        Raises:
            ValueError: if there are some and the target takes none.
        """
        free = [f"{name!r} of shape {shape}" for name, shape in shapes.items() if None in shape]
        if free and not self.takes_any_length:
            raise problem(
                f"an input {', '.join(free)} for target={self.name!r}",
                "a known size in every dimension: inputs cannot be resized there",
                "build the student with the size that the device will feed, for example "
                "keras.Input((100, 8)), and copy the weights",
            )

    def check_ends(self, model: TFLiteModel) -> None:
        """Refuse quantized numbers in inputs and outputs that were not requested.

        Raises:
            ValueError: if there are some, and the place has real numbers there.
        """
        ends = (*model.inputs, *model.outputs)
        integers = [str(tensor) for tensor in ends if tensor.is_quantized]
        if integers and not self.stores_integers:
            raise problem(
                f"a file with {', '.join(integers)}",
                "float32 in its inputs and outputs: MediaPipe and browsers refuse the others",
                "leave the first and the last layer out of the recipe, or choose "
                "target='microcontroller'",
            )


def _small(model: TFLiteModel) -> bytes:
    return model.flatbuffer.without_names(keep_ends=True)


def _smallest(model: TFLiteModel) -> bytes:
    return model.flatbuffer.without_names()


def _runs(model: TFLiteModel, examples: Mapping[str, np.ndarray]) -> None:
    """LiteRT has run it."""


def _check_microcontroller(model: TFLiteModel, examples: Mapping[str, np.ndarray]) -> None:
    registrations(model.operators)
    if "INT4" in model.flatbuffer.weight_types() and not running.is_installed():
        raise problem(
            "a file with weights of 4 bits for target='microcontroller'",
            "TensorFlow Lite Micro to be installed, to test whether it runs them: it does "
            "in convolutions, but not in dense layers with a scale for each channel",
            "pip install 'keras-kd[micro]', or choose 'int8'",
        )
    hybrid = model.flatbuffer.hybrid_operators()
    if hybrid:
        # TFLM runs some of these without an error and with wrong results.
        raise problem(
            f"a file in which {', '.join(hybrid)} compute in floating point with weights that "
            "are integers",
            "weights and activations that are both integers or both float32: TensorFlow Lite "
            "Micro refuses the others, or computes wrong values",
            "choose 'int8' or 'float32' for these layers in the recipe",
        )
    if running.is_installed():
        compare_stored(model, _with_ends_of_range(model, model.quantize_inputs(examples)))


def _with_ends_of_range(
    model: TFLiteModel, stored: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    """The examples, and random ones that reach where rounding goes wrong first."""
    if not all(tensor.is_quantized or tensor.dtype.kind == "f" for tensor in model.inputs):
        # Which words there are is not known.
        return stored
    return {
        tensor.name: np.concatenate([random_stored(tensor, 8), stored[tensor.name]])
        for tensor in model.inputs
    }


_HYBRID = "TensorFlow Lite Micro refuses the others", "choose quantization='int8'"
_WITHOUT_XNNPACK = (
    "a form with fast kernels: XNNPACK has none for this one, which then takes up to 60 times as "
    "long as int8",
    "choose quantization='int8', or 'float16' for the precision",
)

TARGETS = {
    target.name: target
    for target in (
        Target(
            "android",
            stores_integers=False,
            takes_integers=True,
            takes_any_length=True,
            finished=_small,
            check=_runs,
            slow={"int16x8": _WITHOUT_XNNPACK},
        ),
        Target(
            "microcontroller",
            stores_integers=True,
            takes_integers=True,
            takes_any_length=False,
            finished=_smallest,
            check=_check_microcontroller,
            rewritten=rewritten,
            # A scale for each channel costs an array of multipliers in the arena, is computed
            # wrongly by TFLM before 2024-09-27, and refused by CMSIS-NN for int16x8.
            per_tensor=DENSE,
            missing=frozenset({"SELECT"}),
            refused=dict.fromkeys(("float16", "dynamic_int8", "int4"), _HYBRID),
        ),
        Target(
            "web",
            stores_integers=False,
            takes_integers=False,
            takes_any_length=False,
            finished=_small,
            check=_runs,
            slow={"int16x8": _WITHOUT_XNNPACK},
        ),
    )
}
