import math

import numpy as np
import pytest
from sklearn import metrics as reference

from keras_kd import metrics
from keras_kd.metrics import Answers
from keras_kd.metrics.measures import measures_of
from keras_kd.metrics.statistics import (
    agreement,
    area_under_curve,
    confusion,
    distance,
    divergence,
    per_class,
    probabilities,
    reliability,
)

LABELS = np.array([0, 0, 1, 1])
# Right, right, right, wrong (1 taken for 0).
SCORES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], "float32")
GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(300, 5))
CLASSES = np.where(GENERATOR.random(300) < 0.6, LOGITS.argmax(-1), GENERATOR.integers(0, 5, 300))


def classified(scores, labels=LABELS):
    return Answers("classification", np.asarray(scores), labels)


def test_a_classifier_as_scikit_learn_measures_it():
    found = metrics.measure(LOGITS, CLASSES)
    chosen = LOGITS.argmax(-1)
    assert set(found) == {"accuracy", "f1", "ece"}
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(CLASSES, chosen))
    assert found["f1"] == pytest.approx(reference.f1_score(CLASSES, chosen, average="macro"))
    expected = reference.recall_score(CLASSES, chosen, average=None)
    np.testing.assert_allclose(per_class(classified(LOGITS, CLASSES)), expected)
    expected = reference.confusion_matrix(CLASSES, chosen)
    np.testing.assert_array_equal(confusion(classified(LOGITS, CLASSES)), expected)


@pytest.mark.parametrize("form", ["class numbers", "column", "one-hot"])
def test_labels_in_all_forms_give_the_same(form):
    labels = {"class numbers": CLASSES, "column": CLASSES[:, None], "one-hot": np.eye(5)[CLASSES]}
    assert metrics.measure(LOGITS, labels[form]) == metrics.measure(LOGITS, CLASSES)


def test_a_class_that_does_not_occur_does_not_count_against_a_perfect_model():
    perfect = np.eye(4)[[0, 1, 1, 0]]
    assert metrics.measure(perfect, [0, 1, 1, 0])["f1"] == 1.0
    # One that is chosen though nobody has it does.
    assert metrics.measure(np.eye(4)[[0, 1, 1, 2]], [0, 1, 1, 0])["f1"] == pytest.approx(
        reference.f1_score([0, 1, 1, 0], [0, 1, 1, 2], average="macro")
    )


def test_two_classes_in_one_number_or_in_two():
    labels = (LOGITS[:, 0] + GENERATOR.normal(size=300) > 0).astype(int)
    logit = LOGITS[:, :1]
    probability = 1 / (1 + np.exp(-logit))
    rows = [
        metrics.measure(scores, labels)
        for scores in (
            logit,
            logit[:, 0],
            probability,
            np.concatenate([1 - probability, probability], -1),
            np.concatenate([np.zeros_like(logit), logit], -1),
        )
    ]
    assert rows[0]["accuracy"] == reference.accuracy_score(labels, logit[:, 0] > 0)
    assert rows[0]["auc"] == pytest.approx(reference.roc_auc_score(labels, logit[:, 0]))
    expected = reference.f1_score(labels, logit[:, 0] > 0, average="macro")
    assert rows[0]["f1"] == pytest.approx(expected)
    for row in rows[1:]:
        assert row == pytest.approx(rows[0])


def test_calibration_by_hand():
    # Confidences 0.9, 0.8, 0.7, 0.6 are in bins of their own: gaps 0.1, 0.2, 0.3 and 0.6.
    assert metrics.measure(SCORES, LABELS)["ece"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.6) / 4)
    expected = [(1, 0.6, 0.0), (1, 0.7, 1.0), (1, 0.8, 1.0), (1, 0.9, 1.0)]
    np.testing.assert_allclose(reliability(classified(SCORES)), expected, rtol=1e-6)
    # In one bin over- and underconfidence make up for one another.
    level = np.tile([[0.75, 0.25]], (4, 1))
    assert metrics.measure(level, [0, 0, 0, 1])["ece"] == pytest.approx(0.0)


def test_classes_of_pixels():
    scores = LOGITS.reshape(10, 6, 5, 5)
    labels = CLASSES.reshape(10, 6, 5)
    assert metrics.measure(scores, labels) == pytest.approx(metrics.measure(LOGITS, CLASSES))


