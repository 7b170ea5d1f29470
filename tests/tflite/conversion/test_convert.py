import os
import tempfile

import keras
import numpy as np
import pytest

from keras_kd import tflite

# Largest difference to the student, relative to its largest output.
TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "dynamic_int8": 3e-2, "int8": 6e-2}
FORMS = [
    ("float32", "android"),
    ("float16", "android"),
    ("dynamic_int8", "android"),
    ("int8", "android"),
    ("float32", "microcontroller"),
    ("int8", "microcontroller"),
]
KINDS = [
    "sequential",
    "functional",
    "subclassed",
    "mixed precision",
    "several inputs and outputs",
    "tf_keras",
]
CASES = [
    # In a few seconds: each form of one student, and the most demanding form of each student.
    pytest.param(
        kind,
        *form,
        marks=[pytest.mark.slow] if kind != "functional" and form != FORMS[-1] else [],
    )
    for kind in KINDS
    for form in FORMS
]
CASES += [("quantization-aware", "int8", target) for target in ("android", "microcontroller")]
INPUTS = {"functional": ["image"], "several inputs and outputs": ["a", "z"]}
OUTPUTS = {
    "functional": ["output"],
    "subclassed": ["scores"],
    "several inputs and outputs": ["kind", "output"],
}


@pytest.mark.parametrize(("kind", "quantization", "target"), CASES)
def test_contract(make_student, kind, quantization, target):
    student, data = make_student(kind)
    before = [np.array(weight) for weight in student.get_weights()]
    needs_data = quantization == "int8" and kind != "quantization-aware"

    model = tflite.convert(student, quantization, data if needs_data else None, target)

    assert [tensor.name for tensor in model.inputs] == INPUTS.get(kind, ["input"])
    assert sorted(tensor.name for tensor in model.outputs) == OUTPUTS.get(kind, ["logits"])
    integers = (quantization, target) == ("int8", "microcontroller")
    for tensor in (*model.inputs, *model.outputs):
        assert tensor.shape[0] == 1
        assert tensor.dtype == (np.int8 if integers else np.float32)
        assert tensor.is_quantized == integers
    if quantization == "int8":
        assert model.flatbuffer.float_operators() == []
    if quantization == "float16":
        assert "FLOAT16" in model.flatbuffer.weight_types()
    assert not {"MUL", "SUB"} & set(model.operators), "BatchNormalization was not folded"
    verification = tflite.verify(model, student, data)
    outputs = student.predict(data, verbose=0)
    largest = max(np.abs(output).max() for output in keras.tree.flatten(outputs))
    assert verification.largest_difference <= TOLERANCES[quantization] * largest
    for weight, original in zip(student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, original)


@pytest.mark.parametrize("quantization", ["float16", "dynamic_int8"])
def test_what_tflm_refuses_is_refused_for_microcontrollers(student, quantization):
    with pytest.raises(ValueError, match=r"Micro refuses the others. To fix it: choose .*'int8'"):
        tflite.convert(student, quantization, target="microcontroller")


def test_an_operator_that_tflm_lacks_is_named(images):
    pytest.importorskip("tflite_micro")
    student = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Activation("gelu")])
    with pytest.raises(ValueError, match=r"Micro refuses .*GELU"):
        tflite.convert(student, "float32", target="microcontroller")
    assert "GELU" in tflite.convert(student, "float32").operators


def test_int8_needs_data_unless_the_student_knows_its_ranges(student):
    with pytest.raises(ValueError, match=r"without representative_data.*representative_data=x_tr"):
        tflite.convert(student, "int8")


@pytest.mark.parametrize("data", [np.empty((0, 8, 8, 1), np.float32), [], iter(())])
def test_no_example_is_refused_where_the_converter_returns_a_float_model(student, data):
    with pytest.raises(ValueError, match="representative_data without an example"):
        tflite.convert(student, "int8", data)


def test_a_quantization_aware_student_converts_to_int8_only(make_student):
    aware, _ = make_student("quantization-aware")
    with pytest.raises(ValueError, match=r"for a quantization-aware student.*compression.strip"):
        tflite.convert(aware, "float32")


def test_layers_that_a_quantization_aware_student_leaves_in_float_need_data(images):
    from keras_kd import compression

    student = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Rescaling(2.0, -1.0), keras.layers.Conv2D(4, 3)]
    )
    aware = compression.quantize_aware(student)
    with pytest.raises(ValueError, match=r"MUL compute in floating point.*pass representative_d"):
        tflite.convert(aware, "int8")
    model = tflite.convert(aware, "int8", images)
    assert model.flatbuffer.float_operators() == []


