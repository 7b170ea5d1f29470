"""Recipes: a form for each layer, in the user's terms and in the quantizer's."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, problem, three_parts
from keras_kd._four_bits import WITHOUT_4_BITS
from keras_kd.tflite.conversion.forms import DENSE, FORMS
from keras_kd.tflite.conversion.layer_names import LayerNames


@dataclass(frozen=True)
class Operator:
    """An operator of a float32 file.

    Attributes:
        type_name: its type in the schema of TFLite, such as "CONV_2D".
        kind: what the quantizer calls that type; None if it has no name for it.
        scope: what the quantizer matches regular expressions with.
        layers: the paths of the layers that it came from.
        kernels: by name the number of values in its weights of two dimensions or more.
        outputs: the names of the tensors that it computes.
        has_odd_rows: whether a row of its weights has an odd number of values.
    """

    type_name: str
    kind: Any
    scope: str
    layers: tuple[str, ...]
    kernels: dict[str, int]
    outputs: tuple[str, ...] = ()
    has_odd_rows: bool = False

    def __str__(self) -> str:
        return f"{', '.join(self.layers) or 'no layer'} ({self.type_name})"

    def names(self) -> set[str]:
        """The paths of its layers, their own names and those of the models that they are in."""
        return {name for path in self.layers for name in (path, *path.split("/"))}


def read_operators(content: bytes, names: LayerNames) -> list[Operator]:
    """Every operator of a file, in its order."""
    from ai_edge_quantizer.qtyping import BuiltinOperator
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as utils

    types = {value: name for name, value in vars(BuiltinOperator).items()}
    model: Any = utils.read_model(bytearray(content))
    computed = _names_of_outputs(model, names)
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex]
            builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
            kernels = _kernels(operator, graph, model)
            outputs = [utils.get_tensor_name(graph.tensors[i]) for i in operator.outputs]
            tensors = [*outputs]
            if graph is model.subgraphs[0]:
                tensors += [computed[i] for i in operator.outputs if i in computed]
            found.append(
                Operator(
                    types.get(builtin, f"OPERATOR_{builtin}"),
                    utils.TFL_OP_CODE_TO_NAME.get(builtin),
                    utils.get_op_scope(operator, graph.tensors),
                    tuple(names.behind([*tensors, *kernels])),
                    kernels,
                    tuple(outputs),
                    _has_odd_rows(operator, graph),
                )
            )
    return found


def float_weights(content: bytes) -> set[str]:
    """The names of the tensors whose values are stored in float32."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as utils

    model: Any = utils.read_model(bytearray(content))
    return {
        utils.get_tensor_name(tensor)
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is not None
        and utils.TENSOR_CODE_TO_TYPE[tensor.type] == "FLOAT32"
    }


def _kernels(operator: Any, graph: Any, model: Any) -> dict[str, int]:
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as utils

    tensors = [graph.tensors[index] for index in operator.inputs if index >= 0]
    return {
        utils.get_tensor_name(tensor): int(np.prod(tensor.shape))
        for tensor in tensors
        if model.buffers[tensor.buffer].data is not None
        and utils.TENSOR_CODE_TO_TYPE[tensor.type] == "FLOAT32"
        and len(tensor.shape) > 1
    }


def _has_odd_rows(operator: Any, graph: Any) -> bool:
    shapes = [graph.tensors[index].shape for index in operator.inputs if index >= 0]
    return any(shape is not None and len(shape) == 2 and shape[1] % 2 for shape in shapes)


def _names_of_outputs(model: Any, names: LayerNames) -> dict[int, str]:
    """By index of an output's tensor the operation that computes it: the converter renames it."""
    outputs = (output for signature in model.signatureDefs or [] for output in signature.outputs)
    named = ((output.tensorIndex, output.name.decode()) for output in outputs)
    return {index: names.outputs[name] for index, name in named if name in names.outputs}


REST = "*"
_CALIBRATED = ("int8", "int16x8")
# Activations stay float32.
_OF_WEIGHTS = ("float16", "dynamic_int8", "int4")
# What they multiply with or add are no weights in these forms, but small vectors.
_ELEMENTWISE = ("ADD", "DIV", "MUL", "SUB")
# What a form becomes for operators that cannot take it.
_INSTEAD = {"int4": "dynamic_int8"}
# Below, 4 bits save less than 128 bytes. First layers are so small, and lose most by rounding.
_WORTH_4_BITS = 256
_FIX = "pass for example {'conv.*': 'int8', '*': 'int4'}"


