import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.data import Dataset
from keras_kd.evaluation import compare


@pytest.fixture(scope="module")
def dataset():
    generator = np.random.default_rng(0)
    images = generator.random((40, 4, 4, 1), dtype="float32")
    labels = (images.mean(axis=(1, 2, 3)) > 0.5).astype("int64")
    return Dataset("bright or dark", images, labels, images, labels, ("dark", "bright"))


def classifier(outputs=2, activation="softmax"):
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(outputs, activation=activation),
        ]
    )


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return classifier()


@pytest.fixture(scope="module")
def file(model):
    return tflite.convert(model)


def test_a_file_gets_what_its_keras_model_gets_and_sizes(dataset, model, file):
    seen = []
    comparison = compare(
        {"teacher": model, "student": file},
        dataset,
        sources={"student": model},
        on_measured=seen.append,
    )
    teacher, student = comparison.rows
    assert seen == [teacher, student]
    assert student.accuracy == teacher.accuracy
    assert student.f1 == pytest.approx(teacher.f1)
    assert student.agreement == 1.0
    assert student.divergence == pytest.approx(0.0, abs=1e-6)
    assert student.parameters == teacher.parameters == 34
    assert student.sparsity == teacher.sparsity == 0.0
    assert student.bytes == len(file.content)
    assert student.compressed_bytes < student.bytes
    assert student.latency_microseconds > 0
    assert teacher.bytes is None
    assert (comparison.dataset, comparison.examples) == ("bright or dark", 40)


@pytest.mark.skipif(not tflite.microcontroller.is_installed(), reason="needs tflite-micro")
def test_the_arena_is_measured_where_tflm_runs_the_file(dataset, model, file):
    half = tflite.convert(model, "float16")
    comparison = compare({"float32": file, "float16": half}, dataset)
    assert comparison["float32"].arena_bytes > 0
    assert comparison["float16"].arena_bytes is None


def test_without_a_teacher_nothing_is_said_about_it(dataset, model):
    row = compare({"student": model}, dataset).rows[0]
    assert row.agreement is None
    assert row.divergence is None


def test_a_teacher_need_not_be_among_the_models(dataset, model):
    assert compare({"student": model}, dataset, teacher=model).rows[0].agreement == 1.0


def test_a_model_without_kernels_has_no_sparsity(dataset):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.RepeatVector(2),
            keras.layers.Flatten(),
        ]
    )
    assert compare({"student": model}, dataset).rows[0].sparsity is None


def test_no_models(dataset):
    with pytest.raises(ValueError, match="Received no models"):
        compare({}, dataset)


def test_no_images(dataset, model):
    with pytest.raises(ValueError, match="without test images"):
        compare({"student": model}, dataset.first(test=0))


def test_something_else_than_a_model(dataset):
    with pytest.raises(TypeError, match="'student' of type str"):
        compare({"student": "model.tflite"}, dataset)


def test_another_number_of_classes(dataset):
    with pytest.raises(ValueError, match=r"outputs \(40, 3\) of 'student'.*shape \(40, 2\)"):
        compare({"student": classifier(outputs=3)}, dataset)


def test_sources_of_other_models(dataset, model):
    with pytest.raises(ValueError, match=r"sources for \['pupil'\]"):
        compare({"student": model}, dataset, sources={"pupil": model})