@pytest.mark.parametrize("wrapper", ["pruning", "clustering"])
def test_wrappers_must_be_stripped(make_student, wrapper):
    import tensorflow_model_optimization as tfmot

    plain, _ = make_student("tf_keras")
    if wrapper == "pruning":
        wrapped = tfmot.sparsity.keras.prune_low_magnitude(plain)
    else:
        wrapped = tfmot.clustering.keras.cluster_weights(
            plain, 4, tfmot.clustering.keras.CentroidInitialization.LINEAR
        )
    with pytest.raises(ValueError, match=rf"{wrapper} wrappers .*keras_kd.compression.strip"):
        tflite.convert(wrapped)


def test_students_from_the_compression_room_keep_their_names(student, images):
    from keras_kd import compression

    aware = compression.quantize_aware(student, images)
    for compressed, data in ((aware, None), (compression.strip(aware), images)):
        model = tflite.convert(compressed, "int8", data)
        assert [tensor.name for tensor in (*model.inputs, *model.outputs)] == ["image", "output"]


def test_nothing_quantized_is_refused():
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"without any int8 weights.*fewer than 1024"):
        tflite.convert(student, "dynamic_int8")


@pytest.mark.slow
def test_loops_that_cannot_be_calibrated_do_not_end_the_process():
    student = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4)])
    data = np.random.default_rng(0).random((8, 5, 3), np.float32)
    with pytest.raises(ValueError, match=r"a loop over time.*ended by signal.*unroll=True"):
        tflite.convert(student, "int8", data)


@pytest.mark.slow
def test_an_lstm_of_tf_keras_is_one_operator_in_int8():
    from keras_kd.compression import to_tf_keras

    student = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4)])
    data = np.random.default_rng(0).random((64, 5, 3), np.float32)
    model = tflite.convert(to_tf_keras(student), "int8", data)
    assert model.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert model.flatbuffer.float_operators() == []
    assert tflite.verify(model, student, data).largest_difference < 0.1


def test_a_recurrent_student_starts_every_example_afresh():
    student = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4)])
    data = np.random.default_rng(0).random((8, 5, 3), np.float32)
    assert tflite.verify(tflite.convert(student), student, data).largest_difference < 1e-6


def test_the_fused_lstm_of_tf_keras_starts_every_example_afresh():
    import tf_keras

    student = tf_keras.Sequential([tf_keras.Input((5, 3)), tf_keras.layers.LSTM(4)])
    data = np.random.default_rng(0).random((8, 5, 3), np.float32)
    model = tflite.convert(student)
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in model.operators
    assert tflite.verify(model, student, data).largest_difference < 1e-6


def test_integer_inputs_stay_integers():
    student = keras.Sequential(
        [
            keras.Input((5,), dtype="int32", name="words"),
            keras.layers.Embedding(20, 8),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3),
        ]
    )
    words = np.random.default_rng(0).integers(0, 20, (30, 5)).astype("int32")
    model = tflite.convert(student, "int8", words)
    assert str(model.inputs[0]) == "words int32[1, 5]"
    assert tflite.verify(model, student, words).largest_difference < 1e-2


@keras.saving.register_keras_serializable("tests")
class NeedsFlex(keras.layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.math.erfinv(x)


def test_a_student_that_needs_flex_is_refused_with_what_the_converter_wrote():
    student = keras.Sequential([keras.Input((4,)), NeedsFlex()])
    with pytest.raises(ValueError, match=r"which the converter refuses .*Erfinv"):
        tflite.convert(student)


def test_nothing_is_left_behind_and_nothing_is_printed(student, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tflite.convert(student)
    with pytest.raises(ValueError, match="the converter refuses"):
        tflite.convert(keras.Sequential([keras.Input((4,)), NeedsFlex()]))
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantization": "int4"}, "quantization='int4'.*'dynamic_int8'"),
        ({"target": "toaster"}, "target='toaster'.*'microcontroller'"),
        ({"student": "student.keras"}, "student='student.keras'.*a keras.Model"),
    ],
)
def test_unknown_options(student, arguments, message):
    with pytest.raises(ValueError, match=message):
        tflite.convert(**{"student": student, **arguments})
