"""The forms in which an online teacher can run, each as a teacher for `keras_kd.Distiller`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from folding import folded
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import keras_kd.tflite
from keras_kd.teachers import Function, ModelTeacher, NumpyFunction, Teacher


def eagerly(model: keras.Model, examples: np.ndarray) -> Teacher:
    """Operation by operation from Python."""
    return NumpyFunction(lambda x: model(x, training=False), model.output_shape[1:])


def by_xla(model: keras.Model, examples: np.ndarray) -> Teacher:
    """Compiled by XLA, in a step that is not."""
    return Function(tf.function(lambda x: model(x, training=False), jit_compile=True), "xla")


def in_bfloat16(model: keras.Model, examples: np.ndarray) -> Teacher:
    """Activations and products in bfloat16, weights kept in float32."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "mixed_bfloat16"})

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return ModelTeacher(copy)


def frozen(model: keras.Model, examples: np.ndarray) -> Teacher:
    """Weights as constants, what follows from them alone computed once by Grappler."""
    signature = [tf.TensorSpec((None, *examples.shape[1:]))]
    ask = tf.function(lambda x: model(x, training=False), input_signature=signature)
    return Function(convert_variables_to_constants_v2(ask.get_concrete_function()), "frozen")


def normalization_folded(model: keras.Model, examples: np.ndarray) -> Teacher:
    """A copy with batch normalizations in the weights of convolutions."""
    return ModelTeacher(folded(model))


def folded_by_xla(model: keras.Model, examples: np.ndarray) -> Teacher:
    """The same copy, compiled by XLA."""
    return by_xla(folded(model), examples)


def in_litert(model: keras.Model, examples: np.ndarray, quantization: str) -> Teacher:
    """Through a `.tflite` file, a batch at a time on all cores."""
    data = {"representative_data": examples} if quantization == "int8" else {}
    file = keras_kd.tflite.convert(model, quantization, verification_data=examples[:100], **data)
    return NumpyFunction(BatchedFile(file.content), model.output_shape[1:], name=quantization)


class BatchedFile:
    """A file with one input and one output in LiteRT, resized to the batches that it gets.

    `TFLiteModel.predict` runs the examples one by one on one core.

    Args:
        content: the bytes of a `.tflite` file without layers that fix the number of examples.
        threads: how many; `None` for all cores.
    """

    def __init__(self, content: bytes, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(
            model_content=content, num_threads=threads or os.cpu_count()
        )
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self._shape: tuple[int, ...] | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The outputs of a batch."""
        interpreter = self._interpreter
        if x.shape != self._shape:
            interpreter.resize_tensor_input(self._input["index"], x.shape)
            interpreter.allocate_tensors()
            self._shape = x.shape
        interpreter.set_tensor(self._input["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(self._output["index"])


AS_IT_IS = "as it is: compiled with the step"
# What makes a teacher of `keras_kd.teachers` of a model that ends in logits, and examples.
FORMS: dict[str, Callable[[keras.Model, np.ndarray], Teacher]] = {
    AS_IT_IS: lambda model, examples: ModelTeacher(model),
    "eagerly": eagerly,
    "compiled by XLA": by_xla,
    "frozen": frozen,
    "BatchNormalization folded": normalization_folded,
    "folded, compiled by XLA": folded_by_xla,
    "LiteRT, float32": partial(in_litert, quantization="float32"),
    "LiteRT, int8": partial(in_litert, quantization="int8"),
    "bfloat16": in_bfloat16,
}


def asked(teacher: Teacher) -> Callable[[Any], Any]:
    """The teacher's outputs as a step computes them, a function of a batch."""
    return tf.function(lambda x: teacher(x, None).outputs, autograph=False)
