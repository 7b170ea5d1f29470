import keras
import numpy as np
import pytest

from keras_kd import compression
from keras_kd.data import load_sample
from keras_kd.quickstart.training import FINAL_SPARSITY, Training, build_student, build_teacher


@pytest.fixture(scope="module")
def dataset():
    return load_sample().first(training=256, test=64)


@pytest.fixture(scope="module")
def teacher(dataset):
    return Training(dataset, seed=0).teacher(epochs=1)


def weights(model):
    return np.concatenate([np.ravel(weight) for weight in model.get_weights()])


@pytest.fixture(scope="module")
def alone(dataset):
    return Training(dataset, seed=0).alone(2)


@pytest.fixture(scope="module")
def distilled(dataset, teacher):
    """A student, how many epochs its training said, and the teacher's weights before it."""
    before, steps = weights(teacher), []
    training = Training(dataset, seed=0, on_epoch=lambda: steps.append(1))
    return training.distilled(teacher, 2), len(steps), before


def test_alone_and_distilled_are_born_equal_and_grow_apart(dataset, alone, distilled):
    training = Training(dataset, seed=0)
    first = weights(training._new_student())
    np.testing.assert_array_equal(weights(training._new_student()), first)
    student, *_ = distilled
    assert not np.array_equal(weights(alone), weights(student))
    assert not np.array_equal(weights(Training(dataset, seed=4)._new_student()), first)


def test_the_teacher_learns_and_teaches_unchanged(teacher, distilled):
    student, epochs, before = distilled
    np.testing.assert_array_equal(weights(teacher), before)
    assert epochs == 2
    assert isinstance(student, keras.Model)


@pytest.mark.slow
def test_pruned_has_the_zeros_and_quantization_keeps_them(dataset, teacher, alone):
    training = Training(dataset, seed=0)
    pruned = training.pruned(teacher, alone, 1)
    assert isinstance(pruned, keras.Model)
    assert compression.summary(pruned).sparsity == pytest.approx(FINAL_SPARSITY, abs=0.01)
    assert compression.summary(alone).sparsity < 0.01
    quantized = compression.strip(training.quantization_aware(teacher, pruned, 1))
    assert compression.summary(quantized).sparsity >= FINAL_SPARSITY - 0.01


def test_an_interrupted_training_goes_on_at_its_last_epoch(dataset, teacher, tmp_path):
    def distilled(directory, stop=0):
        """The weights that a training ends with, and how many epochs this call has shown."""
        shown = []

        def on_epoch():
            shown.append(1)
            if len(shown) == stop:
                raise KeyboardInterrupt

        training = Training(dataset, seed=0, on_epoch=on_epoch, directory=directory)
        return weights(training.distilled(teacher, 3)), len(shown)

    whole, _ = distilled(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        distilled(tmp_path / "run", stop=2)
    resumed, shown = distilled(tmp_path / "run")
    np.testing.assert_array_equal(resumed, whole)
    assert shown == 3
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    again, shown = distilled(tmp_path / "run")
    np.testing.assert_array_equal(again, whole)
    assert shown == 3
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}


@pytest.mark.parametrize("build", [build_teacher, build_student])
def test_both_models_give_a_probability_for_each_class(build):
    model = build((28, 28, 1), 10)
    probabilities = model(np.zeros((3, 28, 28, 1), "float32"))
    assert probabilities.shape == (3, 10)
    np.testing.assert_allclose(np.sum(probabilities, axis=-1), 1, rtol=1e-5)


def test_the_student_is_far_smaller():
    teacher, student = build_teacher((28, 28, 1), 10), build_student((28, 28, 1), 10)
    assert student.count_params() * 10 < teacher.count_params()
