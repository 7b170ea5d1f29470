import numpy as np
import pytest

from keras_kd.metrics.tasks import leads
from keras_kd.tflite.verification.differences import measure_differences, overall


def measure(received, expected, y=None, step=0.0):
    """The differences of two arrays that are handed out batch by batch."""
    examples = {"index": np.arange(len(expected))}
    (output,) = measure_differences(
        lambda batch: {"output": received[batch["index"]]},
        lambda batch: {"output": expected[batch["index"]]},
        examples,
        {"output": step},
        y,
    )
    return output


@pytest.fixture
def outputs():
    """More than two batches."""
    return np.random.default_rng(0).normal(3.0, 2.0, (70, 4, 5)).astype("float32")


def test_batches_do_not_show(outputs):
    noise = np.random.default_rng(1).normal(0, 0.1, outputs.shape)
    measured = measure(outputs + noise, outputs, step=0.25)
    difference = np.abs(noise)
    assert measured.largest_difference == pytest.approx(difference.max(), rel=1e-5)
    assert measured.mean_difference == pytest.approx(difference.mean(), rel=1e-5)
    assert measured.deviation == pytest.approx(outputs.std(), rel=1e-5)
    assert (measured.low, measured.high) == (outputs.min(), outputs.max())
    assert measured.step == 0.25
    assert measured.square_difference == pytest.approx(np.sqrt(np.mean(noise**2)), rel=1e-5)
    powers = np.sqrt(np.square(noise).mean(axis=(1, 2)))
    assert np.mean(powers <= measured.typical_difference * 1.0001) == pytest.approx(0.9)
    same = (outputs + noise).argmax(-1) == outputs.argmax(-1)
    assert measured.agreement == same.mean() < 1


def test_the_range_includes_zero(outputs):
    assert measure(outputs + 100, outputs + 100).low == 0.0
    assert measure(outputs - 100, outputs - 100).high == 0.0


def test_a_deviation_beside_a_large_offset():
    values = np.array([[0.0], [2.0]]) + 1e8
    assert measure(values, values).deviation == 1.0


def test_nine_of_ten_examples_are_typical(outputs):
    received = outputs.copy()
    received[:7] += 10
    assert measure(received, outputs).typical_difference == 0.0
    received[7] += 10
    assert measure(received, outputs).typical_difference == pytest.approx(10, rel=1e-5)
    assert measure(outputs[:1] + 10, outputs[:1]).typical_difference == pytest.approx(10, rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_must_be_the_same(outputs, value):
    expected = outputs.copy()
    expected[3, 1, 2] = value
    for received, reference in ((expected, outputs), (outputs, expected)):
        assert measure(received, reference).largest_difference == np.inf
    measured = measure(expected, expected)
    assert (measured.largest_difference, measured.mean_difference) == (0.0, 0.0)
    assert np.isfinite([measured.deviation, measured.low, measured.high]).all()


def test_probabilities_and_logits_choose_at_their_own_thresholds():
    probabilities, logits = np.array([[0.4], [0.9]]), np.array([[0.4], [-3.0]])
    assert measure(probabilities + 0.2, probabilities).agreement == 0.5
    assert measure(logits + 0.2, logits).agreement == 1.0
    assert measure(logits - 0.5, logits).agreement == 0.5


def test_class_numbers_are_compared_as_they_are():
    expected = np.array([1, 2, 3, 2])
    measured = measure(np.array([1, 2, 0, 2]), expected, y=np.array([1, 1, 0, 0]))
    assert not measured.is_float
    assert measured.agreement == 0.75


def test_accuracies(outputs):
    received = -outputs
    y = outputs.argmax(-1)
    y[0] = (y[0] + 1) % 5
    measured = measure(received, outputs, y)
    assert measured.task == "classification"
    assert measured.student_score == pytest.approx(69 / 70)
    assert measured.score == pytest.approx((received.argmax(-1) == y).mean())
    assert measure(received, outputs).score is None


def test_the_first_batch_decides_where_yes_begins():
    logits = np.linspace(-3, 3, 33)[:, None]
    # The last batch is one number that could be a probability.
    logits[-1] = 0.3
    assert measure(logits, logits, y=logits[:, 0] > 0).score == 1.0


def test_scores_of_different_tasks_have_no_mean():
    values = np.random.default_rng(0).normal(size=(6, 3))
    outputs = measure_differences(
        lambda batch: {"a": batch["x"], "b": batch["x"] + 1},
        lambda batch: {"a": batch["x"], "b": batch["x"]},
        {"x": values},
        {"a": 0.0, "b": 0.0},
        {"a": values.argmax(-1), "b": values},
    )
    assert [output.task for output in outputs] == ["classification", "regression"]
    assert [output.score for output in outputs] == [1.0, pytest.approx(1.0)]
    assert overall(outputs)["task"] is overall(outputs)["score"] is None


def test_the_worst_output_counts():
    values = np.eye(4, dtype="float32")
    outputs = measure_differences(
        lambda batch: {"a": batch["x"], "b": batch["x"][:, ::-1] * 2},
        lambda batch: {"a": batch["x"], "b": batch["x"]},
        {"x": values},
        {"a": 0.0, "b": 0.0},
        {"a": [0, 1, 2, 3], "b": [0, 1, 1, 0]},
    )
    assert overall(outputs) == {
        "largest_difference": 2.0,
        "mean_difference": 0.75,
        "agreement": 0.0,
        "task": "classification",
        "score": 0.75,
        "student_score": 0.75,
    }


def test_other_outputs_and_no_example():
    def named(name):
        return lambda batch: {name: batch["x"]}

    with pytest.raises(ValueError, match=r"outputs \{'a': \(2, 3\)\}.*\{'b': \(2, 3\)\}"):
        measure_differences(named("a"), named("b"), {"x": np.ones((2, 3))}, {"a": 0.0})
    with pytest.raises(ValueError, match="x without an example"):
        measure_differences(named("a"), named("a"), {"x": np.ones((0, 3))}, {"a": 0.0})


def test_clear_choices_are_those_that_rounding_cannot_change():
    # Leads of 4, 4, 4 and 0.5: a quarter of the median is 1.
    expected = np.array([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [0.5, 0.0]])
    received = expected.copy()
    received[3] = [0.0, 0.1]
    assert measure(received, expected).clear_agreement == 1.0
    received[0] = [0.0, 0.1]
    assert measure(received, expected).clear_agreement == pytest.approx(2 / 3)


def test_one_number_leads_by_its_distance_from_the_border():
    # They are no probabilities: the border is 0, and 0.5 is less than a quarter of the median, 3.
    expected = np.array([[-3.0], [4.0], [3.0], [0.5], [-9.0]])
    assert measure(expected * [[1], [1], [1], [-1], [1]], expected).clear_agreement == 1.0
    assert measure(expected * [[1], [1], [-1], [1], [1]], expected).clear_agreement == 0.75


def test_numbers_of_classes_have_no_lead():
    assert measure(np.arange(4), np.arange(4)).clear_agreement is None
    # Nor has an output whose best two classes are always equal.
    assert measure(np.zeros((4, 2)), np.zeros((4, 2))).clear_agreement is None


def test_leads_of_what_is_not_finite():
    values = np.array([[np.nan, 1.0], [np.inf, 1.0], [3.0, 1.0]])
    np.testing.assert_array_equal(leads("classification", values, 0.0), [1, 1, 2])
    np.testing.assert_array_equal(
        leads("classification", np.array([[0.9], [0.25]]), 0.5), [0.4, 0.25]
    )
