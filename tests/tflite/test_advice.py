"""Errors of conversions and firmware say how to mend them; here that is done, and it works."""

import re

import keras
import numpy as np
import pytest

from keras_kd import compression, tflite
from keras_kd.tflite import microcontroller

from _models import Row

layers, ops = keras.layers, keras.ops
X = np.random.default_rng(0).random((40, 6, 8), np.float32)
WORDS = np.random.default_rng(0).integers(1, 20, (40, 6)).astype("int32")
needs_quantizer = pytest.mark.skipif(
    not __import__("importlib").util.find_spec("ai_edge_quantizer"), reason="needs the `int4` extra"
)
needs_tflm = pytest.mark.skipif(not microcontroller.is_installed(), reason="needs tflite-micro")


def student(*body, shape=(6, 8), **options):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape, **options), *body])


def function(compute, shape=(6, 8), **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, **options)
    return keras.Model(inputs, compute(inputs))


def with_weights(of, new):
    new.set_weights(of.get_weights())
    return new


def gru(unroll=False):
    table = layers.Embedding(20, 8, mask_zero=True)
    body = table, layers.GRU(6, unroll=unroll), layers.Dense(4)
    return student(*body, shape=(6,), dtype="int32")


def words():
    return student(layers.Embedding(20, 8), layers.Flatten(), shape=(6,), dtype="int32")


def upsampled(size, interpolation="nearest"):
    up = layers.UpSampling2D(2, interpolation=interpolation)
    return student(up, layers.Conv2D(2, 3), shape=(*size, 1))


def quantized_by_keras():
    model = student(layers.Flatten(), layers.Dense(16))
    model.quantize("int8")
    return model


def dense():
    return student(layers.Flatten(), layers.Dense(64), layers.Dense(3))


def convert(model, *arguments, **options):
    return tflite.convert(model, *arguments, **options)


def project(model, folder):
    return microcontroller.write_project(model, folder / "firmware")