class LayerRecipe:
    """A mapping from regular expressions for names of layers to forms, for one file.

    Args:
        recipe: see `keras_kd.tflite.conversion.quantizer.quantize`.
        operators: those of the file.
        per_tensor: which weights have one scale per tensor in static forms; as for `convert`.

    Attributes:
        forms: by scope the requested form.

    Raises:
        TypeError: if a key is no string.
        ValueError: if the mapping is empty, if a key is no regular expression or matches no layer,
            or if a form is unknown.
    """

    def __init__(
        self,
        recipe: Mapping[str, str],
        operators: Sequence[Operator],
        per_tensor: bool | str = False,
    ) -> None:
        if not recipe:
            raise problem("an empty recipe", "a form for at least one layer", _FIX)
        patterns = {key: _checked(key, form) for key, form in recipe.items()}
        patterns.pop(REST, None)
        self._operators = operators
        self._per_tensor = per_tensor
        self._explicit: set[str] = set()
        self.forms: dict[str, str] = {}
        matched = set()
        for operator in operators:
            called = operator.names()
            keys = [key for key, pattern in patterns.items() if any(map(pattern.fullmatch, called))]
            matched.update(keys)
            if keys:
                self._explicit.add(operator.scope)
            form = recipe[keys[0]] if keys else recipe.get(REST, "float32")
            self.forms[operator.scope] = form
        _check_all_matched(sorted(set(patterns) - matched), operators)
        sizes = [_size(one) for one in operators if self.forms[one.scope] == "int4"]
        self._worth_4_bits = _WORTH_4_BITS if max(sizes, default=0) >= _WORTH_4_BITS else 0

    def entries(self, algorithm: Any) -> list[dict[str, Any]]:
        """The same as a recipe of ai-edge-quantizer: one entry for each operator that it quantizes.

        Args:
            algorithm: how the scales of 4-bit weights are chosen.
        """
        from ai_edge_quantizer.recipe_manager import RecipeManager

        manager = RecipeManager()
        for operator in self._operators:
            for form in self._attempts(operator):
                try:
                    _add(manager, operator, form, algorithm, self._has_one_scale(operator))
                except ValueError:  # The quantizer's policy has no such form of this operator.
                    continue
                break
        return manager.get_quantization_recipe()

    def tables(self) -> list[str]:
        """The outputs of the GATHERs whose table is to have another form than float32.

        The quantizer has none for GATHER, but for a lookup; see `with_lookups`.
        """
        return [
            output
            for operator in self._operators
            if operator.type_name == "GATHER" and self.forms[operator.scope] in _OF_WEIGHTS
            for output in operator.outputs
        ]

    def warn_of_other_forms(self, content: bytes, entries: Sequence[Mapping[str, Any]]) -> None:
        """Warn of what the quantizer left in float silently, and of other deviations.

        Args:
            content: the quantized file.
            entries: the recipe that it was made with.
        """
        left = float_weights(content)
        bits = {entry["regex"]: _bits_of_weights(entry) for entry in entries}
        others = []
        for operator in self._operators:
            form = self.forms[operator.scope]
            place = _place(operator)
            is_vector = operator.type_name in _ELEMENTWISE and form in _OF_WEIGHTS
            if form == "float32" or (is_vector and operator.scope not in self._explicit):
                continue
            if left.intersection(operator.kernels) or (form in _CALIBRATED and place not in bits):
                others.append(f"{operator}: float32 instead of {form}")
            elif operator.scope in self._explicit and form == "int4" and bits.get(place) == 8:
                others.append(f"{operator}: dynamic_int8 instead of int4")
        if others:
            warnings.warn(
                three_parts(
                    "layers that ai-edge-quantizer cannot bring into the requested form "
                    f"({'; '.join(others)})",
                    "operators for which it has the form",
                    "choose another form for them, or leave it so",
                ),
                stacklevel=5,
            )

    def _has_one_scale(self, operator: Operator) -> bool:
        is_dense = operator.type_name == "FULLY_CONNECTED"
        return self._per_tensor is True or (self._per_tensor == DENSE and is_dense)

    def _attempts(self, operator: Operator) -> list[str]:
        """The requested form, and its substitutes; nothing if there is nothing to do."""
        form = self.forms[operator.scope]
        # Without weights nothing but activations can be quantized.
        idle = not operator.kernels and form not in _CALIBRATED
        if operator.kind is None or form == "float32" or idle:
            return []
        forms = [form, *([_INSTEAD[form]] if form in _INSTEAD else [])]
        if operator.type_name == "EMBEDDING_LOOKUP" and operator.has_odd_rows:
            # LiteRT looks for a row of 4 bits at a whole byte.
            return [each for each in forms if each != "int4"]
        is_small = operator.scope not in self._explicit and _size(operator) < self._worth_4_bits
        has_none = operator.type_name in WITHOUT_4_BITS
        return forms[1:] if form == "int4" and (is_small or has_none) else forms


