"""Forms that TensorFlow's converter does not have: 4-bit weights, and a form for each layer.

ai-edge-quantizer makes them from a float32 file. Weights of 4 bits are dynamic: activations are
float32 in the file, and kernels round them to 8 bits as they compute. Measured on Fashion-MNIST
(5 epochs, 2 000 test images) for a CNN of 22 000 weights and a depthwise separable one of 9 000,
and as microseconds of two dense layers of 1 024 units on one thread of a desktop processor:

| weights | bytes | accuracy | microseconds |
|---|---|---|---|
| float32 | 93 304, 42 180 | .834, .836 | 218 |
| int8, dynamic | 28 536, 20 552 | .836, .836 | 78 |
| int4, dynamic, scaled to the largest weight | 17 392, 18 384 | .810, .837 | 57 |
| int4, dynamic, scaled for the least error | 17 392, 18 384 | .837, .796 | 52 |
| int4, computing in float32 | 18 008, 19 024 | .811, .837 | 310 |
| int4, activations of 8 bits | 19 760, 23 104 | .811, .839 | not measured |
| int4, a scale for each 32 weights | not possible, 40 020 | not possible, .836 | 231 |
| what `{"*": "int4"}` gives with examples | 17 464, 16 904 | .849, .842 | 52 to 57 |

Which of the two scales is better depends on the student. Given examples, both are tried, and the
one whose outputs are closer to those of the float file is kept. Small kernels stay at 8 bits.

The converter makes GATHER of an Embedding; the quantizer takes only its activations. It has weights
for EMBEDDING_LOOKUP, which does the same for a list of words.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_kd._checks import one_line, problem
from keras_kd.tflite.contents.packing import operator_code, operator_name, packed, unpacked
from keras_kd.tflite.conversion.layer_names import LayerNames
from keras_kd.tflite.conversion.recipes import LayerRecipe, checked_entries, read_operators
from keras_kd.tflite.model import TFLiteModel

Examples = Mapping[str, np.ndarray] | None
# The mean over all outputs hardly moves with more examples.
_MOST_COMPARED = 100
_NOT_QUANTIZED = {"FLOAT32", "INT32", "INT64", "BOOL", "STRING"}


def quantize(
    content: bytes,
    recipe: Any,
    examples: Examples,
    names: LayerNames,
    per_tensor: bool | str = False,
    fallback: str = "dynamic_int8",
) -> bytes:
    """Quantize a float32 file with ai-edge-quantizer.

    Args:
        content: what the converter made in float32.
        recipe: a mapping such as `{"conv.*": "int8", "logits": "float32", "*": "int4"}`, from
            regular expressions that match whole names of layers to forms of
            `keras_kd.tflite.convert`. A layer in a nested model also goes by the name of that model
            and by its path, "backbone/conv". The first match counts, "*" is for all that is left,
            which without it stays float32. An operator into which several layers were merged, such
            as a convolution with its BatchNormalization, goes by any of their names. Where there
            are no kernels for 4 bits (depthwise and transposed convolutions), "int4" gives 8 bits,
            and "*" does so for weights of fewer than 256 values. Inputs and outputs stay float32.
            Or a recipe of ai-edge-quantizer, whose regular expressions are searched in the names of
            tensors: a list of dicts, or a RecipeManager.
        examples: for calibration, by input name, shaped (examples, ...).
        names: of the layers in the file.
        per_tensor: which weights of a mapping have one scale per tensor where activations are
            integers, too; as for `convert`.
        fallback: a form for what integers cannot compute, which messages name.

    Returns:
        The bytes of the quantized file. A warning names the layers whose weights do not have the
        requested form.

    Raises:
        ImportError: if ai-edge-quantizer is not installed.
        TypeError: if the recipe is something else.
        ValueError: if the recipe names what is not there, needs examples that are missing, or
            leaves every weight as it was, or if the quantizer refuses it.
    """
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise problem(
            "quantization='int4' or a recipe without ai-edge-quantizer installed",
            "the `int4` extra",
            "run: pip install 'keras-kd[int4]'",
            kind=ImportError,
        )
    operators = read_operators(content, names)
    if isinstance(recipe, Mapping):
        tables = LayerRecipe(recipe, operators, per_tensor).tables()
        if tables:
            content = with_lookups(content, tables)
            operators = read_operators(content, names)
        layer_recipe = LayerRecipe(recipe, operators, per_tensor)
        return _quantize_layers(content, layer_recipe, examples, fallback)
    return _run(content, checked_entries(recipe, operators), examples, fallback)


def _quantize_layers(
    content: bytes, recipe: LayerRecipe, examples: Examples, fallback: str
) -> bytes:
    from ai_edge_quantizer.recipe import AlgorithmName

    wants_4_bits = "int4" in recipe.forms.values()
    entries = recipe.entries(AlgorithmName.MIN_MAX_UNIFORM_QUANT)
    result = _run(content, entries, examples, fallback)
    if wants_4_bits and "INT4" not in TFLiteModel(result).flatbuffer.weight_types():
        raise problem(
            "a student none of whose weights can become int4",
            "a convolution or a dense layer that is neither depthwise nor recurrent",
            "choose quantization='dynamic_int8' or 'int8'",
        )
    recipe.warn_of_other_forms(result, entries)
    if wants_4_bits and examples is not None:
        other = _run(content, recipe.entries(AlgorithmName.MSE), examples, fallback)
        return _closest(content, [result, other], examples)
    return result


def _run(
    content: bytes, entries: Sequence[Mapping[str, Any]], examples: Examples, fallback: str
) -> bytes:
    from ai_edge_quantizer import Quantizer

    result = content
    if entries:
        with _refusals():
            quantizer: Any = Quantizer(bytearray(content), list(map(dict, entries)))
        if quantizer.need_calibration and examples is None:
            raise problem(
                "a recipe with 'int8' or 'int16x8' without representative_data",
                "examples from which the ranges of activations are read",
                f"pass representative_data=x_train, or choose {fallback!r}",
            )
        with _refusals():
            ranges = None
            if quantizer.need_calibration and examples is not None:
                ranges = _ranges(content, entries, examples)
            quantized = quantizer.quantize(ranges, enable_progress_report=False)
        result = bytes(quantized.quantized_model)
    if TFLiteModel(result).flatbuffer.weight_types() <= _NOT_QUANTIZED:
        raise problem(
            "a recipe with which every weight stays float32",
            "at least one layer in another form, for which the quantizer has its operator",
            "pass for example {'*': 'int4'}, or convert with quantization='float32'",
        )
    return result


def _ranges(
    content: bytes, entries: Sequence[Mapping[str, Any]], examples: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The smallest and largest values of every activation, in the form of the quantizer."""
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils import qsv_utils, tfl_flatbuffer_utils

    manager = RecipeManager()
    manager.load_quantization_recipe(list(map(dict, entries)))
    # The default is a moving average, which clips what few examples reach.
    calibrator = Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    count = len(next(iter(examples.values())))
    one_by_one = [
        {name: array[index : index + 1] for name, array in examples.items()}
        for index in range(count)
    ]
    model: Any = tfl_flatbuffer_utils.read_model(bytearray(content))
    signature = model.signatureDefs[0]
    calibrator.calibrate({signature.signatureKey.decode(): one_by_one}, manager)
    return calibrator.get_model_qsvs()


