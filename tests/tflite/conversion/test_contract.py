"""Every form on every target for students of every kind: it works, or says why not and what to do.

What works has the types that the table of `convert` promises, computes what the student computes,
and says so itself. What does not is refused in three parts. The table REFUSED says which is which.
"""

import contextlib
import functools
import itertools
import re

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import microcontroller

layers = keras.layers

FORMS = {
    # What computes, and what some weights must be.
    "float32": (None, "FLOAT32"),
    "float16": (None, "FLOAT16"),
    "dynamic_int8": (None, "INT8"),
    "int8": ("int8", "INT8"),
    "int16x8": ("int16", "INT8"),
    "int4": (None, "INT4"),
}
TARGETS = ("android", "microcontroller", "web")
# Largest difference to the student, relative to the range of its outputs.
TOLERANCES = {
    "float32": 1e-5,
    "float16": 5e-3,
    "dynamic_int8": 0.04,
    "int8": 0.06,
    "int16x8": 0.03,
    "int4": 0.3,
}


def numbers(*shape):
    return np.random.default_rng(0).random((64, *shape), np.float32)


def words(*shape, below=20):
    return np.random.default_rng(0).integers(0, below, (64, *shape)).astype("int32")


def head(library=keras):
    # Kernels of fewer than 1024 values stay float32 in dynamic_int8.
    return [library.layers.Dense(32, activation="relu"), library.layers.Dense(40, name="scores")]


def sequential(*body, shape, dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *body, *head()])


def recurrent(layer):
    return sequential(layer, shape=(5, 8)), numbers(5, 8)


def tf_keras_recurrent(make):
    import tf_keras

    body = make(tf_keras.layers)
    return tf_keras.Sequential([tf_keras.Input((5, 8)), body, *head(tf_keras)]), numbers(5, 8)


def embedding_of_tf_keras():
    import tf_keras

    body = [tf_keras.layers.Embedding(20, 8), tf_keras.layers.Flatten(), *head(tf_keras)]
    return tf_keras.Sequential([tf_keras.Input((5,), dtype="int32"), *body]), words(5)


def normalized():
    normalization = layers.Normalization()
    normalization.adapt(numbers(6) * 5)
    return sequential(normalization, shape=(6,)), numbers(6) * 5


def picture(*body, data=None, dtype="float32"):
    student = sequential(*body, layers.Conv2D(4, 3), layers.Flatten(), shape=(8, 8, 1), dtype=dtype)
    return student, numbers(8, 8, 1) if data is None else data


def transformer():
    tokens = keras.Input((6, 8), name="tokens")
    x = layers.LayerNormalization()(tokens + layers.MultiHeadAttention(2, 4)(tokens, tokens))
    x = layers.GlobalAveragePooling1D()(x)
    for layer in head():
        x = layer(x)
    return keras.Model(tokens, x), numbers(6, 8)


def of_texts(*body):
    return sequential(*body, layers.Flatten(), shape=(1,), dtype="string"), None


