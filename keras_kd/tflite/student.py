"""A student as one function in float32, with names for what goes in and what comes out.

What is converted, and what a file is compared with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeGuard

import keras
import numpy as np

from keras_kd._checks import one_line, problem
from keras_kd._examples import by_position, examples_by_name, identifier
from keras_kd._graphs import symbolic_inputs
from keras_kd._keras import check_model, copy_weights, is_keras_model, original_name, tf_keras
from keras_kd.tflite.contents.state import NEXT
from keras_kd.tflite.streams import Stream
from keras_kd.tflite.tensors import TensorInfo, concrete

# Automatic names of Keras: they count up through a session and mean nothing.
_AUTOMATIC_INPUT = re.compile(r"(keras_tensor|input_layer|input)(_\d+)?")


class _Input(NamedTuple):
    """One of the inputs of a model; the shape has the batch in front."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Signature:
    """How a file made from `model` is called: by name, one example at a time.

    The names are the keys of a dict of inputs or outputs, otherwise the names that the user gave
    to the Input and to the last layer, otherwise "input" and "output".

    Args:
        model: a Keras 3 or tf_keras model that has been built. Its inputs are one tensor, a list
            or a dict of tensors; its outputs too.
        named_as: another form of the same model, whose outputs give theirs their names.

    A student with `stateful=True` in recurrent layers takes their states as further inputs and
    gives the next ones as further outputs; see `Stream`. Its sequences have one step if their
    length is open.

    Attributes:
        inputs: a `TensorInfo` for each input, the batch size 1 in front of its shape. Sizes that
            the model leaves open, such as the length of a sequence, are None.
        own_inputs: those of them that are no states: what the model itself takes.
        states: the others.
        loss: what the model was trained with; None if it was not compiled.

    Raises:
        ValueError: if the model has not been built, if its inputs are nested more deeply, or if
            one of them takes text.
    """

    def __init__(self, model: Any, named_as: Any = None) -> None:
        self.model = model
        self.loss = getattr(model, "loss", None)
        self._named_as = model if named_as is None else named_as
        structure = _declared_inputs(model)
        inputs = _as_list(structure)
        names = _unique([_input_name(tensor.name) for tensor in inputs])
        self._keys = list(structure) if isinstance(structure, dict) else None
        self._is_list = isinstance(structure, list)
        self.own_inputs = tuple(
            TensorInfo(name, _with_batch_of_one(name, tensor.shape), _dtype(name, tensor.dtype))
            for name, tensor in zip(names, inputs, strict=True)
        )
        self._stream = Stream(model)
        self.states = self._stream.states
        if self.states:
            self.own_inputs = tuple(map(_with_one_step, self.own_inputs))
        self.inputs = (*self.own_inputs, *self.states)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model in inference mode.

        Args:
            inputs: for each input name a tensor, shaped (batch size, ...).

        Returns:
            For each output name a tensor, shaped (batch size, ...).
        """
        ordered = [inputs[tensor.name] for tensor in self.own_inputs]
        if self._keys is not None:
            arguments = dict(zip(self._keys, ordered, strict=True))
        else:
            arguments = ordered if self._is_list else ordered[0]
        with self._stream.fed(inputs) as states:
            outputs = _named_outputs(self._named_as, self.model(arguments, training=False))
        return {**outputs, **states}

    def own(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Those outputs of a call that are no states."""
        following = {state.name + NEXT for state in self.states}
        return {name: value for name, value in outputs.items() if name not in following}

    def examples(self, data: Any, source: str = "x") -> dict[str, np.ndarray]:
        """The arrays of `data` by input name; see `examples_by_name`.

        Args:
            data: for a student with states the steps of a stream in their order: states are
                computed, from zeros on, unless `data` has them.
            source: what the caller named `data`.
        """
        if isinstance(data, list | tuple):
            data = by_position(data, self.own_inputs) or data
        if isinstance(data, Mapping) and {tensor.name for tensor in self.inputs} == set(data):
            return examples_by_name(data, self.inputs, source)
        return self.with_states(examples_by_name(data, self.own_inputs, source))

    def with_states(self, steps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The steps of a stream and, for each of them, the states with which it begins.

        Args:
            steps: arrays by the name of the inputs that are no states, shaped (steps, ...).
        """
        import tensorflow as tf

        if not self.states:
            return steps
        step = tf.function(lambda **inputs: self(inputs), autograph=False)
        current = {state.name: np.zeros(concrete(state.shape), np.float32) for state in self.states}
        before: list[dict[str, np.ndarray]] = []
        for index in range(len(next(iter(steps.values())))):
            before.append(current)
            one = {name: array[index : index + 1] for name, array in steps.items()}
            outputs = step(**one, **current)
            current = {name: outputs[name + NEXT].numpy() for name in current}
        states = {
            state.name: np.concatenate([each[state.name] for each in before] or [[]])
            for state in self.states
        }
        return {**steps, **states}


def _declared_inputs(model: Any) -> Any:
    """The inputs of the model: one `_Input`, a list or a dict of them."""
    if getattr(model, "inputs", None):
        structure = symbolic_inputs(model)
        if isinstance(structure, Mapping):
            return {key: _from_tensor(key, tensor) for key, tensor in structure.items()}
        if isinstance(structure, list | tuple):
            return [_from_tensor(_tensor_name(tensor), tensor) for tensor in structure]
        return _from_tensor(_tensor_name(structure), structure)
    return _inputs_of_subclassed(model)


def _from_tensor(name: str, tensor: Any) -> _Input:
    if not hasattr(tensor, "shape"):
        raise problem(
            f"a model whose input {name!r} is nested: {tensor}",
            "one tensor, a list or a dict of tensors",
            "wrap the student in a Functional model with a flat list or dict of inputs",
        )
    return _Input(name, tuple(tensor.shape), getattr(tensor.dtype, "name", tensor.dtype))


def _tensor_name(tensor: Any) -> str:
    return getattr(tensor, "name", "input")


def _inputs_of_subclassed(model: Any) -> Any:
    """A subclassed model remembers the shapes, not the dtypes, that it was built with."""
    config = model.get_build_config() if model.built else None
    shape = (config or {}).get("input_shape")
    if isinstance(shape, Mapping):
        return {key: _Input(key, tuple(value), "float32") for key, value in shape.items()}
    if _is_shape(shape):
        return _Input("input", tuple(shape), "float32")
    if shape and all(_is_shape(value) for value in shape):
        return [_Input("input", tuple(value), "float32") for value in shape]
    raise problem(
        f"the model {model.name!r}, without the shape of its input",
        "a built model with one argument: a tensor, a list or a dict of tensors",
        "call it once on a batch of data before you convert it",
    )


def _is_shape(value: Any) -> TypeGuard[Sequence[int | None]]:
    return isinstance(value, Sequence) and all(
        size is None or isinstance(size, int) for size in value
    )


def _as_list(structure: Any) -> list[_Input]:
    if isinstance(structure, dict):
        return list(structure.values())
    return structure if isinstance(structure, list) else [structure]


def _with_batch_of_one(name: str, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if len(shape) == 0:
        raise problem(
            f"an input {name!r} of shape {shape}",
            "a batch of examples",
            "build the student with the shape of one example, for example keras.Input((28, 28, 1))",
        )
    return (1, *shape[1:])


def _with_one_step(tensor: TensorInfo) -> TensorInfo:
    """A step of a stream, where the length of the sequence is open."""
    if tensor.shape[1:2] != (None,):
        return tensor
    return replace(tensor, shape=(1, 1, *tensor.shape[2:]))


def _dtype(name: str, dtype: str) -> np.dtype:
    if dtype == "string":
        raise problem(
            f"a student with text in its input {name!r}",
            "numbers: a file has no operator for text",
            "look words up before the student, with the same layer outside of it, and build "
            "the student on keras.Input(..., dtype='int32')",
        )
    return np.dtype(dtype)


def _named_outputs(model: Any, outputs: Any) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return {identifier(str(key)): value for key, value in outputs.items()}
    tensors = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    names = [_output_name(*pair) for pair in _output_layers(model)]
    if len(names) != len(tensors):
        names = ["output"] * len(tensors)
    return dict(zip(_unique(names), tensors, strict=True))


def _output_layers(model: Any) -> list[tuple[str, Any]]:
    """Name and layer of each output; nothing for a subclassed model."""
    layers = {layer.name: layer for layer in model.layers}
    if _is_sequential(model):
        return [list(layers.items())[-1]]
    return [(name, layers.get(name)) for name in getattr(model, "output_names", None) or []]


def _is_sequential(model: Any) -> bool:
    sequential = keras.Sequential if is_keras_model(model) else tf_keras().Sequential
    return isinstance(model, sequential)


def _input_name(name: str) -> str:
    return "input" if _AUTOMATIC_INPUT.fullmatch(name) else identifier(name)


def _output_name(name: str, layer: Any) -> str:
    name = original_name(name)
    class_name = type(getattr(layer, "layer", layer)).__name__.lower()
    automatic = re.sub(r"(_\d+)?$", "", name).replace("_", "") == class_name
    return "output" if automatic else identifier(name)


def _unique(names: list[str]) -> list[str]:
    """The same names, a number appended to those that came before."""
    taken: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.append(candidate)
    return taken


def prepared(student: Any) -> Signature:
    """The student as it is converted and compared: in float32, with names.

    Raises:
        ValueError: if it must be copied and cannot be, or as `Signature`.
    """
    signature = Signature(in_float32(student))
    # A copy in float32 is not compiled.
    signature.loss = getattr(student, "loss", None)
    return signature


def is_quantization_aware(student: Any) -> bool:
    """Whether TF-MOT's quantization wrappers are in the student."""
    return any("quantization" in module for module in tfmot_modules(student))


def in_float32(student: Any) -> Any:
    """The student itself, or a copy with the same weights if it computes in half precision.

    Raises:
        ValueError: if it must be copied and cannot be.
    """
    if not any(_computes_reduced(layer) for layer in [student, *layers_of(student)]):
        return student
    return _rebuilt(
        student,
        _config_in_float32,
        f"the student {student.name!r} in mixed precision",
        "a student that computes in float32",
        "build it again under keras.config.set_dtype_policy('float32') and copy the weights: "
        "new.set_weights(old.get_weights())",
    )


def unrolled(student: Any) -> Any:
    """A copy of a student whose LSTMs, GRUs and other recurrent layers run without a loop.

    The converter cannot calibrate loops, which int8 and int16x8 need. Unrolled, a layer is as many
    operators as there are steps: the file grows with the length, by 2 to 5 KB for each step of an
    LSTM in int8, and on microcontrollers so does the arena.

    Args:
        student: a trained Keras 3 or tf_keras model, Sequential or Functional, also with recurrent
            layers in Bidirectional or in nested models. The length of its sequences is known.

    Returns:
        A model of the same Keras with the same weights and the same outputs.

    Raises:
        ValueError: if a length is not known, or if the model cannot be rebuilt.

    Example:
        ```python
        model = keras_kd.tflite.convert(keras_kd.tflite.unrolled(student), "int8", x_train)
        ```
    """
    check_model("student", student)
    received = f"the student {student.name!r} to be unrolled"
    expected = "a Sequential or Functional model with sequences of a known length"
    fix = (
        "build it with the length that the device will feed, for example keras.Input((100, 8)), "
        "and copy the weights: new.set_weights(old.get_weights())"
    )
    shapes = [tuple(tensor.shape) for tensor in getattr(student, "inputs", None) or []]
    if any(None in shape[1:] for shape in shapes):
        raise problem(f"{received}, with inputs of the shapes {shapes}", expected, fix)
    return _rebuilt(student, _config_unrolled, received, expected, fix)


def layers_of(model: Any) -> list[Any]:
    """Every layer of the model, those in nested models and in wrappers included."""
    found = []
    for layer in getattr(model, "layers", []):
        found += [layer, *layers_of(layer)]
        wrapped = getattr(layer, "layer", None)
        if wrapped is not None:
            found += [wrapped, *layers_of(wrapped)]
    return found


def _rebuilt(
    student: Any, changed: Callable[[Any], Any], received: str, expected: str, fix: str
) -> Any:
    """A copy with the same weights, of layers with other configs."""
    models = keras.models if is_keras_model(student) else tf_keras().models
    try:
        copy = models.clone_model(
            student,
            clone_function=lambda layer: type(layer).from_config(changed(layer.get_config())),
        )
        copy_weights(copy, student)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise problem(
            f"{received}, which cannot be rebuilt ({one_line(error)})", expected, fix
        ) from error
    return copy


def tfmot_modules(student: Any) -> list[str]:
    """The modules of TF-MOT's classes among the layers, found without importing TF-MOT."""
    return [
        base.__module__
        for layer in layers_of(student)
        for base in type(layer).__mro__
        if base.__module__.startswith("tensorflow_model_optimization.")
    ]


def _computes_reduced(layer: Any) -> bool:
    return getattr(layer, "compute_dtype", None) in _REDUCED_PRECISION


def _config_in_float32(value: Any) -> Any:
    """A layer's config in which every dtype and policy of reduced precision is float32."""
    if isinstance(value, dict):
        return {key: _config_in_float32(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_config_in_float32(item) for item in value)
    if isinstance(value, str) and value.removeprefix("mixed_") in _REDUCED_PRECISION:
        return "float32"
    return value


def _config_unrolled(value: Any) -> Any:
    """A layer's config in which every recurrent layer is unrolled."""
    if isinstance(value, dict):
        return {key: key == "unroll" or _config_unrolled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_config_unrolled(item) for item in value)
    return value


_REDUCED_PRECISION = ("float16", "bfloat16")
