import sys

import keras
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the `tabular` extra")

import keras_kd
from keras_kd.data import munge
from keras_kd.data.munging import exchange


class Chance:
    """A generator whose draws are all known."""

    def __init__(self, uniform, normal):
        self._uniform, self._normal = uniform, normal

    def random(self, shape):
        return np.broadcast_to(self._uniform, shape)

    def standard_normal(self, shape):
        return np.broadcast_to(self._normal, shape)


def clusters(examples=400, seed=0):
    """Two correlated columns, a third on another scale, and a category that follows them."""
    generator = np.random.default_rng(seed)
    category = generator.integers(0, 3, examples)
    first = generator.normal(category * 4.0, 0.5)
    second = first + generator.normal(0.0, 0.2, examples)
    third = generator.normal(1000.0 * category, 100.0)
    return np.stack([first, second, third, category], axis=1)


def test_exchange_by_hand():
    first, second = np.array([[1.0, 5.0, 10.0, 0.0]]), np.array([[3.0, 4.0, 30.0, 2.0]])
    chance = Chance(
        uniform=np.array([0.2, 0.9, 0.2, 0.2]),
        normal=np.array([[[0.5, 9.0, -1.0, 9.0]], [[-1.0, 9.0, 2.0, 9.0]]]),
    )
    one, other = exchange(first, second, np.array([1.0, 1.0, 10.0, 0.0]), 0.5, chance)
    # 0.9 is above the probability: the second column is kept. The last is exchanged as it is.
    np.testing.assert_array_equal(one, [[3.0 + 0.5, 5.0, 30.0 - 10.0, 2.0]])
    np.testing.assert_array_equal(other, [[1.0 - 1.0, 4.0, 10.0 + 20.0, 0.0]])


def test_draws_are_normal_around_the_other_value_with_the_difference_over_s():
    x = np.array([[2.0], [5.0]])
    synthetic = munge(x, 40_000, swap_probability=0.5, local_variance=1.5, seed=0)
    first, second = synthetic.reshape(-1, 2).T
    assert (first == 2.0).mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(first == 2.0, second == 5.0)
    # The pair meets twice, once from each side, and exchanges once in half of the cases, twice in
    # a quarter.
    for values, own, other in ((first, 2.0, 5.0), (second, 5.0, 2.0)):
        changed = values[values != own]
        assert changed.mean() == pytest.approx((2 * other + own) / 3, abs=0.1)
        sd = 3.0 / 1.5
        between = 3.0**2 * (2 / 3) * (1 / 3)
        assert changed.var() == pytest.approx(4 / 3 * sd**2 + between, rel=0.05)


def test_two_pairs_only_mix_within_themselves():
    x = np.array([[0.0], [1.0], [100.0], [101.0]])
    # Each pair meets twice, once from each side: with certainty and hardly any noise, twice
    # exchanged is as it was.
    np.testing.assert_allclose(
        munge(x, 3, swap_probability=1.0, local_variance=1e9, seed=0), np.tile(x, (3, 1)), atol=1e-6
    )
    synthetic = munge(x, 500, swap_probability=0.5, local_variance=1e9, seed=0).reshape(500, 4)
    np.testing.assert_allclose(np.sort(synthetic)[:, :2], [[0.0, 1.0]] * 500, atol=1e-6)
    np.testing.assert_allclose(np.sort(synthetic)[:, 2:], [[100.0, 101.0]] * 500, atol=1e-6)
    # The pair ends exchanged where chance chose one of the two meetings.
    assert (synthetic[:, 0] > 0.5).mean() == pytest.approx(0.5, abs=0.1)


def test_a_chain_is_exchanged_in_order():
    # The neighbours are 1, 0 and 1: (0, 1), (1, 0), (2, 1) are exchanged one after the other.
    x = np.array([[0.0], [1.0], [3.0]])
    synthetic = munge(x, 1, swap_probability=1.0, local_variance=1e9, seed=0)
    np.testing.assert_allclose(synthetic, [[0.0], [3.0], [1.0]], atol=1e-6)