def test_a_model_that_gives_class_numbers():
    chosen = LOGITS.argmax(-1)
    found = metrics.measure(chosen, CLASSES)
    expected = metrics.measure(LOGITS, CLASSES)
    assert found == {name: pytest.approx(expected[name]) for name in ("accuracy", "f1")}


def test_several_labels_of_an_example_are_decided_one_by_one():
    truth = (GENERATOR.random((200, 6)) < 0.2).astype("float32")
    truth[0] = [1, 1, 0, 0, 0, 0]
    truth[:, 5] = 0
    logits = 3 * truth - 1.5 + GENERATOR.normal(size=truth.shape)
    logits[:, 5] = -9
    found = metrics.measure(logits, truth)
    assert found["accuracy"] == pytest.approx(1 - reference.hamming_loss(truth, logits > 0))
    assert found["exact"] == pytest.approx(reference.accuracy_score(truth, logits > 0))
    # scikit-learn's macro F1 counts a label that never occurs as 0.
    expected = reference.f1_score(truth[:, :5], logits[:, :5] > 0, average="macro")
    assert found["f1"] == pytest.approx(expected)
    assert metrics.measure(1 / (1 + np.exp(-logits)), truth) == found
    assert metrics.measure(truth, truth) == {"accuracy": 1.0, "exact": 1.0, "f1": 1.0}
    shares = per_class(Answers("multilabel", logits, truth.astype(int)))
    np.testing.assert_allclose(shares, ((logits > 0) == truth).mean(axis=0))


def test_a_ranking_as_scikit_learn_measures_it():
    relevance = GENERATOR.integers(0, 4, (50, 20))
    # Steps of an 8-bit file: many items have the same score.
    scores = np.round(relevance + GENERATOR.normal(0, 2, (50, 20)))
    found = metrics.measure(scores, relevance, task="ranking")
    assert found["ndcg"] == pytest.approx(reference.ndcg_score(relevance, scores, k=10))


def test_a_ranking_by_hand():
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    relevant = np.array([0, 2, 0])
    found = metrics.measure(scores, relevant, task="ranking")
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert found["ndcg"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    # Two of equal score: between rank 1 and 2. A query without anything relevant does not count.
    found = metrics.measure(
        np.array([[1.0, 1.0], [2.0, 1.0]]), np.array([[0, 1], [0, 0]]), task="ranking"
    )
    assert found["mrr"] == pytest.approx(1 / 1.5)
    assert found["ndcg"] == pytest.approx((1 + 1 / math.log2(3)) / 2)


def test_queries_by_group():
    scores, relevance = GENERATOR.normal(size=(2, 30, 4))
    relevance = (relevance > 0.5).astype("float64")
    rows = Answers("ranking", scores, relevance)
    mixed = GENERATOR.permutation(120)
    pairs = Answers(
        "ranking",
        scores.ravel()[mixed][:, None],
        relevance.ravel()[mixed][:, None],
        groups=np.repeat(np.arange(30), 4)[mixed],
    )
    assert (rows.units, pairs.units) == (30, 30)
    for measure in metrics.MEASURES["ranking"]:
        assert measure.of(pairs).value(30) == pytest.approx(measure.of(rows).value(30))
    negated = Answers("ranking", -rows.outputs, relevance)
    assert agreement(rows, rows).value(30) == 1.0
    assert agreement(rows, negated).value(30) == 0.0


@pytest.mark.parametrize("columns", [1, 3])
def test_a_regression_as_scikit_learn_measures_it(columns):
    targets = GENERATOR.normal(1013, 4, (100, columns))
    found = metrics.measure(guess := targets + GENERATOR.normal(size=targets.shape), targets)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(targets, guess))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(targets, guess))
    assert found["r2"] == pytest.approx(reference.r2_score(targets, guess))
    if columns == 1:
        assert metrics.measure(guess, targets[:, 0]) == found


def test_a_regression_of_every_pixel_is_measured_by_channel():
    targets = GENERATOR.normal(3, [1, 20], (10, 6, 5, 2))
    guess = targets + GENERATOR.normal(size=targets.shape)
    flat = metrics.measure(guess.reshape(-1, 2), targets.reshape(-1, 2))
    assert metrics.measure(guess, targets) == pytest.approx(flat)


@pytest.mark.parametrize("guess", [2.0, 2.5])
def test_targets_that_are_all_the_same(guess):
    targets, guesses = np.full((5, 1), 2.0), np.full((5, 1), guess)
    assert metrics.measure(guesses, targets)["r2"] == reference.r2_score(targets, guesses)


