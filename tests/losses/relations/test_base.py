"""What weights and masks mean in a property of the batch, and layers of different sizes."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.losses import (
    BatchLoss,
    ContrastiveRepresentation,
    ProbabilisticTransfer,
    Relational,
    SimilarityPreserving,
)


class Recorded(BatchLoss):
    """Keeps what the formula is given."""

    def of_batch(self, teacher, student, weights, **context):
        self.given = [np.array(part) for part in (teacher, student, weights)]
        return 1.0


def test_the_sum_of_the_weights_is_the_effective_number_of_examples():
    loss = Recorded()
    weights = np.array([0.0, 1.0, 3.0], "float32")
    value = loss.compute_loss(np.ones((3, 2)), np.ones((3, 2)), sample_weight=weights)
    np.testing.assert_allclose(loss.given[2], [0.0, 0.4, 1.2], rtol=1e-6)
    assert float(value) == pytest.approx(weights.mean())


@pytest.mark.parametrize(
    "loss", [ContrastiveRepresentation(), ProbabilisticTransfer(), SimilarityPreserving()]
)
def test_a_weight_of_0_is_the_limit_of_small_weights(loss):
    random = np.random.default_rng(0)
    teacher, student = random.normal(size=(2, 5, 6)).astype("float32")
    left_out, nearly = (
        float(loss.compute_loss(teacher, student, sample_weight=np.array([1, 1, small, 1, 2.0])))
        for small in (0.0, 1e-6)
    )
    assert nearly == pytest.approx(left_out, rel=1e-4)


def test_masked_positions_are_zeros_in_both_models():
    loss = Recorded()
    teacher, student = np.full((2, 3, 1), np.nan), np.ones((2, 3, 1))
    mask = np.array([[True, False, False], [False, False, False]])
    teacher[mask] = 5.0
    loss.compute_loss(teacher, student, mask=mask)
    np.testing.assert_array_equal(loss.given[0][..., 0], [[5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(loss.given[1][..., 0], [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(loss.given[2], [1.0, 0.0])


def test_a_loss_without_a_formula_says_so():
    with pytest.raises(NotImplementedError, match="BatchLoss states no formula in of_batch"):
        BatchLoss().compute_loss(np.zeros((2, 2)), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("loss_class", "own_weights"),
    [
        (ContrastiveRepresentation, 2),
        (ProbabilisticTransfer, 0),
        (Relational, 0),
        (SimilarityPreserving, 0),
    ],
)
def test_layers_of_different_sizes_need_no_adapter(
    loss_class, own_weights, teacher, student, examples, hard_loss
):
    loss = loss_class("hidden", "hidden")
    # Weights of these losses reach from 1 to 30000: enough for the smallest to outweigh the labels.
    distiller = keras_kd.Distiller(teacher, student, loss, 30000.0)
    distiller.compile(keras.optimizers.Adam(0.05), hard_loss, run_eagerly=True)
    before = distiller.evaluate(*examples, batch_size=20, verbose=0, return_dict=True)
    distiller.fit(*examples, batch_size=20, epochs=5, verbose=0)
    after = distiller.evaluate(*examples, batch_size=20, verbose=0, return_dict=True)
    assert after["distillation_loss"] < before["distillation_loss"]
    assert len(distiller.trainable_weights) == len(student.trainable_weights) + own_weights
