"""Activation boundaries."""

import numpy as np
import pytest

from keras_kd.losses import ActivationBoundary


def test_only_the_side_of_the_boundary_counts():
    teacher = np.array([[5.0, -5.0, 0.1, -0.1]])
    student = np.array([[1.5, -1.5, 90.0, -90.0]])
    assert float(ActivationBoundary().compute_loss(teacher, student)) == 0.0


@pytest.mark.parametrize(("teacher", "distance"), [(2.0, 1.5), (0.0, 0.5), (-2.0, 0.5)])
def test_the_distance_to_the_margin_is_squared(teacher, distance):
    value = ActivationBoundary().compute_loss(np.array([[teacher]]), np.array([[-0.5]]))
    assert float(value) == pytest.approx(0.003 * distance**2, rel=1e-5)


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match=r"margin=-1.0.*at least 0.*such as 1.0"):
        ActivationBoundary(margin=-1.0)