def test_neighbours_are_found_on_comparable_scales():
    # On the scale of each column 0 is near 2 and 1 near 3; in raw numbers, 0 is near 1.
    x = np.array([[0.0, 0.0], [1e-3, 50.0], [1e-4, 200.0], [1e-3, 300.0]])
    second = munge(x, 50, local_variance=1e9, seed=0).reshape(50, 4, 2)[:, :, 1]
    np.testing.assert_allclose(np.sort(second[:, [0, 2]]), [[0.0, 200.0]] * 50, atol=1e-3)
    np.testing.assert_allclose(np.sort(second[:, [1, 3]]), [[50.0, 300.0]] * 50, atol=1e-3)


def test_a_different_category_is_as_far_as_a_whole_range():
    # 0 is nearer to 1 in numbers (0.4 of the range), but of 2's category (0.7 of the range).
    x = np.array([[0.0, 7.0], [0.4, 9.0], [0.7, 7.0], [1.0, 9.0]])
    synthetic = munge(x, 200, categorical=[1], local_variance=1e9, seed=0).reshape(200, 4, 2)
    assert set(synthetic[:, 0, 1]) == {7.0}
    assert set(np.round(synthetic[:, 0, 0], 6)) == {0.0, 0.7}


def test_means_and_spread_are_those_of_the_data():
    x = clusters()
    synthetic = munge(x, 20, categorical=[3], seed=0)
    np.testing.assert_allclose(synthetic.mean(axis=0), x.mean(axis=0), rtol=0.02)
    np.testing.assert_allclose(synthetic.std(axis=0), x.std(axis=0), rtol=0.03)


def test_columns_stay_together():
    x = clusters()
    synthetic = munge(x, 10, categorical=[3], seed=0)
    np.testing.assert_allclose(np.corrcoef(synthetic[:, :3].T), np.corrcoef(x[:, :3].T), atol=0.02)
    for category in range(3):
        assert synthetic[synthetic[:, 3] == category, 0].mean() == pytest.approx(
            x[x[:, 3] == category, 0].mean(), abs=0.1
        )


def test_new_values_where_continuous_and_none_where_categorical():
    x = clusters()
    synthetic = munge(x, 5, categorical=[3], seed=0)
    assert set(synthetic[:, 3]) == {0.0, 1.0, 2.0}
    assert np.isin(synthetic[:, 0], x[:, 0]).mean() < 0.6


def test_constant_columns_stay():
    x = clusters(50)
    x[:, 1] = 0.1
    assert set(munge(x, 4, seed=0)[:, 1]) == {0.1}


