"""Hierarchical context."""

import numpy as np
import pytest

from keras_kd.losses import HierarchicalContext, Hint


def test_levels_that_are_not_smaller_than_the_map_are_skipped():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)).astype("float32")
    values = [
        float(HierarchicalContext(levels=levels).compute_loss(teacher, student))
        for levels in ([4, 2, 1], [8, 2, 1], [2, 1])
    ]
    assert values[0] == values[1] == values[2]


def test_without_levels_it_is_a_hint():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)).astype("float32")
    assert float(HierarchicalContext(levels=[]).compute_loss(teacher, student)) == pytest.approx(
        float(Hint().compute_loss(teacher, student)), rel=1e-6
    )


@pytest.mark.parametrize("levels", [4, [2.0], [True], "421"])
def test_levels_are_integers(levels):
    with pytest.raises(TypeError, match=r"level.*integer.*levels=\[4, 2, 1\]"):
        HierarchicalContext(levels=levels)


def test_a_level_of_0_is_refused():
    with pytest.raises(ValueError, match=r"a level=0.*at least 1.*levels=\[4, 2, 1\]"):
        HierarchicalContext(levels=[2, 0])


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"features of shape \(None, 4, 4, 2\) from the student"):
        HierarchicalContext().check_shapes(None, (None, 4, 4, 2), (None, 8, 8, 2))
