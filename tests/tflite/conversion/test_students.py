import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite.conversion import students
from keras_kd.tflite.conversion.forms import FORMS


def test_a_student_in_float32_is_not_copied(student):
    assert students.in_float32(student) is student


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
    copy = students.in_float32(mixed)
    layers = students.layers_of(copy)
    assert {layer.compute_dtype for layer in layers} == {"float32"}
    for weight, original in zip(copy.get_weights(), mixed.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, original)
    assert recurrent.compute_dtype == policy.removeprefix("mixed_")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2, dtype="mixed_float16")

    def call(self, x):
        return self.dense(x)


def test_mixed_precision_that_cannot_be_rebuilt():
    student = Subclassed()
    student(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"mixed precision, which cannot be rebuilt.*set_weights"):
        students.in_float32(student)


def test_wrappers_are_found_in_nested_models(make_student):
    import tf_keras

    aware, _ = make_student("quantization-aware")
    assert students.is_quantization_aware(tf_keras.Sequential([aware]))
    assert not students.is_quantization_aware(make_student("tf_keras")[0])


def test_an_embedding_of_keras_3_needs_an_operator_that_tflm_lacks():
    words = keras.Sequential([keras.Input((5,), dtype="int32"), keras.layers.Embedding(20, 4)])
    students.check_layers(words, FORMS["int8"])
    with pytest.raises(ValueError, match=r"operator SELECT.*compression.to_tf_keras\(student\)"):
        students.check_layers(words, FORMS["int8"], {"SELECT"})


def test_fused_lstms_in_two_directions_compute_something_else_in_integers():
    import tf_keras

    of = tf_keras.layers
    fused, unrolled = (
        tf_keras.Sequential(
            [tf_keras.Input((5, 3)), of.Bidirectional(of.LSTM(4, unroll=unroll), name="both")]
        )
        for unroll in (False, True)
    )
    students.check_layers(fused, FORMS["float32"])
    students.check_layers(unrolled, FORMS["int8"])
    with pytest.raises(ValueError, match=r"layer 'both', LSTMs in two directions.*unroll=True"):
        students.check_layers(fused, FORMS["int8"])


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
    copy = students.unrolled(student)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    np.testing.assert_allclose(copy(x), student(x), atol=1e-6)
    model = tflite.convert(copy, "int8", np.repeat(x, 8, axis=0), verification_data=x)
    assert "WHILE" not in model.operators
    assert not any(layer.unroll for layer in student.layers if hasattr(layer, "unroll"))


def test_a_length_that_is_open_is_not_unrolled():
    student = _recurrent(keras, keras.layers.GRU(4), length=None)
    with pytest.raises(ValueError, match=r"to be unrolled.*of a known length.*keras.Input\(\(100"):
        students.unrolled(student)
    with pytest.raises(ValueError, match=r"Expected a keras.Model"):
        students.unrolled("student.keras")