def test_nothing_changes_with_probability_0_or_among_duplicates():
    x = clusters(30)
    np.testing.assert_array_equal(munge(x, 2, swap_probability=0, seed=0), np.tile(x, (2, 1)))
    twice = np.repeat(x, 2, axis=0)
    np.testing.assert_array_equal(munge(twice, 2, seed=0), np.tile(twice, (2, 1)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", "uint8", "int64"])
def test_shape_and_type(dtype):
    x = np.random.default_rng(0).integers(0, 200, (20, 3)).astype(dtype)
    synthetic = munge(x, 3, seed=0)
    assert synthetic.shape == (60, 3)
    assert synthetic.dtype == dtype
    assert np.isfinite(synthetic).all()
    assert abs(synthetic.mean(dtype="float64") - x.mean(dtype="float64")) < 20


def test_noise_does_not_grow_on_noise():
    # Example 0 is the nearest of all others, which exchange with it one after the other.
    x = np.concatenate([np.zeros((1, 30)), np.eye(30)])
    synthetic = munge(x, 20, swap_probability=1.0, local_variance=0.1, seed=0)
    assert synthetic.std() < 15


def test_categories_as_large_integers_are_kept_to_the_digit():
    hashes = np.array([2**60 + 1, 2**60 + 2, -7])
    x = np.stack([hashes[[0, 1, 2, 0, 1, 2]], np.arange(6)], axis=1)
    assert set(munge(x, 20, categorical=[0], seed=0)[:, 0]) == set(hashes)


def test_the_seed_decides():
    x = clusters(50)
    before = x.copy()
    np.testing.assert_array_equal(munge(x, 2, seed=1), munge(x, 2, seed=1))
    assert not np.array_equal(munge(x, 2, seed=1), munge(x, 2, seed=2))
    assert not np.array_equal(munge(x, 2), munge(x, 2))
    np.testing.assert_array_equal(x, before)


def test_all_columns_categorical():
    x = np.random.default_rng(0).integers(0, 3, (40, 4))
    synthetic = munge(x, 5, categorical=range(4), seed=0)
    for column in range(4):
        assert set(synthetic[:, column]) <= set(x[:, column])


def test_pseudo_labels_of_a_function_asked_in_batches():
    sizes = []

    def teacher(rows):
        sizes.append(len(rows))
        return {"sum": rows.sum(axis=1), "twice": keras.ops.convert_to_tensor(2 * rows)}

    x, y = munge(clusters(300), 5, teacher=teacher, seed=0)
    assert sizes == [1024, 476]
    np.testing.assert_allclose(y["sum"], x.sum(axis=1))
    np.testing.assert_allclose(y["twice"], 2 * x)


@pytest.mark.parametrize("generation", ["keras", "tf_keras"])
def test_pseudo_labels_of_a_model(generation):
    module = pytest.importorskip(generation)
    model = module.Sequential([module.layers.Dense(2, activation="softmax")])
    x, y = munge(clusters(30).astype("float32"), 2, teacher=model, seed=0)
    assert y.shape == (60, 2)
    np.testing.assert_allclose(y, np.asarray(model(x)), atol=1e-6)


def test_pseudo_labels_of_an_ensemble():
    models = []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        models.append(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    x = clusters(30).astype("float32")
    x, y = munge(x, 2, teacher=keras_kd.teachers.Ensemble(models), seed=0)
    softened = [keras.ops.softmax(model(x)).numpy() for model in models]
    np.testing.assert_allclose(np.exp(y), np.mean(softened, axis=0), atol=1e-5)


def test_a_student_of_munged_examples_imitates_better_than_one_of_noise():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    generator = np.random.default_rng(0)
    # Ten columns, but the data lie on a surface with two directions.
    hidden = generator.normal(size=(600, 2))
    x = np.tanh(hidden @ generator.normal(size=(2, 10))) + generator.normal(0, 0.05, (600, 10))
    labels = (hidden[:, 0] * hidden[:, 1] > 0).astype(int)
    train, test = x[:200], x[200:]
    forest = RandomForestClassifier(30, random_state=0).fit(train, labels[:200])

    def agreement(examples):
        student = DecisionTreeClassifier(max_leaf_nodes=20, random_state=0)
        student.fit(examples, forest.predict(examples))
        return (student.predict(test) == forest.predict(test)).mean()

    noise = generator.uniform(train.min(axis=0), train.max(axis=0), (2000, 10))
    munged, probabilities = munge(train, 10, teacher=forest.predict_proba, seed=0)
    np.testing.assert_array_equal(probabilities, forest.predict_proba(munged))
    assert agreement(munged) > agreement(noise) + 0.05


@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (np.ones(3), ValueError, r"x of shape \(3,\)"),
        (np.ones((1, 3)), ValueError, r"Expected at least two examples"),
        (np.ones((3, 0)), ValueError, r"x of shape \(3, 0\)"),
        (
            np.array([[1.0, np.nan], [2.0, 3.0]]),
            ValueError,
            r"NaN or infinity in the columns \[1\]",
        ),
        (np.array([[1.0, "a"]], object), TypeError, r"x of type object.*categories as numbers"),
        (np.ones((3, 2), bool), TypeError, "x of type bool"),
    ],
)
def test_tables_that_are_none(x, kind, message):
    with pytest.raises(kind, match=message):
        munge(x, 2)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"multiplier": 0}, ValueError, "multiplier=0.*at least 1"),
        ({"multiplier": 1.5}, TypeError, "multiplier=1.5.*an integer"),
        ({"swap_probability": 1.1}, ValueError, "swap_probability=1.1.*at most 1"),
        ({"local_variance": 0}, ValueError, "local_variance=0.*above 0"),
        ({"categorical": [3]}, ValueError, r"categorical=\[3\].*from 0 to 2"),
        ({"categorical": [1, 1]}, ValueError, "different column indexes"),
        ({"categorical": [-1]}, ValueError, "categorical index=-1"),
        ({"categorical": [True, False, False]}, TypeError, "categorical index=True"),
        ({"teacher": 3}, TypeError, "teacher of type builtins.int.*predict_proba"),
        ({"teacher": lambda rows: rows.sum()}, ValueError, "one output per example"),
    ],
)
def test_arguments_that_make_no_sense(arguments, kind, message):
    with pytest.raises(kind, match=message):
        munge(np.eye(3), **arguments)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.neighbors", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'keras-kd\[tabular\]'"):
        munge(np.eye(3), 2)
