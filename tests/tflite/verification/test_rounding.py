"""Files that cut numbers off are told from those that round them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_kd import tflite
from keras_kd.tflite.conversion import converter
from keras_kd.tflite.runtimes.litert import LiteRTInterpreter
from keras_kd.tflite.verification.closeness import check_close
from keras_kd.tflite.verification.rounding import rounding_twin

X = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")


def student_of(make):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    return keras.Model(image, make(layers.Conv2D(4, 3, padding="same")(image)))


def attention(x):
    pooled = [ops.max(x, -1, keepdims=True), ops.mean(x, -1, keepdims=True)]
    weights = layers.Conv2D(1, 5, padding="same", activation="sigmoid")(ops.concatenate(pooled, -1))
    return layers.Dense(5)(ops.mean(x * weights, (1, 2)))


NARROWED = {
    "minimum": lambda x: x + ops.minimum(x, 0.2),
    "maximum": lambda x: x + ops.maximum(x, 1.0),
    "attention": attention,
}


@pytest.mark.parametrize("case", NARROWED)
def test_what_the_converter_narrows_is_refused(case, monkeypatch):
    student = student_of(NARROWED[case])
    monkeypatch.setattr(converter, "keep_tensors_apart", lambda *_: False)
    with pytest.raises(ValueError, match=r"clips values inside|not those of the student"):
        tflite.convert(student, "int8", X)


@pytest.fixture(scope="module")
def file_and_student():
    student = student_of(lambda x: layers.Dense(5)(layers.Flatten()(ops.relu(x))))
    return tflite.convert(student, "int8", X, target="microcontroller"), student


def test_the_twin_is_as_far_off_as_the_file(file_and_student):
    model, student = file_and_student
    verification = tflite.verify(model, student, X)
    [output] = verification.outputs
    assert 0.5 < output.typical_difference / output.rounding_difference < 1.5
    assert len(output.channels) == 5
    check_close(verification, "int8")


def test_the_twin_rounds_as_the_file_does(file_and_student):
    """Where nothing is cut off, the results are the file's, save single steps."""
    model, _ = file_and_student
    [image], [output] = model.inputs, model.outputs
    on_steps = np.round(X / image.scale) * np.float32(image.scale)
    [received] = LiteRTInterpreter(rounding_twin(model.content), "builtin").run_each([on_steps])
    steps = np.abs(received - model.predict(on_steps)) / output.scale
    assert steps.max() <= 1.01
    assert (steps < 0.01).mean() > 0.9


def test_beyond_what_it_was_calibrated_on_it_is_refused(file_and_student):
    model, student = file_and_student
    check_close(tflite.verify(model, student, np.concatenate([X, 5 * X[:3]])), "int8")
    with pytest.raises(ValueError, match=r"calibrate on representative_data like those compared"):
        check_close(tflite.verify(model, student, 2 * X), "int8")


def test_files_without_steps_have_no_twin():
    student = student_of(lambda x: layers.Dense(40)(layers.Flatten()(x)))
    for form in ("float32", "dynamic_int8"):
        model = tflite.convert(student, form)
        assert [output.rounding_difference for output in model.verification.outputs] == [None]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_of_quantization_aware_students(bits):
    from keras_kd.compression import quantize_aware

    student = student_of(lambda x: layers.Dense(5)(layers.Flatten()(x)))
    aware = quantize_aware(student, X, weight_bits=bits)
    [output] = tflite.convert(aware, "int8", verification_data=X).verification.outputs
    assert output.rounding_difference < 0.2 * output.deviation


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "swish", "hard_swish"])
def test_deep_students_are_not_refused(activation):
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same")(image)
    for _ in range(12):
        y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
        x = x + layers.Conv2D(8, 1)(layers.Activation(activation)(y))
    student = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    for layer in student.layers:
        if isinstance(layer, layers.BatchNormalization):
            low, high = np.full(8, 0.3), np.full(8, 2.0)
            layer.set_weights([random.uniform(low, high) for _ in range(4)])
    with pytest.warns(UserWarning, match="unlike the student's training data"):
        [output] = tflite.convert(student, "int8", X).verification.outputs
    assert output.typical_difference < 1.5 * output.rounding_difference + output.step
