import json

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import TFLiteModel
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel
from keras_kd.tflite.student import prepared
from keras_kd.tflite.verification.closeness import misses
from keras_kd.tflite.verification.verification import check_finite_weights, compare_with_student


@pytest.fixture(scope="module")
def labels(student, images):
    """The student is right in three of four examples."""
    labels = student.predict(images, verbose=0).argmax(-1)
    labels[::4] = (labels[::4] + 1) % 10
    return labels


def test_a_file_computes_what_its_student_does(float_model, student, images):
    verification = tflite.verify(float_model, student, images)
    assert verification.examples == 64
    assert verification.data == "given"
    assert 0 < verification.mean_difference <= verification.largest_difference < 1e-5
    assert verification.agreement == 1.0
    assert verification.accuracy is verification.student_accuracy is None


def test_the_evidence_tells_what_is_in_the_file(float_model, micro_model, student, images):
    in_float = tflite.verify(float_model, student, images)
    in_integers = tflite.verify(micro_model, student, images)
    assert in_integers.float_tensors == ()
    assert len(in_float.float_tensors) > 3
    assert in_float.operators == float_model.operators
    assert sum(in_integers.bytes.values()) == micro_model.size
    assert in_integers.bytes == micro_model.inspect().bytes


def test_accuracy_of_file_and_student(float_model, student, images, labels):
    verification = tflite.verify(float_model, student, images, labels)
    assert verification.accuracy == verification.student_accuracy == 0.75
    assert tflite.verify(float_model, student, images, np.eye(10)[labels]).accuracy == 0.75


def test_labels_of_some_of_several_outputs(make_student):
    student, data = make_student("several inputs and outputs")
    kinds = student.predict(data, verbose=0)[0].argmax(-1)
    verification = tflite.verify(tflite.convert(student), student, data, {"kind": kinds})
    assert verification.accuracy == verification.student_accuracy == 1.0
    assert sorted(output.name for output in verification.outputs) == ["kind", "output"]
    assert {output.name: output.score for output in verification.outputs}["output"] is None
    assert "\noutput kind: 100.00 %" in str(verification)


def test_it_says_all_of_it(micro_model, student, images, labels):
    verification = tflite.verify(micro_model, student, images, labels)
    text = str(verification)
    assert text.startswith(f"64 given examples: {100 * verification.agreement:.2f} % of the choic")
    assert "the student's 75.00 %" in text
    assert f"bytes: {micro_model.size:,} (weights " in text
    assert "operators: CONV_2D 1, FULLY_CONNECTED 1" in text
    assert "in floating point: none" in text
    plain = verification.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["accuracy"] == verification.accuracy
    assert plain["outputs"][0]["name"] == "output"
    assert plain["inspection"]["bytes"] == verification.bytes


def test_infinite_differences_can_be_told_in_json(float_model, student, images):
    broken = keras.models.clone_model(student)
    broken.set_weights([np.full_like(weight, np.nan) for weight in student.get_weights()])
    verification = compare_with_student(float_model, prepared(broken), images[:4], None, "given")
    assert verification.largest_difference == np.inf
    assert verification.outputs[0].not_finite == 4
    assert verification.to_dict()["largest_difference"] is None


def with_weight(student, value, number=0):
    """A copy whose weight of that number has the value at one place."""
    broken = keras.models.clone_model(student)
    weights = student.get_weights()
    weights[number] = weights[number].copy()
    weights[number].flat[1] = value
    broken.set_weights(weights)
    return broken


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("number", [0, -1])
def test_weights_that_are_no_numbers_are_refused(float_model, student, images, value, number):
    broken = with_weight(student, value, number)
    for refuse in (
        lambda: tflite.verify(float_model, broken, images[:4]),
        lambda: tflite.convert(broken),
        lambda: tflite.convert(broken, "int8", images),
    ):
        with pytest.raises(
            ValueError, match=r"1 of \d+ numbers NaN or infinite in its weight '.+'"
        ):
            refuse()


def test_weights_of_tf_keras_and_of_half_precision(make_student, images):
    for kind in ("tf_keras", "mixed precision"):
        student, _ = make_student(kind)
        check_finite_weights(student)
    tf_keras_student, _ = make_student("tf_keras")
    weights = tf_keras_student.get_weights()
    try:
        tf_keras_student.set_weights([np.full_like(weight, np.inf) for weight in weights])
        with pytest.raises(ValueError, match="NaN or infinite in its weight 'conv2d"):
            check_finite_weights(tf_keras_student)
    finally:
        tf_keras_student.set_weights(weights)
    half = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, dtype="bfloat16")])
    check_finite_weights(half)
    half.set_weights([np.array([[np.nan], [1]]), np.zeros(1)])
    with pytest.raises(ValueError, match="1 of 2 numbers NaN"):
        check_finite_weights(half)


