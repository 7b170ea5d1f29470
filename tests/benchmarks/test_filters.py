import numpy as np
import pytest

from keras_kd.compression import summary
from keras_kd.tflite import convert


@pytest.fixture(scope="module")
def script(scripts):
    return scripts("filters")


def test_a_copy_has_the_share_of_zeros_in_every_kernel(script):
    student = script.residual_student(widths=(4, 8))
    zeros = script.with_zeros(student, 0.5)
    assert summary(zeros).sparsity == pytest.approx(0.5, abs=0.01)
    assert summary(student).sparsity == 0
    for one, other in zip(zeros.weights, student.weights, strict=True):
        value = one.numpy()
        np.testing.assert_array_equal(value[value != 0], other.numpy()[value != 0])


def test_each_file_is_measured(script):
    took = script.microseconds({"small": convert(script.residual_student(widths=(4,)))}, 2, 2)
    assert list(took) == ["small"]
    assert took["small"] > 0