KINDS = {
    "loop LSTM": lambda: recurrent(layers.LSTM(8)),
    "loop GRU": lambda: recurrent(layers.GRU(8)),
    "loop bidirectional": lambda: recurrent(layers.Bidirectional(layers.LSTM(8))),
    "unrolled LSTM": lambda: recurrent(layers.LSTM(8, unroll=True)),
    "unrolled GRU": lambda: recurrent(layers.GRU(8, unroll=True)),
    "unrolled bidirectional": lambda: recurrent(layers.Bidirectional(layers.LSTM(8, unroll=True))),
    "fused LSTM": lambda: tf_keras_recurrent(lambda of: of.LSTM(8)),
    "fused bidirectional": lambda: tf_keras_recurrent(lambda of: of.Bidirectional(of.LSTM(8))),
    "transformer": transformer,
    "rescaling": lambda: picture(layers.Rescaling(1 / 255), data=numbers(8, 8, 1) * 255),
    "rescaled bytes": lambda: picture(
        layers.Rescaling(1 / 255), data=words(8, 8, 1, below=256).astype("uint8"), dtype="uint8"
    ),
    "normalization": normalized,
    "resizing": lambda: picture(layers.Resizing(6, 6)),
    "cropping": lambda: picture(layers.CenterCrop(6, 6)),
    "augmentation": lambda: picture(layers.RandomFlip(), layers.RandomRotation(0.1)),
    "embedding of tf_keras": embedding_of_tf_keras,
    "embedding": lambda: (
        sequential(layers.Embedding(20, 8), layers.Flatten(), shape=(5,), dtype="int32"),
        words(5),
    ),
    "one-hot": lambda: (
        sequential(layers.CategoryEncoding(6, "one_hot"), shape=(1,), dtype="int32"),
        words(1, below=6),
    ),
    "multi-hot": lambda: (
        sequential(layers.CategoryEncoding(6, "multi_hot"), shape=(3,), dtype="int32"),
        words(3, below=6),
    ),
    "strings": lambda: of_texts(layers.StringLookup(vocabulary=["a", "b"])),
    "texts": lambda: of_texts(layers.TextVectorization(vocabulary=["a"], output_sequence_length=4)),
    "integer lookup": lambda: (
        sequential(layers.IntegerLookup(vocabulary=[3, 5]), shape=(2,), dtype="int32"),
        words(2),
    ),
    "any length": lambda: (
        sequential(layers.Conv1D(8, 3), layers.GlobalMaxPooling1D(), shape=(None, 8)),
        numbers(9, 8),
    ),
    "words of any number": lambda: (
        sequential(
            layers.Embedding(20, 8, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            shape=(None,),
            dtype="int32",
        ),
        words(9),
    ),
    "loop of any length": lambda: (sequential(layers.LSTM(8), shape=(None, 8)), numbers(9, 8)),
    "pictures of any size": lambda: (
        sequential(layers.Conv2D(8, 3), layers.GlobalAveragePooling2D(), shape=(None, None, 1)),
        numbers(9, 7, 1),
    ),
}
SHARED = (
    "sequential",
    "functional",
    "subclassed",
    "mixed precision",
    "several inputs and outputs",
    "tf_keras",
    "quantization-aware",
)
ANY_LENGTH = "any length|words of any number|loop of any length|pictures of any size"
LOOKUP = "strings|texts|integer lookup"
# The first line that fits says why a form is refused: kinds, forms, targets, and the message.
REFUSED = [
    (".*", "float16|dynamic_int8|int4", "microcontroller", r"Micro refuses .*choose .*'int8'"),
    ("multi-hot", ".*", ".*", r"'multi_hot'.*it cannot count.*'one_hot', or apply"),
    (LOOKUP, ".*", ".*", r"no operator for lookups.*apply that layer to the data before"),
    ("quantization-aware", "(?!int8$).*", ".*", r"'int8', the form that it was trained for"),
    (ANY_LENGTH, ".*", "microcontroller|web", r"cannot be resized there.*build the student with"),
    ("fused bidirectional", "int8|int16x8", ".*", r"LSTMs in two directions.*unroll=True"),
    ("fused LSTM", "int16x8", ".*", r"needs the operator UNIDIREC.*choose quantization"),
    ("resizing", "int16x8", "microcontroller", r"Micro refuses .*RESIZE_BILINEAR"),
    ("rescaled bytes", "float32", "microcontroller", r"Micro refuses .*UINT8 .*CAST"),
    ("transformer", "int16x8", "microcontroller", r"Micro that differ from LiteRT's"),
    (
        "one-hot",
        "int8",
        ".*",
        r"CAST.* compute in floating point.*replace the",
    ),
    ("loop.*", "int16x8", ".*", r"a loop over time.*unroll=True.*, or choose"),
    ("loop (?!LSTM|of any length).*", "int8", ".*", r"a loop over time.*unroll=True.*, or choose"),
    ("rescaled bytes", "int8", ".*", r"rescales the integers of .*pass input_type='uint8'"),
    ("one-hot", "float32", "microcontroller", r"operators .*ONE_HOT"),
    ("embedding.*|words.*|one-hot|rescaled bytes", "int16x8", ".*", r"integers in its inputs"),
]
# Quick ones; the rest is slow.
FAST = {
    *(("functional", form, "android") for form in FORMS),
    *(("functional", form, "microcontroller") for form in ("int8", "int16x8", "float16")),
    ("functional", "int8", "web"),
    ("several inputs and outputs", "int8", "microcontroller"),
    ("quantization-aware", "int8", "android"),
    ("subclassed", "int8", "microcontroller"),
    ("mixed precision", "float16", "android"),
    ("any length", "int8", "android"),
    ("any length", "int8", "microcontroller"),
    ("words of any number", "float32", "android"),
    ("fused bidirectional", "int8", "android"),
    ("rescaling", "int8", "microcontroller"),
    *((kind, "float32", "android") for kind in ("strings", "multi-hot")),
}


def is_worth_it(kind, form, target):
    """Files for browsers are those for phones: of them only what may be refused is looked at."""
    return target != "web" or kind == "functional" or form == "int8"


CASES = [
    pytest.param(*case, marks=[] if case in FAST else [pytest.mark.slow])
    for case in itertools.product((*SHARED, *KINDS), FORMS, TARGETS)
    if is_worth_it(*case)
]


@pytest.fixture(scope="module")
def student_of(make_student):
    @functools.cache
    def make(kind):
        if kind in SHARED:
            return make_student(kind)
        keras.utils.set_random_seed(0)
        return KINDS[kind]()

    return make


def refusal(case):
    for *patterns, message in REFUSED:
        if all(re.fullmatch(*pair) for pair in zip(patterns, case, strict=True)):
            return message
    return None


def expected_warning(quantization, target):
    if quantization == "int16x8" and target != "microcontroller":
        return pytest.warns(UserWarning, match="XNNPACK has none")
    return contextlib.nullcontext()


@pytest.mark.parametrize(("kind", "quantization", "target"), CASES)
def test_works_or_is_refused(student_of, kind, quantization, target):
    student, data = student_of(kind)
    integers, weights = FORMS[quantization]
    if quantization == "int4":
        pytest.importorskip("ai_edge_quantizer")
    given = data if integers and kind != "quantization-aware" else None
    message = refusal((kind, quantization, target))
    if message is not None:
        with (
            pytest.raises(ValueError, match=r"^Received .*\. Expected .*\. To fix it: ") as error,
            expected_warning(quantization, target),
        ):
            tflite.convert(student, quantization, given, target, verification_data=data)
        assert re.search(message, str(error.value)), error.value
        return

    before = [np.array(weight) for weight in student.get_weights()]
    with expected_warning(quantization, target):
        model = tflite.convert(student, quantization, given, target, verification_data=data)

    at_ends = integers if target == "microcontroller" else None
    for tensor in (*model.inputs, *model.outputs):
        real = tensor.is_quantized or np.issubdtype(tensor.dtype, np.floating)
        assert tensor.is_quantized == bool(real and at_ends)
        assert not real or tensor.dtype == np.dtype(at_ends or "float32")
        assert tensor.shape[0] == 1
    assert weights in model.flatbuffer.weight_types()
    if integers:
        assert model.flatbuffer.float_operators() == []
    verification = model.verification
    assert verification.data == "given"
    assert verification.largest_difference <= TOLERANCES[quantization] * max(
        output.high - output.low for output in verification.outputs
    )
    for weight, original in zip(student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, original)
    if target == "microcontroller" and microcontroller.is_installed():
        assert microcontroller.check_agreement(model).examples == 8
