import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite.student import (
    Signature,
    in_float32,
    is_quantization_aware,
    layers_of,
    unrolled,
)


def _names(model):
    signature = Signature(model)
    inputs = {t.name: np.zeros((2, *t.shape[1:]), t.dtype) for t in signature.inputs}
    return [tensor.name for tensor in signature.inputs], list(signature(inputs))


def _model(inputs, outputs):
    return keras.Model(inputs, outputs)


def test_names_that_the_user_gave():
    image = keras.Input((4,), name="image")
    model = _model(image, keras.layers.Dense(2, name="scores")(image))
    assert _names(model) == (["image"], ["scores"])


def test_automatic_names_do_not_depend_on_what_was_built_before():
    for _ in range(2):
        first, second = keras.Input((4,)), keras.Input((4,))
        outputs = [keras.layers.Dense(2)(first), keras.layers.BatchNormalization()(second)]
        model = _model([first, second], outputs)
        assert _names(model) == (["input", "input_1"], ["output", "output_1"])


def test_keys_of_dicts():
    first, second = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    outputs = {"q": keras.layers.Dense(2, name="layer")(first), "p": keras.layers.ReLU()(second)}
    names = _names(_model({"b": first, "a": second}, outputs))
    assert names == (["b", "a"], ["q", "p"])


def test_names_become_identifiers():
    image = keras.Input((4,), name="my-image")
    model = _model({"1 x": image}, keras.layers.Dense(2, name="class-scores")(image))
    assert _names(model) == (["tensor_1_x"], ["class_scores"])


class Subclassed(keras.Model):
    def call(self, inputs):
        if isinstance(inputs, dict):
            return inputs["v"]
        return list(inputs) if isinstance(inputs, list | tuple) else inputs


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (np.zeros((2, 3)), (["input"], ["output"])),
        ({"u": np.zeros((2, 3)), "v": np.zeros((2, 4))}, (["u", "v"], ["output"])),
        ([np.zeros((2, 3)), np.zeros((2, 4))], (["input", "input_1"], ["output", "output_1"])),
    ],
)
def test_subclassed_models(inputs, names):
    model = Subclassed()
    model(inputs)
    assert _names(model) == names


@pytest.mark.parametrize("build", [Subclassed, lambda: keras.Sequential([keras.layers.Dense(2)])])
def test_a_model_that_was_never_built(build):
    with pytest.raises(ValueError, match=r"without the shape .*call it once on a batch"):
        Signature(build())


def test_sizes_that_are_left_open():
    signature = Signature(_model(x := keras.Input((None, 3), name="sound"), keras.layers.ReLU()(x)))
    assert [tensor.shape for tensor in signature.inputs] == [(1, None, 3)]


def test_texts_are_refused():
    word = keras.Input((1,), dtype="string", name="word")
    lookup = keras.layers.StringLookup(vocabulary=["a"])
    with pytest.raises(ValueError, match=r"text in its input 'word'.*look words up before"):
        Signature(_model(word, lookup(word)))


def test_nested_inputs():
    first, second = keras.Input((4,)), keras.Input((4,))
    model = _model({"a": {"b": first}, "c": second}, keras.layers.Add()([first, second]))
    with pytest.raises(ValueError, match=r"input 'a' is nested.*a flat list or dict"):
        Signature(model)


def test_a_student_in_float32_is_not_copied(student):
    assert in_float32(student) is student


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_becomes_float32_with_the_same_weights(policy):
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype=policy)])
    recurrent = keras.layers.Bidirectional(keras.layers.LSTM(2, dtype=policy), dtype=policy)
    mixed = keras.Sequential(
        [
            keras.Input((5, 4)),
            keras.layers.TimeDistributed(inner, dtype=policy),
            recurrent,
            keras.layers.Dense(2, dtype="float32"),
        ]
    )
    copy = in_float32(mixed)
    layers = layers_of(copy)
    assert {layer.compute_dtype for layer in layers} == {"float32"}
    for weight, original in zip(copy.get_weights(), mixed.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, original)
    assert recurrent.compute_dtype == policy.removeprefix("mixed_")


class InHalfPrecision(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2, dtype="mixed_float16")

    def call(self, x):
        return self.dense(x)


def test_mixed_precision_that_cannot_be_rebuilt():
    student = InHalfPrecision()
    student(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"mixed precision, which cannot be rebuilt.*set_weights"):
        in_float32(student)


def test_wrappers_are_found_in_nested_models(make_student):
    import tf_keras

    aware, _ = make_student("quantization-aware")
    assert is_quantization_aware(tf_keras.Sequential([aware]))
    assert not is_quantization_aware(make_student("tf_keras")[0])


def _recurrent(library, *of, length=5):
    return library.Sequential([library.Input((length, 3)), *of])


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_unrolled_students_compute_the_same_without_a_loop(library):
    library = __import__(library)
    of = library.layers
    inner = _recurrent(library, of.SimpleRNN(4, return_sequences=True, name="inner"))
    student = _recurrent(
        library,
        inner,
        of.GRU(4, return_sequences=True),
        of.Bidirectional(of.LSTM(3)),
        of.RepeatVector(2),
        of.RNN(of.LSTMCell(3)),
    )
    copy = unrolled(student)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    np.testing.assert_allclose(copy(x), student(x), atol=1e-6)
    model = tflite.convert(copy, "int8", np.repeat(x, 8, axis=0), verification_data=x)
    assert "WHILE" not in model.operators
    assert not any(layer.unroll for layer in student.layers if hasattr(layer, "unroll"))


def test_a_length_that_is_open_is_not_unrolled():
    student = _recurrent(keras, keras.layers.GRU(4), length=None)
    with pytest.raises(ValueError, match=r"to be unrolled.*of a known length.*keras.Input\(\(100"):
        unrolled(student)
    with pytest.raises(ValueError, match=r"Expected a keras.Model"):
        unrolled("student.keras")
