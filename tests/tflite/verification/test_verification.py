import json

import keras
import numpy as np
import pytest

from keras_kd import tflite


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
    in_float = float_model.verify(student, images)
    in_integers = micro_model.verify(student, images)
    assert in_integers.float_tensors == ()
    assert len(in_float.float_tensors) > 3
    assert in_float.operators == float_model.operators
    assert sum(in_integers.bytes.values()) == micro_model.size
    assert in_integers.bytes == micro_model.inspect().bytes


def test_accuracy_of_file_and_student(float_model, student, images, labels):
    verification = float_model.verify(student, images, labels)
    assert verification.accuracy == verification.student_accuracy == 0.75
    assert float_model.verify(student, images, np.eye(10)[labels]).accuracy == 0.75


def test_labels_of_some_of_several_outputs(make_student):
    student, data = make_student("several inputs and outputs")
    kinds = student.predict(data, verbose=0)[0].argmax(-1)
    verification = tflite.verify(tflite.convert(student), student, data, {"kind": kinds})
    assert verification.accuracy == verification.student_accuracy == 1.0
    assert sorted(output.name for output in verification.outputs) == ["kind", "output"]
    assert {output.name: output.accuracy for output in verification.outputs}["output"] is None
    assert "\noutput kind: 100.00 %" in str(verification)


def test_it_says_all_of_it(micro_model, student, images, labels):
    verification = micro_model.verify(student, images, labels)
    text = str(verification)
    assert text.startswith(f"64 given examples: {100 * verification.agreement:.2f} % of the choic")
    assert "the student's 75.00 %" in text
    assert f"bytes: {micro_model.size:,} (weights " in text
    assert "operators: CONV_2D 1, FULLY_CONNECTED 1" in text
    assert "in floating point: none" in text
    plain = verification.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["accuracy"] == verification.accuracy
    assert plain["outputs"][0]["name"] == "output"
    assert plain["inspection"]["bytes"] == verification.bytes


def test_a_file_of_nan_can_be_told_in_json(float_model, student, images):
    broken = keras.models.clone_model(student)
    broken.set_weights([np.full_like(weight, np.nan) for weight in student.get_weights()])
    verification = float_model.verify(broken, images[:4])
    assert verification.largest_difference == np.inf
    assert verification.to_json()["largest_difference"] is None


def test_another_student_is_told_apart(float_model, images):
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, name="logits")]
    other = keras.Sequential([keras.Input((8, 8, 1), name="image"), *layers])
    with pytest.raises(ValueError, match=r"outputs .*'output'.*'logits'.*pass the student that"):
        tflite.verify(float_model, other, images)


def test_differences_are_those_of_the_outputs(micro_model, student, images):
    difference = np.abs(micro_model.predict(images) - student.predict(images, verbose=0))
    verification = tflite.verify(micro_model, student, images)
    assert verification.largest_difference == pytest.approx(difference.max(), abs=1e-6)
    assert verification.mean_difference == pytest.approx(difference.mean(), abs=1e-6)
    assert verification.outputs[0].step == micro_model.outputs[0].scale == 1 / 256


def test_the_step_of_a_file_that_ends_in_floats(student, images):
    model = tflite.convert(student, "int8", images)
    assert not model.outputs[0].is_quantized
    assert model.verify(student, images[:2]).outputs[0].step == 1 / 256
    assert tflite.convert(student).verify(student, images[:2]).outputs[0].step == 0.0


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
