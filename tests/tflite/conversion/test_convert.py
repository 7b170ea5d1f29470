import os
import tempfile

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import microcontroller
from keras_kd.tflite.conversion import convert
from keras_kd.tflite.student import Signature

NAMES = [
    ("sequential", ["input"], ["logits"]),
    ("functional", ["image"], ["output"]),
    ("subclassed", ["input"], ["scores"]),
    ("several inputs and outputs", ["a", "z"], ["kind", "output"]),
    ("tf_keras", ["input"], ["logits"]),
]


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(("kind", "inputs", "outputs"), NAMES)
def test_names_are_the_students(make_student, kind, inputs, outputs):
    student, _ = make_student(kind)
    model = tflite.convert(student, target="microcontroller")
    assert [tensor.name for tensor in model.inputs] == inputs
    assert sorted(tensor.name for tensor in model.outputs) == outputs
    assert not {"MUL", "SUB"} & set(model.operators), "BatchNormalization was not folded"


def test_outputs_of_one_shape_are_not_confused():
    first = keras.Input((6,), name="first")
    second = keras.Input((6,), name="second")
    tasks = {name: keras.layers.Dense(4) for name in ("c", "a", "b")}
    outputs = {name: layer(first if name == "a" else second) for name, layer in tasks.items()}
    student = keras.Model({"second": second, "first": first}, outputs)
    rng = np.random.default_rng(0)
    x = {name: rng.random((5, 6), np.float32) for name in ("first", "second")}
    expected = {name: np.asarray(value) for name, value in student(x).items()}
    for target in ("android", "microcontroller"):
        received = tflite.convert(student, target=target).predict_by_name(x)
        for name in tasks:
            np.testing.assert_allclose(received[name], expected[name], atol=1e-6)


def test_an_operator_that_tflm_lacks_is_named(images):
    pytest.importorskip("tflite_micro")
    student = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Activation("gelu")])
    with pytest.raises(ValueError, match=r"Micro refuses: operators GELU.*gelu by relu"):
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
    aware = compression.quantize_aware(student, images)
    with pytest.raises(ValueError, match=r"MUL compute in floating point.*pass representative_d"):
        tflite.convert(aware, "int8")
    model = tflite.convert(aware, "int8", images)
    assert model.flatbuffer.float_operators() == []


@pytest.mark.parametrize("wrapper", ["pruning", "clustering"])
def test_wrappers_must_be_stripped(make_student, wrapper):
    import tensorflow_model_optimization as tfmot
    import tf_keras

    # TF-MOT changes the layers that it wraps, and other tests have this student too.
    plain = tf_keras.models.clone_model(make_student("tf_keras")[0])
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
    cell = keras.layers.GRUCell(4)
    student = keras.Sequential([keras.Input((5, 3)), keras.layers.RNN(cell)])
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


@pytest.mark.parametrize("kind", ["LSTM", pytest.param("GRU", marks=pytest.mark.slow)])
def test_a_layer_of_tf_keras_that_is_given_a_state_begins_with_it(kind):
    import tf_keras

    steps, first = tf_keras.Input((5, 3), name="steps"), tf_keras.Input((4,), name="first")
    state = [first, first] if kind == "LSTM" else first
    layer = getattr(tf_keras.layers, kind)(4)
    student = tf_keras.Model([steps, first], layer(steps, initial_state=state))
    rng = np.random.default_rng(0)
    data = {"steps": rng.random((8, 5, 3), np.float32), "first": rng.random((8, 4), np.float32)}
    model = tflite.convert(student, verification_data=data)
    assert model.verification.largest_difference < 1e-6


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


def test_a_student_that_needs_flex_is_refused_with_its_layer():
    student = keras.Sequential([keras.Input((4,)), NeedsFlex()])
    with pytest.raises(ValueError, match=r"which computes Erfinv in the layer 'needs_flex"):
        tflite.convert(student)


