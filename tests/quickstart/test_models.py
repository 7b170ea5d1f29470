import numpy as np
import pytest

from keras_kd.quickstart.models import build_student, build_teacher


@pytest.mark.parametrize("build", [build_teacher, build_student])
def test_gives_a_probability_for_each_class(build):
    model = build((28, 28, 1), 10)
    probabilities = model(np.zeros((3, 28, 28, 1), "float32"))
    assert probabilities.shape == (3, 10)
    np.testing.assert_allclose(np.sum(probabilities, axis=-1), 1, rtol=1e-5)


def test_the_student_is_far_smaller():
    teacher, student = build_teacher((28, 28, 1), 10), build_student((28, 28, 1), 10)
    assert student.count_params() * 10 < teacher.count_params()