def checked_entries(recipe: Any, operators: Sequence[Operator]) -> list[dict[str, Any]]:
    """A recipe in the form of ai-edge-quantizer, if every expression in it finds something.

    Args:
        recipe: a list of dicts, or its manager.
        operators: those of the file.

    Raises:
        TypeError: if it is something else.
        ValueError: if an expression is found in no name.
    """
    is_manager = callable(getattr(recipe, "get_quantization_recipe", None))
    entries: Any = recipe.get_quantization_recipe() if is_manager else recipe
    if not _are_entries(entries):
        raise problem(
            f"a recipe of type {type(recipe).__name__}",
            "a mapping from layers to forms, or a recipe of ai-edge-quantizer: a list of dicts "
            "with 'regex', 'operation', 'algorithm_key' and 'op_config', or its manager",
            _FIX,
            kind=TypeError,
        )
    scopes = [operator.scope for operator in operators]
    for entry in entries:
        if not any(re.search(entry["regex"], scope) for scope in scopes):
            raise problem(
                f"a recipe in which {entry['regex']!r} is found in no tensor's name",
                f"a regular expression that is found in one of {scopes}",
                "correct it, or pass a mapping from names of layers to forms",
            )
    return [dict(entry) for entry in entries]


def _checked(key: Any, form: Any) -> re.Pattern:
    if not isinstance(key, str):
        raise problem(
            f"a recipe with the key {key!r}", "regular expressions for layers", _FIX, kind=TypeError
        )
    check_choice(f"recipe[{key!r}]", form, FORMS)
    try:
        return re.compile("" if key == REST else key)
    except re.error as error:
        raise problem(
            f"a recipe with the key {key!r} ({error})",
            "a regular expression for names of layers, or '*'",
            _FIX,
        ) from error


def _check_all_matched(missed: list[str], operators: Sequence[Operator]) -> None:
    if missed:
        names = sorted({path for operator in operators for path in operator.layers})
        raise problem(
            f"a recipe in which {', '.join(map(repr, missed))} matches no layer that has an "
            "operator in the file",
            f"regular expressions for whole names out of {names}",
            "correct the expression: 'conv.*' matches all names that begin with conv",
        )


def _size(operator: Operator) -> int:
    return sum(operator.kernels.values())


def _place(operator: Operator) -> str:
    return rf"^{re.escape(operator.scope)}$"


def _add(manager: Any, operator: Operator, form: str, algorithm: Any, has_one_scale: bool) -> None:
    from ai_edge_quantizer.qtyping import QuantGranularity
    from ai_edge_quantizer.recipe import AlgorithmName

    place = _place(operator), operator.kind
    if form == "float16":
        manager.add_weight_only_config(*place, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    elif form == "int4":
        manager.add_dynamic_config(*place, 4, algorithm_key=algorithm)
    elif form == "dynamic_int8" and operator.type_name == "EMBEDDING_LOOKUP":
        # A scale for each word takes as much as 8 of its numbers, and 8 bits do without.
        manager.add_dynamic_config(*place, 8, QuantGranularity.TENSORWISE)
    elif form == "dynamic_int8":
        manager.add_dynamic_config(*place, 8)
    else:
        granularity = QuantGranularity.TENSORWISE if has_one_scale else QuantGranularity.CHANNELWISE
        manager.add_static_config(*place, 8 if form == "int8" else 16, 8, granularity)


def _bits_of_weights(entry: Mapping[str, Any]) -> int:
    return entry["op_config"]["weight_tensor_config"]["num_bits"]


def _are_entries(entries: Any) -> bool:
    is_list = isinstance(entries, Sequence) and not isinstance(entries, str | bytes)
    return is_list and len(entries) > 0 and all(map(_is_entry, entries))


def _is_entry(entry: Any) -> bool:
    needed = {"regex", "operation", "algorithm_key", "op_config"}
    return isinstance(entry, Mapping) and needed <= set(entry)
