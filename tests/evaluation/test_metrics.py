import math

import numpy as np
import pytest

from keras_kd.evaluation import metrics

LABELS = np.array([0, 0, 1, 1])
# Right, right, right, wrong (1 taken for 0).
SCORES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], "float32")


def test_accuracy():
    assert metrics.accuracy(SCORES, LABELS) == 0.75


def test_accuracy_per_class_and_of_a_class_without_examples():
    three = np.concatenate([SCORES, np.zeros((4, 1), "float32")], axis=1)
    first, second, third = metrics.accuracy_per_class(three, LABELS)
    assert (first, second) == (1.0, 0.5)
    assert math.isnan(third)


def test_macro_f1_is_the_mean_of_the_classes():
    # Class 0: 2 TP, 1 FP, 0 FN; class 1: 1 TP, 0 FP, 1 FN.
    expected = (4 / 5 + 2 / 3) / 2
    assert metrics.macro_f1(SCORES, LABELS) == pytest.approx(expected, abs=1e-6)


def test_macro_f1_is_the_same_on_logits():
    assert metrics.macro_f1(np.log(SCORES) - 3, LABELS) == metrics.macro_f1(SCORES, LABELS)


def test_agreement_looks_at_the_choice_only():
    other = np.array([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8]])
    assert metrics.agreement(SCORES, other) == 0.5
    assert metrics.agreement(SCORES, np.log(SCORES)) == 1.0


def test_divergence_of_a_copy_is_zero_from_probabilities_or_logits():
    assert metrics.divergence(SCORES, SCORES) == 0.0
    assert metrics.divergence(np.log(SCORES) + 5, SCORES) == pytest.approx(0.0, abs=1e-7)


def test_divergence_by_hand():
    teacher, model = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert metrics.divergence(model, teacher) == pytest.approx(expected, rel=1e-6)


def test_divergence_stays_finite_where_int8_rounds_to_zero():
    assert metrics.divergence(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])) < 10


def test_probabilities_leaves_probabilities_and_takes_the_softmax_of_logits():
    np.testing.assert_allclose(metrics.probabilities(SCORES), SCORES, rtol=1e-6)
    logits = np.array([[1000.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(metrics.probabilities(logits), [[1, 0], [0.5, 0.5]])