def patched(model, change):
    """The file with something changed in it."""
    flatbuffer = FlatBufferModel(model.content)
    change(flatbuffer._model)
    return TFLiteModel(flatbuffer.aligned())


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", ["float32", "float16"])
def test_constants_that_are_no_numbers_are_refused(student, images, value, form):
    model = tflite.convert(student, form)

    def change(unpacked):
        dtype = np.dtype(form)
        (buffer, *_) = (b for b in unpacked.buffers if b.data is not None and len(b.data) > 200)
        data = np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), dtype).copy()
        data[3] = value
        buffer.data = data.view(np.uint8)

    with pytest.raises(ValueError, match=r"a file whose tensor '.*' has numbers that are NaN"):
        tflite.verify(patched(model, change), student, images[:4])


def test_scales_that_are_no_numbers_are_refused(micro_model):
    flatbuffer = FlatBufferModel(micro_model.content)
    assert flatbuffer.constants_that_are_not_finite() == []
    (graph,) = flatbuffer._model.subgraphs
    (tensor, *_) = (t for t in graph.tensors if getattr(t.quantization, "scale", None) is not None)
    tensor.quantization.scale = np.full(len(tensor.quantization.scale), np.nan, np.float32)
    assert len(flatbuffer.constants_that_are_not_finite()) == 1


def test_an_infinite_number_without_a_shape_is_no_weight(float_model):
    flatbuffer = FlatBufferModel(float_model.content)
    schema = flatbuffer._schema
    for value in (np.inf, np.nan):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape = b"pad", schema.TensorType.FLOAT32, None
        tensor.buffer = len(flatbuffer._model.buffers)
        flatbuffer._model.buffers.append(
            schema.BufferT(np.array([value], np.float32).view(np.uint8))
        )
        flatbuffer._model.subgraphs[0].tensors.append(tensor)
    assert flatbuffer.constants_that_are_not_finite() == ["pad"]


def test_outputs_that_are_no_numbers_are_refused(images):
    image = keras.Input((8, 8, 1), name="image")
    root = keras.Model(image, keras.ops.sqrt(keras.layers.Flatten()(image)))
    model = tflite.convert(root)
    negative = images.copy()
    negative[[1, 5], 0, 0] = -1
    assert tflite.verify(model, root, images).examples == 64
    message = r"NaN or infinity in the output 'sqrt' .*, in 2 of 64 examples"
    with pytest.raises(ValueError, match=message):
        tflite.verify(model, root, negative)
    with pytest.raises(ValueError, match=message):
        tflite.convert(root, verification_data=negative)


def test_another_student_is_told_apart(float_model, images):
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, name="logits")]
    other = keras.Sequential([keras.Input((8, 8, 1), name="image"), *layers])
    # Its only output is the file's, whatever they are called; what they compute tells.
    verification = tflite.verify(float_model, other, images)
    difference, choices = misses(verification, "float32")
    assert "not those of the student" in difference
    assert "of the clear choices of the output" in choices
    assert len(misses(verification, "float32", min_agreement=0)) == 1
    wider = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"output is .*\[1, 10\].*\[1, 64\].*pass the student"):
        tflite.verify(float_model, wider, images)


def test_differences_are_those_of_the_outputs(micro_model, student, images):
    difference = np.abs(micro_model.predict(images) - student.predict(images, verbose=0))
    verification = tflite.verify(micro_model, student, images)
    assert verification.largest_difference == pytest.approx(difference.max(), abs=1e-6)
    assert verification.mean_difference == pytest.approx(difference.mean(), abs=1e-6)
    assert verification.outputs[0].step == micro_model.outputs[0].scale == 1 / 256


def test_the_step_of_a_file_that_ends_in_floats(student, images):
    model = tflite.convert(student, "int8", images)
    assert not model.outputs[0].is_quantized
    assert tflite.verify(model, student, images[:2]).outputs[0].step == 1 / 256
    assert tflite.verify(tflite.convert(student), student, images[:2]).outputs[0].step == 0.0


def test_what_the_data_are_is_passed_on(float_model, student, images):
    assert tflite.verify(float_model, student, images[:2], data="random").data == "random"
    with pytest.raises(ValueError, match=r"data='guessed'.*'representative'"):
        tflite.verify(float_model, student, images, data="guessed")


def test_a_conversion_carries_evidence_about_its_own_bytes(student, images):
    for target in ("android", "microcontroller"):
        model = tflite.convert(student, "int8", images, target)
        assert model.verification.data == "representative"
        assert model.verification.inspection == model.inspect()


def test_no_example(float_model, student, images):
    with pytest.raises(ValueError, match="x without an example"):
        tflite.verify(float_model, student, images[:0])