def _closest(content: bytes, results: list[bytes], examples: Mapping[str, np.ndarray]) -> bytes:
    """The file whose outputs are closest to those of the float file."""
    chosen = {name: array[:_MOST_COMPARED] for name, array in examples.items()}
    expected = TFLiteModel(content).predict_by_name(chosen)

    def distance(result: bytes) -> float:
        outputs = TFLiteModel(result).predict_by_name(chosen)
        return sum(
            float(np.square(outputs[name] - values, dtype="float64").mean())
            for name, values in expected.items()
        )

    return min(results, key=distance)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """The quantizer's errors in this package's form, without its progress bars and warnings."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # It raises any error of its parts.
        raise problem(
            f"a recipe that ai-edge-quantizer cannot follow ({type(error).__name__}: "
            f"{one_line(error)[:300]})",
            "forms that fit the operators and one another",
            "give the layers around the one that it names the same form, or 'float32'",
        ) from error


def with_lookups(content: bytes, outputs: Collection[str]) -> bytes:
    """The file in which EMBEDDING_LOOKUP reads tables instead of GATHER.

    Args:
        content: a float32 file.
        outputs: the names of the tensors that GATHER computes, where it is to be replaced.

    Returns:
        A file that computes the same; the very content where there is nothing to replace.
    """
    model = unpacked(content)
    replaced = [_replace(model, graph, outputs) for graph in model.subgraphs]
    return packed(model, len(content)) if any(replaced) else content


def _replace(model: Any, graph: Any, outputs: Collection[str]) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    operators = []
    for operator in graph.operators or []:
        name = operator_name(model.operatorCodes[operator.opcodeIndex])
        result = graph.tensors[int(operator.outputs[0])]
        is_meant = name == "GATHER" and (result.name or b"").decode() in outputs
        if not is_meant or not _is_lookup(model, graph, operator):
            operators.append(operator)
            continue
        table, words = map(int, operator.inputs[:2])
        count = -1 if _is_open(result) else int(np.prod(graph.tensors[words].shape))
        width = int(graph.tensors[table].shape[1])
        listed = _added(graph, words, result, b"/words", [count])
        found = _added(graph, int(operator.outputs[0]), result, b"/lookup", [count, width])
        open_shape = getattr(result, "shapeSignature", None)
        shape = result.shape if open_shape is None else open_shape
        operators += [
            reshape(model, graph, words, listed, [count]),
            schema.OperatorT(
                opcodeIndex=operator_code(model, "EMBEDDING_LOOKUP"),
                inputs=[listed, table],
                outputs=[found],
            ),
            reshape(model, graph, found, int(operator.outputs[0]), list(map(int, shape))),
        ]
    is_changed = len(operators) > len(graph.operators or [])
    graph.operators = operators
    return is_changed


def _is_lookup(model: Any, graph: Any, operator: Any) -> bool:
    """Whether it reads rows of a stored table, in a result with one open size at most."""
    from ai_edge_litert import schema_py_generated as schema

    table, words = (graph.tensors[int(index)] for index in operator.inputs[:2])
    options = operator.builtinOptions
    signature = getattr(graph.tensors[int(operator.outputs[0])], "shapeSignature", None)
    return (
        model.buffers[table.buffer].data is not None
        and table.type == schema.TensorType.FLOAT32
        and words.type == schema.TensorType.INT32
        and len(table.shape) == 2
        and (options is None or (options.axis == 0 and options.batchDims == 0))
        and (signature is None or sum(size < 0 for size in signature) <= 1)
    )


def _is_open(tensor: Any) -> bool:
    signature = getattr(tensor, "shapeSignature", None)
    return signature is not None and any(size < 0 for size in signature)


def _added(graph: Any, like: int, named: Any, suffix: bytes, shape: list[int]) -> int:
    """The index of a new tensor of the type of another one."""
    from ai_edge_litert import schema_py_generated as schema

    graph.tensors.append(
        schema.TensorT(
            shape=[abs(size) for size in shape],
            shapeSignature=shape if min(shape) < 0 else None,
            type=graph.tensors[like].type,
            name=(named.name or b"") + suffix,
        )
    )
    return len(graph.tensors) - 1


def reshape(model: Any, graph: Any, read: int, written: int, shape: list[int]) -> Any:
    """The operator that gives a tensor the form of another; see `ReshapeOptions`."""
    from ai_edge_litert import schema_py_generated as schema

    data = np.frombuffer(np.asarray(shape, "<i4").tobytes(), np.uint8)
    model.buffers.append(schema.BufferT(data))
    graph.tensors.append(
        schema.TensorT(
            shape=[len(shape)],
            type=schema.TensorType.INT32,
            buffer=len(model.buffers) - 1,
            name=(graph.tensors[written].name or b"") + b"/shape",
        )
    )
    return schema.OperatorT(
        opcodeIndex=operator_code(model, "RESHAPE"),
        inputs=[read, len(graph.tensors) - 1],
        outputs=[written],
        builtinOptionsType=schema.BuiltinOptions.ReshapeOptions,
        builtinOptions=schema.ReshapeOptionsT(newShape=shape),
    )