def test_nothing_is_left_behind_and_nothing_is_printed(student, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tflite.convert(student)
    with pytest.raises(ValueError, match="which computes Erfinv"):
        tflite.convert(keras.Sequential([keras.Input((4,)), NeedsFlex()]))
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantization": "int2"}, "quantization='int2'.*'dynamic_int8'"),
        (
            {"quantization": "dynamic_int8", "per_tensor": True},
            "per_tensor=True for quantization='dynamic_int8'.*'int16x8', the only forms",
        ),
        ({"per_tensor": 1}, "per_tensor=1.*True or False"),
        (
            {"quantization": "int8", "recipe": {"*": "int4"}},
            r"quantization='int8' beside a recipe.*pass recipe=\{..., '\*': 'int8'\}",
        ),
        ({"y": [1]}, "y without verification_data"),
        ({"input_range": (1, 0)}, r"input_range=\(1, 0\).*from low to high"),
        ({"target": "toaster"}, "target='toaster'.*'microcontroller'"),
        ({"student": "student.keras"}, "student='student.keras'.*a keras.Model"),
    ],
)
def test_unknown_options(student, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        tflite.convert(**{"student": student, **arguments})


def test_the_evidence_comes_with_the_file(student, images):
    y = student.predict(images, verbose=0).argmax(axis=1)
    given = tflite.convert(student, verification_data=images, y=y).verification
    assert (given.data, given.examples) == ("given", 64)
    assert given.accuracy == given.student_accuracy == 1.0
    calibrated = tflite.convert(student, "int8", np.repeat(images, 3, axis=0)).verification
    assert (calibrated.data, calibrated.examples) == ("representative", 100)
    assert calibrated.largest_difference > given.largest_difference
    unknown = tflite.convert(student)
    assert (unknown.verification.data, unknown.verification.examples) == ("random", 32)
    assert tflite.TFLiteModel(unknown.content).verification is None


def test_a_file_that_computes_something_else_is_refused(student, images, monkeypatch):
    other = keras.models.clone_model(student)
    real = convert.run_converter
    monkeypatch.setattr(
        convert, "run_converter", lambda _, *options: real(Signature(other), *options)
    )
    with pytest.raises(ValueError, match=r"output 'output' is off by .*not those of the student"):
        tflite.convert(student, "float32", images)


@pytest.mark.parametrize(
    "target", ["android", pytest.param("microcontroller", marks=pytest.mark.slow)]
)
def test_one_scale_per_tensor_or_per_channel(student, images, target):
    by_channel = tflite.convert(student, "int8", images, target, per_tensor=False)
    by_tensor = tflite.convert(student, "int8", images, target, per_tensor=True)
    assert by_channel.flatbuffer.most_scales() == 10
    assert by_tensor.flatbuffer.most_scales() == 1
    assert by_tensor.flatbuffer.float_operators() == []
    assert by_tensor.size < by_channel.size


@pytest.fixture(scope="module")
def convolution_and_dense():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    body = [layers.Conv2D(6, 3), layers.Flatten(), layers.Dense(200), layers.Dense(90)]
    student = keras.Sequential([keras.Input((6, 6, 1)), *body])
    return student, np.random.default_rng(0).normal(size=(50, 6, 6, 1)).astype("float32")


@pytest.mark.parametrize("form", ["int8", pytest.param("int16x8", marks=pytest.mark.slow)])
def test_one_scale_for_dense_layers_alone(convolution_and_dense, form):
    student, x = convolution_and_dense

    def scales(model):
        return [model.flatbuffer.most_scales(name) for name in ("CONV_2D", "FULLY_CONNECTED")]

    micro = tflite.convert(student, form, x, "microcontroller")
    assert scales(micro) == [6, 1]
    by_channel = tflite.convert(student, form, x, "microcontroller", per_tensor=False)
    assert scales(by_channel) == [6, 200]
    assert micro.size < by_channel.size
    if form == "int8":
        assert scales(tflite.convert(student, form, x)) == [6, 200]
        assert scales(tflite.convert(student, form, x, per_tensor="dense")) == [6, 1]
    if microcontroller.is_installed():
        arenas = [microcontroller.run(model, x[:1]).arena_bytes for model in (micro, by_channel)]
        assert arenas[0] < arenas[1]


def test_one_scale_for_dense_layers_of_a_recipe(convolution_and_dense):
    pytest.importorskip("ai_edge_quantizer")
    student, x = convolution_and_dense
    model = tflite.convert(student, representative_data=x, recipe={"*": "int8"}, per_tensor="dense")
    scales = [model.flatbuffer.most_scales(name) for name in ("CONV_2D", "FULLY_CONNECTED")]
    assert scales == [6, 1]


def test_a_quantization_aware_student_has_learnt_its_scales(make_student):
    aware, images = make_student("quantization-aware")
    with pytest.raises(ValueError, match=r"weights of \d+ scales.*leave per_tensor out"):
        tflite.convert(aware, "int8", images, per_tensor=True)


def test_data_in_another_range_than_the_students_are_refused(student, images):
    with pytest.raises(ValueError, match=r"representative_data.*input_range"):
        tflite.convert(student, "int8", images * 255, input_range=(0, 1))


def test_random_evidence_stays_in_the_range_of_the_inputs(images):
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Softmax()])
    largest = [
        tflite.convert(student, input_range=limits).verification.outputs[0].high
        for limits in ((0, 1e-6), (0, 100))
    ]
    assert largest[0] == pytest.approx(0.5, abs=1e-3)
    assert largest[1] > 0.9


def test_a_recipe_gives_layers_forms_of_their_own(student, images):
    pytest.importorskip("ai_edge_quantizer")
    recipe = {"logits": "int4", "*": "float32"}
    model = tflite.convert(student, recipe=recipe, verification_data=images)
    assert model.flatbuffer.weight_types() >= {"INT4", "FLOAT32"}
    assert not any(tensor.is_quantized for tensor in (*model.inputs, *model.outputs))


def test_a_recipe_with_weights_that_tflm_would_misread_is_refused(student):
    pytest.importorskip("ai_edge_quantizer")
    with pytest.raises(ValueError, match=r"FULLY_CONNECTED compute in floating point with weights"):
        tflite.convert(student, target="microcontroller", recipe={"logits": "dynamic_int8"})


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("size", [9, 20, 3])
def test_sizes_that_a_student_leaves_open_are_those_of_what_is_fed(any_length, size):
    student, model = any_length
    x = np.random.default_rng(1).random((4, size, 8), np.float32)
    assert str(model.inputs[0]) == "input float32[1, any, 8]"
    np.testing.assert_allclose(model.predict(x), student.predict(x, verbose=0), atol=1e-6)


def test_too_short_an_example(any_length):
    with pytest.raises(ValueError, match=r"shapes \[\(1, 2, 8\)\], which the model cannot take"):
        any_length[1].predict(np.zeros((1, 2, 8), np.float32))
    # It is not left in a state in which the next one fails.
    assert any_length[1].predict(np.zeros((1, 5, 8), np.float32)).shape == (1, 3, 4)


@pytest.fixture(scope="module")
def any_length():
    layers = [keras.layers.Conv1D(4, 3), keras.layers.LSTM(4, return_sequences=True)]
    student = keras.Sequential([keras.Input((None, 8)), *layers])
    return student, tflite.convert(student)