def test_anomalies_are_told_by_their_reconstruction():
    x = GENERATOR.normal(size=(60, 8))
    labels = np.arange(60) % 3 == 0
    outputs = x + GENERATOR.normal(size=x.shape) * np.where(labels, 1.2, 0.8)[:, None]
    errors = np.square(outputs - x).mean(axis=1)
    found = metrics.measure(outputs, labels, x=x)
    assert found == {
        "auc": pytest.approx(reference.roc_auc_score(labels, errors)),
        "mse": pytest.approx(errors.mean()),
    }
    assert metrics.measure(outputs, x=x) == {"mse": pytest.approx(errors.mean())}


def test_area_with_ties_and_weights():
    scores, labels = np.array([0, 1, 1, 2, 2, 3]), np.array([0, 0, 1, 0, 1, 1])
    weights = np.array([1.0, 2.0, 3.0, 1.0, 0.0, 2.0])
    statistic = area_under_curve(scores, labels)
    assert statistic.value(6) == pytest.approx(reference.roc_auc_score(labels, scores))
    expected = reference.roc_auc_score(labels, scores, sample_weight=weights)
    assert statistic.of(weights) == pytest.approx(expected)
    assert math.isnan(area_under_curve(scores, np.ones(6)).value(6))


@pytest.mark.parametrize("task", metrics.TASKS)
def test_an_example_of_weight_two_counts_as_two(task):
    generator = np.random.default_rng(1)
    outputs = generator.normal(size=(12, 4))
    labels = {
        "classification": generator.integers(0, 4, 12),
        "multilabel": generator.integers(0, 2, (12, 4)),
        "ranking": generator.integers(0, 3, (12, 4)),
        "regression": generator.normal(size=(12, 4)),
        "reconstruction": np.arange(12) % 2,
    }[task]
    target = generator.normal(size=(12, 4))
    twice = np.append(np.arange(12), 3)
    weights = np.ones(12)
    weights[3] = 2
    once = Answers(task, outputs, labels, target)
    doubled = Answers(task, outputs[twice], labels[twice], target[twice])
    assert len(measures_of(once)) >= 2
    for measure in measures_of(once):
        if (statistic := measure.of(once)) is not None:
            assert statistic.of(weights) == pytest.approx(measure.of(doubled).value(13))


def test_agreement_looks_at_the_choice_only():
    other = classified([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8]])
    assert agreement(classified(SCORES), other).value(4) == 0.5
    assert agreement(classified(SCORES), classified(np.log(SCORES))).value(4) == 1.0
    tags, others = (Answers("multilabel", scores) for scores in (SCORES, other.outputs))
    # Decisions 10 10 01 10 and 10 01 01 01.
    assert agreement(tags, others).value(4) == 0.5
    third = Answers("multilabel", np.array([[0.9, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]))
    assert agreement(tags, third).value(4) == 7 / 8


def test_distance():
    outputs = Answers("regression", np.array([[1.0], [2.0]]))
    assert distance(outputs, Answers("regression", np.array([[1.5], [4.0]]))).value(2) == 1.25


def test_divergence_of_a_copy_is_zero_from_probabilities_or_logits():
    copy = classified(SCORES)
    assert divergence(copy, copy).value(4) == 0.0
    assert divergence(classified(np.log(SCORES) + 5), copy).value(4) == pytest.approx(0, abs=1e-7)


def test_divergence_by_hand():
    teacher, model = classified([[0.5, 0.5]]), classified([[0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert divergence(model, teacher).value(1) == pytest.approx(expected, rel=1e-6)


def test_divergence_stays_finite_where_int8_rounds_to_zero():
    assert divergence(classified([[0.0, 1.0]]), classified([[1.0, 0.0]])).value(1) < 10


def test_probabilities_leaves_probabilities_and_takes_the_softmax_of_logits():
    np.testing.assert_allclose(probabilities(SCORES), SCORES, rtol=1e-6)
    logits = np.array([[1000.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(probabilities(logits), [[1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(probabilities(np.array([[-1000.0], [0.0]])), [[1, 0], [0.5, 0.5]])


def test_accuracy_alone():
    assert metrics.accuracy(SCORES, LABELS) == 0.75
    with pytest.raises(ValueError, match=r"labels from 1 to 2 .*whole numbers from 0 to 1"):
        metrics.accuracy(SCORES, [1, 2, 1, 1])
