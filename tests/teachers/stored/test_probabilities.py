import keras
import numpy as np
import pytest

from keras_kd.teachers.stored.probabilities import check_logits, logits_of

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(0, 4, (50, 3, 7)).astype("float32")


def softmax(logits, temperature=1.0):
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits.astype("float64") / temperature))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_logits_behind_a_softmax_at_any_temperature(temperature):
    found = logits_of(softmax(LOGITS), "softmax")
    assert found.dtype == "float32"
    expected = softmax(LOGITS, temperature)
    np.testing.assert_allclose(softmax(found, temperature), expected, rtol=1e-5)


def test_logits_behind_a_sigmoid():
    probabilities = 1 / (1 + np.exp(-LOGITS.astype("float64")))
    np.testing.assert_allclose(logits_of(probabilities, "sigmoid"), LOGITS, atol=1e-6)


def test_a_floor_for_what_is_impossible():
    floor = np.log(1.1754944e-38)
    rows = np.array([[0.0, 1.0], [1e-300, 1.0]])
    np.testing.assert_allclose(logits_of(rows, "softmax"), [[floor, 0]] * 2, rtol=1e-6)
    np.testing.assert_allclose(logits_of(rows, "sigmoid"), [[floor, -floor]] * 2, rtol=1e-6)
    # It is no probability worth speaking of at the temperatures that are in use.
    assert softmax(logits_of(rows, "softmax"), 4.0)[0, 0] < 1e-9


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_probabilities_in_any_precision(dtype):
    probabilities = softmax(LOGITS).astype(dtype)
    found = softmax(logits_of(probabilities, "softmax"))
    np.testing.assert_allclose(found, softmax(LOGITS), atol=1e-3)
    with pytest.raises(ValueError, match="look like probabilities"):
        check_logits(probabilities)


@pytest.mark.parametrize("row", [[-0.1, 1.1], [0.5, 0.6], [np.nan, 1.0], [0.2, 0.2]])
def test_what_no_softmax_gives(row):
    rows = np.array([[0.5, 0.5], row])
    with pytest.raises(ValueError, match=r"example 11 that no softmax.*the sum 1.*'sigmoid'"):
        logits_of(rows, "softmax", first_example=10)


@pytest.mark.parametrize("row", [[-0.1, 0.5], [0.5, 1.1], [np.nan, 1.0]])
def test_what_no_sigmoid_gives(row):
    with pytest.raises(
        ValueError, match=r"example 0 that no sigmoid.*from 0 to 1.*if they are logits"
    ):
        logits_of(np.array([row]), "sigmoid")


@pytest.mark.parametrize(
    "values",
    [LOGITS, np.ones((3, 1)), np.zeros((0, 4)), np.ones(3), np.array([[0.5, 0.5], [0.5, 0.6]])],
)
def test_what_are_no_distributions(values):
    check_logits(values)


def test_the_advice_for_logits_that_look_like_probabilities():
    check_logits(np.array([[0.5, 0.5], [0.1, 0.9]]) - 1)