ROWS = {
    "a loop in int8": Row(
        lambda _: convert(gru(), "int8", WORDS),
        r"'gru.*' \(GRU\), a loop over time.*unroll=True in this layer and copy the weights",
        lambda _: convert(with_weights(gru(), gru(unroll=True)), "int8", WORDS),
    ),
    "a loop in int8, in real numbers": Row(
        lambda _: convert(gru(), "int8", WORDS),
        r"or choose quantization='dynamic_int8'",
        lambda _: convert(student(layers.GRU(32), shape=(6, 8)), "dynamic_int8"),
    ),
    "a loop in int8 on a microcontroller": Row(
        lambda _: convert(student(layers.GRU(6)), "int8", X, "microcontroller"),
        r"or choose quantization='float32'",
        lambda _: convert(student(layers.GRU(6)), "float32", None, "microcontroller"),
    ),
    "argmax": Row(
        lambda _: convert(function(lambda x: ops.argmax(layers.Dense(4)(x), axis=-1))),
        r"end the student before keras.ops.argmax",
        lambda _: convert(function(lambda x: layers.Dense(4)(x))),
    ),
    "bicubic": Row(
        lambda _: convert(upsampled((8, 8), "bicubic")),
        r"ResizeBicubic in the layer 'up_sampling2d.*interpolation='bilinear'",
        lambda _: convert(upsampled((8, 8), "bilinear")),
    ),
    "erf": Row(
        lambda _: convert(function(lambda x: x * (1 + ops.erf(x)))),
        r"replace keras.ops.erf, in gelu by keras.activations.gelu",
        lambda _: convert(function(keras.activations.gelu)),
    ),
    "quantized by Keras": Row(
        lambda _: convert(quantized_by_keras()),
        r"which Keras has quantized to 'int8'.*as it was before student.quantize",
        lambda _: convert(student(layers.Flatten(), layers.Dense(16)), "int8", X),
    ),
    "integers turned into real numbers": Row(
        lambda _: convert(
            function(lambda x: layers.Dense(3)(ops.cast(x, "float32")), dtype="int32"),
            "int8",
            (10 * X).astype("int32"),
        ),
        r"CAST.*let the student take float32",
        lambda _: convert(function(layers.Dense(3)), "int8", 10 * X),
    ),
    "other operators without integers": Row(
        lambda _: convert(function(lambda x: layers.Dense(3)(ops.sin(x))), "int8", X),
        r"SIN compute in floating point. (?!.*LayerNorm).*or choose quantization='dynamic_int8'",
        lambda _: convert(function(lambda x: layers.Dense(200)(ops.sin(x))), "dynamic_int8"),
    ),
    "16 bits of a fused LSTM": Row(
        lambda _: convert(compression.to_tf_keras(student(layers.LSTM(4))), "int16x8", X),
        r"needs the operator UNIDIRECTIONAL_SEQUENCE_LSTM.*choose quantization='int8' or",
        lambda _: convert(compression.to_tf_keras(student(layers.LSTM(4))), "int8", X),
    ),
    "16 bits of words": Row(
        lambda _: convert(
            compression.to_tf_keras(words()), "int16x8", WORDS, target="microcontroller"
        ),
        r"integers in its inputs.*choose quantization='int8' or 'float32'",
        lambda _: convert(compression.to_tf_keras(words()), target="microcontroller"),
    ),
    "gelu in TFLM": Row(
        lambda _: convert(student(layers.Dense(4, "gelu")), "int8", X, "microcontroller"),
        r"operators GELU.*: replace gelu by relu, or .* as x \* keras.ops.sigmoid\(1.702 \* x",
        lambda _: convert(
            function(lambda x: (h := layers.Dense(4)(x)) * ops.sigmoid(1.702 * h)),
            "int8",
            X,
            "microcontroller",
        ),
    ),
    "a spectrum in TFLM": Row(
        lambda _: convert(
            function(lambda x: layers.Dense(3)(ops.rfft(x)[0])), target="microcontroller"
        ),
        r"operators .*RFFT2D. (?!.*gelu).*compute the spectrum of the data before the student",
        lambda _: convert(function(layers.Dense(3), (6, 5)), target="microcontroller"),
    ),
    "a file for phones in TFLM": Row(
        lambda folder: project(convert(dense(), "dynamic_int8"), folder),
        r"convert with quantization='int8' or 'float32' and target='microcontroller'",
        lambda folder: project(convert(dense(), "int8", X, "microcontroller"), folder),
    ),
    "a recipe without data for TFLM": Row(
        lambda _: convert(dense(), recipe={"*": "int8"}, target="microcontroller"),
        r"or choose 'float32'",
        lambda _: convert(dense(), target="microcontroller"),
    ),
    "dynamic weights in a recipe for TFLM": Row(
        lambda _: convert(dense(), recipe={"*": "dynamic_int8"}, target="microcontroller"),
        r"choose 'int8' or 'float32' for these layers in the recipe",
        lambda _: convert(dense(), recipe={"*": "int8"}, representative_data=X,
                          target="microcontroller"),
    ),
    "a form that TFLM refuses": Row(
        lambda _: convert(dense(), "dynamic_int8", target="microcontroller"),
        r"choose quantization='int8'",
        lambda _: convert(dense(), "int8", X, "microcontroller"),
    ),
    "a pruned student": Row(
        lambda _: convert(compression.prune(dense(), 0.5)),
        r"pass keras_kd.compression.strip\(student\)",
        lambda _: convert(compression.strip(compression.prune(dense(), 0.5))),
    ),
    "a quantization-aware one in another form": Row(
        lambda _: convert(compression.quantize_aware(dense(), X), "dynamic_int8"),
        r"choose quantization='int8'.*, or pass keras_kd.compression.strip\(student\)",
        lambda _: (
            convert(compression.quantize_aware(dense(), X), "int8"),
            convert(compression.strip(compression.quantize_aware(dense(), X)), "dynamic_int8"),
        ),
    ),
    "a loop in quantization-aware training": Row(
        lambda _: compression.quantize_aware(gru(), WORDS),
        r"'gru.*' \(GRU\), a loop over time.*unroll=True in this layer",
        lambda _: convert(
            compression.quantize_aware(with_weights(gru(), gru(True)), WORDS), "int8", WORDS
        ),
    ),
    "strings": Row(
        lambda _: convert(
            student(layers.StringLookup(vocabulary=["a"]), shape=(6,), dtype="string")
        ),
        r"apply that layer to the data before the student.*keras.Input\(..., dtype='int32'\)",
        lambda _: convert(student(layers.Embedding(4, 3), shape=(6,), dtype="int32")),
    ),
}  # fmt: skip
SLOW = (
    "a loop in int8, in real numbers",
    "a loop in int8 on a microcontroller",
    "a form that TFLM refuses",
    "dynamic weights in a recipe for TFLM",
    "a loop in quantization-aware training",
    "a quantization-aware one in another form",
    "a spectrum in TFLM",
    "a pruned student",
    "16 bits of a fused LSTM",
    "bicubic",
    "erf",
)
MARKS = {"TFLM": needs_tflm, "microcontroller": needs_tflm, "recipe": needs_quantizer}


def marks(name):
    return [mark for word, mark in MARKS.items() if word in name] + [
        pytest.mark.slow for slow in SLOW if slow == name
    ]


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=name, marks=marks(name)) for name, row in ROWS.items()]
)
@pytest.mark.filterwarnings("ignore:Received quantization='int16x8'")
def test_advice_works(row, tmp_path):
    with pytest.raises(ValueError, match=r"^Received .*\. Expected .*\. To fix it: ") as error:
        row.provoke(tmp_path)
    assert re.search(row.message, str(error.value)), error.value
    for traces in ("MLIR", "loc(", "<unknown>", "untracked"):
        assert traces not in str(error.value)
    row.follow(tmp_path)
