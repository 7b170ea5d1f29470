"""The operators of a float32 file as ai-edge-quantizer sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

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
