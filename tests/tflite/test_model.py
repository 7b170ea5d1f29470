import copy
import pickle

import keras
import numpy as np
import pytest
from _disk import files_of_at_most

from keras_kd import tflite
from keras_kd.tflite import TFLiteModel


def test_save_and_load(float_model, tmp_path):
    path = float_model.save(tmp_path / "new" / "student.tflite")
    assert path == tmp_path / "new" / "student.tflite"
    assert TFLiteModel.load(path).content == float_model.content
    assert [file.name for file in path.parent.iterdir()] == ["student.tflite"]


def test_a_full_disk_keeps_the_file_before(float_model, tmp_path):
    path = tmp_path / "student.tflite"
    path.write_bytes(b"old")
    with (
        files_of_at_most(1_000),
        pytest.raises(OSError, match=f"too large' while writing '{path}'. Expected a disk with"),
    ):
        float_model.save(path)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [
        ("student.tflite", b"old")
    ]


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.tflite'. Expected a .tflite file"):
        TFLiteModel.load(tmp_path / "gone.tflite")


@pytest.mark.parametrize("size", [0, 7, 500, -500])
def test_a_truncated_file(float_model, tmp_path, size):
    path = tmp_path / "student.tflite"
    path.write_bytes(float_model.content[:size])
    with pytest.raises(ValueError, match=r"student.tflite: Received .* bytes that LiteRT cannot"):
        TFLiteModel.load(path)


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "student.tflite"
    path.write_text("not a model" * 100)
    with pytest.raises(ValueError, match="cannot load"):
        TFLiteModel.load(path)


def test_mutated_bytes_raise_or_run(float_model, images):
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(120):
        content = bytearray(float_model.content)
        for position in rng.integers(0, 2000, rng.integers(1, 9)):
            content[position] = rng.integers(256)
        try:
            TFLiteModel(bytes(content)).predict(images[:1])
        except ValueError as error:
            refused.append(str(error))
    assert refused
    assert all(message.startswith("Received") for message in refused)


@pytest.mark.parametrize("content", [None, 5, "student.tflite"])
def test_what_is_no_content(content):
    with pytest.raises(TypeError, match=r"of type .*Expected the bytes.*TFLiteModel.load"):
        TFLiteModel(content)


def test_a_larger_batch_is_refused(student):
    import tensorflow as tf

    function = tf.function(lambda x: student(x), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec((2, 8, 8, 1)))
    content = tf.lite.TFLiteConverter.from_concrete_functions([concrete], student).convert()
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 1\).*a batch size of 1"):
        TFLiteModel(content)


def test_sizes(float_model, micro_model):
    assert float_model.size == len(float_model.content)
    assert 0 < micro_model.compressed_size < micro_model.size < float_model.size


def test_zeros_show_in_the_compressed_size_only(student):
    student = keras.models.clone_model(student)
    full = tflite.convert(student)
    student.set_weights([np.where(abs(w) < 0.1, 0, w) for w in student.get_weights()])
    sparse = tflite.convert(student)
    assert sparse.size == full.size
    assert sparse.compressed_size < 0.7 * full.compressed_size


def test_operators(float_model):
    expected = {"CONV_2D": 1, "FULLY_CONNECTED": 1, "RESHAPE": 1, "SOFTMAX": 1}
    assert float_model.operators == expected


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_predict_equals_the_student_for_any_number_of_examples(
    float_model, student, images, kernels
):
    expected = student.predict(images, verbose=0)
    np.testing.assert_allclose(float_model.predict(images, kernels), expected, atol=1e-6)
    np.testing.assert_array_equal(
        float_model.predict(images[5:6], kernels), float_model.predict(images, kernels)[5:6]
    )
    assert float_model.predict(images[:0], kernels).shape == (0, 10)


def test_predict_quantizes_and_dequantizes(micro_model, images):
    probabilities = micro_model.predict(images)
    assert probabilities.dtype == np.float32
    stored = micro_model.run_stored(micro_model.quantize_inputs(images))["output"]
    assert stored.dtype == np.int8
    np.testing.assert_array_equal(probabilities, (stored.astype(np.float32) + 128) / 256)


def test_several_inputs_go_by_name_whatever_their_order(make_student):
    student, data = make_student("several inputs and outputs")
    model = tflite.convert(student)
    expected = dict(zip(("kind", "output"), student.predict(data, verbose=0), strict=True))
    received = model.predict(dict(reversed(data.items())))
    assert received.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(received[name], expected[name], atol=1e-6)
    with pytest.raises(ValueError, match=r"type list for a model with 2 inputs.*\['a', 'z'\]"):
        model.predict([data["z"], data["a"]])


@pytest.mark.parametrize("target", ["android", "microcontroller"])
def test_values_of_another_scale_are_refused(student, images, target):
    model = tflite.convert(student, "int8", images, target)
    with pytest.raises(ValueError, match=r"values from .* to 25.* about 0 to 0.99.*x / 255"):
        model.predict(images * 255)
    outlier = images.copy()
    outlier[0, 0, 0] = 1000
    assert model.predict(outlier).shape == (64, 10)


def test_floats_of_any_scale_go_through_a_float_model(float_model, images):
    assert float_model.predict(images * 255).shape == (64, 10)


def test_unknown_kernels(float_model, images):
    with pytest.raises(ValueError, match=r"kernels='gpu'.*'xnnpack', 'builtin'"):
        float_model.predict(images, kernels="gpu")


def test_time_alone(float_model, images):
    time = float_model.benchmark(20, threads=1, kernels="builtin", x=images, memory=False)
    assert 0 < time.median <= time.p95
    assert (time.runs, time.threads, time.kernels) == (20, 1, "builtin")
    assert time.peak_memory_bytes is time.model_memory_bytes is None
    assert "memory" not in str(time)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 0}, r"runs=0.*at least 1"),
        ({"threads": 5000}, r"threads=5000.*at most 1024"),
        ({"kernels": "gpu"}, r"kernels='gpu'.*'xnnpack', 'builtin'"),
        ({"x": np.empty((0, 8, 8, 1), np.float32)}, "x without an example"),
        ({"x": np.ones((1, 7, 8, 1), np.float32)}, r"x of shape \(1, 7, 8, 1\)"),
    ],
)
def test_what_cannot_be_measured(float_model, options, message):
    with pytest.raises(ValueError, match=message):
        float_model.benchmark(**options)


def test_the_evidence_of_a_conversion_goes_with_the_model(float_model, student, images, tmp_path):
    evidence = tflite.verify(float_model, student, images)
    model = TFLiteModel(float_model.content, evidence)
    assert model.verification is evidence
    assert pickle.loads(pickle.dumps(model)).verification == evidence
    assert copy.copy(model).verification == evidence
    # A file may be from anywhere.
    assert TFLiteModel.load(model.save(tmp_path / "student.tflite")).verification is None


def test_a_model_can_be_pickled_and_says_what_it_is(micro_model, images):
    again = pickle.loads(pickle.dumps(micro_model))
    np.testing.assert_array_equal(again.predict(images), micro_model.predict(images))
    assert "image int8[1, 8, 8, 1] -> output int8[1, 10]" in repr(again)


def test_the_runtime_prints_nothing(float_model, images, capfd):
    TFLiteModel(float_model.content).predict(images)
    assert capfd.readouterr() == ("", "")
