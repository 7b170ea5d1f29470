"""Flow of the solution procedure: two layers of each model."""

import numpy as np
import pytest

from keras_kd.losses import FlowOfSolution


@pytest.mark.parametrize("names", ["a", ["a"], ["a", "b", "c"]])
def test_two_layers_of_each_model_are_needed(names):
    with pytest.raises(ValueError, match=r"for FlowOfSolution.*two layers of each model.*conv1"):
        FlowOfSolution(names, names)


@pytest.mark.parametrize("count", [1, 3])
def test_two_features_of_each_model_are_needed(count):
    features = [np.ones((2, 4, 3))] * count
    with pytest.raises(ValueError, match=r"for FlowOfSolution.*two layers of each model"):
        FlowOfSolution().compute_loss(features, features)
    with pytest.raises(ValueError, match=r"for FlowOfSolution.*two layers of each model"):
        FlowOfSolution().compute_loss(features[0], features[0])


def test_two_named_outputs_are_a_pair_as_well():
    outputs = {"begin": np.ones((2, 4, 3)), "end": np.ones((2, 4, 5))}
    other = {"begin": np.ones((2, 4, 3)), "end": 3.0 * np.ones((2, 4, 5))}
    assert float(FlowOfSolution().compute_loss(outputs, other)) == pytest.approx(4.0)


def test_adapters_make_the_channels_equal_and_leave_the_sizes():
    needed = FlowOfSolution().needed_shape(
        [(None, 8, 8, 6), (None, 4, 4, 5)], [(None, 6, 6, 2), (None, 3, 3, 3)]
    )
    assert needed == [(None, 6, 6, 6), (None, 3, 3, 5)]


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match=r"features of shape \[\(None, 9, 2\), \(None, 9, 3\)\]"):
        FlowOfSolution().check_shapes(
            None, [(None, 9, 2), (None, 9, 3)], [(None, 9, 2), (None, 9, 4)]
        )


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r"shape \(None, 3\), vectors without positions"):
        FlowOfSolution().check_shapes(None, [(None, 9, 2), (None, 3)], [(None, 9, 2), (None, 3)])


def test_the_first_mask_that_there_is_counts():
    random = np.random.default_rng(0)
    teacher, student = random.normal(size=(2, 2, 3, 4, 2)).astype("float32")
    mask = np.array([True, True, False])
    expected = FlowOfSolution().compute_loss(list(teacher), list(student), mask=mask)
    found = FlowOfSolution().compute_loss(list(teacher), list(student), mask=[None, mask])
    assert float(found) == float(expected)
    without = FlowOfSolution().compute_loss(list(teacher), list(student), mask=[None, None])
    assert float(without) != float(expected)
