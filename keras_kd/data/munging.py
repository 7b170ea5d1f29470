"""Synthetic tabular examples near the real ones (MUNGE)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_kd import _keras
from keras_kd._checks import check_integer, check_number, problem, three_parts
from keras_kd.taps import Tapped
from keras_kd.teachers import Teacher

_BATCH_SIZE = 1024


def munge(
    x: Any,
    multiplier: int = 10,
    *,
    swap_probability: float = 0.5,
    local_variance: float = 1.0,
    categorical: Sequence[int] = (),
    teacher: Any = None,
    seed: int | None = None,
) -> Any:
    """Make synthetic tabular examples from real ones by mixing neighbours (MUNGE).

    A student that learns the teacher's outputs on many such examples imitates it better than one
    that learns those on the real ones only: use it where a table is small and there are no
    unlabeled rows. Each copy of the data goes through its examples e in order. With e' the nearest
    of the other real examples, each attribute a of the two is exchanged with probability p:

        categorical: e_a, e'_a = e'_a, e_a
        continuous:  e_a, e'_a = Normal(e'_a, d / s), Normal(e_a, d / s)   with d = |e_a - e'_a|

    Nearest is by Euclidean distance, each continuous column scaled to 0..1 and a difference in a
    category counted as 1. So a constant column stays constant, no category is new,
    and an example whose nearest neighbour is its duplicate may come out unchanged.

    Args:
        x: real examples, numbers of shape `(examples, columns)`. Integer columns that are not
            categorical stay integers, by rounding.
        multiplier: how many synthetic examples per real one, k in the paper.
        swap_probability: p, from 0 to 1.
        local_variance: s, above 0. The larger, the closer to plain exchange; below 1 the examples
            scatter wider than neighbours differ.
        categorical: the indexes of the columns that hold categories as numbers.
        teacher: labels the examples: a model of either Keras, a function from an array to outputs,
            such as `forest.predict_proba` of scikit-learn, or an object of `keras_kd.teachers`,
            which gives what the losses compare (an `Ensemble` of classifiers, logarithms of
            probabilities). It is called on batches.
        seed: the same seed gives the same examples. `None` for others every time.

    Returns:
        An array of shape `(multiplier * examples, columns)` and the type of `x`: one copy of the
        data after the other, each in the order of `x`. With a teacher a pair of it and of the
        teacher's outputs for it.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if `x` is not a table of at least two examples of finite numbers, or another
            argument is out of range.
        ModuleNotFoundError: without the `tabular` extra (scikit-learn).

    Example:
        >>> x = np.array([[1.0, 0.0], [3.0, 0.0], [7.0, 1.0], [8.0, 1.0]], "float32")
        >>> munge(x, 2, categorical=[1], seed=0).shape
        (8, 2)

    Reference:
        Bucila, Caruana, Niculescu-Mizil: Model Compression, KDD 2006. There e' and d are found
        anew among the examples as changed so far; here e' and d are those of the real examples, so
        that one search serves all copies and noise does not grow on noise.
    """
    x = _check_table(x)
    multiplier = check_integer("multiplier", multiplier, at_least=1, fix="try 10")
    swap_probability = check_number(
        "swap_probability", swap_probability, at_least=0.0, at_most=1.0, fix="try 0.5"
    )
    local_variance = check_number("local_variance", local_variance, above=0.0, fix="try 1.0")
    is_categorical = _check_categorical(categorical, x.shape[1])
    _check_teacher(teacher)

    table, categories = _encoded(x, is_categorical)
    neighbours = _nearest_neighbours(table, is_categorical)
    spreads = np.abs(table - table[neighbours]) / local_variance
    spreads[:, is_categorical] = 0.0
    copies = np.repeat(table[np.newaxis], multiplier, axis=0)
    generator = np.random.default_rng(seed)
    for example, (neighbour, spread) in enumerate(zip(neighbours, spreads, strict=True)):
        copies[:, example], copies[:, neighbour] = exchange(
            copies[:, example], copies[:, neighbour], spread, swap_probability, generator
        )
    synthetic = _decoded(copies.reshape(-1, x.shape[1]), categories, x.dtype)
    return synthetic if teacher is None else (synthetic, _outputs(teacher, synthetic))


def exchange(
    first: np.ndarray,
    second: np.ndarray,
    spread: np.ndarray,
    probability: float,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Exchange attributes of pairs of neighbours, with noise: the inner step of MUNGE.

    Args:
        first: examples of shape `(pairs, columns)`.
        second: their neighbours, of the same shape.
        spread: the standard deviation of the noise, shape `(columns,)`; 0 for plain exchange.
        probability: how likely a pair exchanges an attribute.
        generator: where chance comes from.

    Returns:
        Both, after the exchange.
    """
    chosen = generator.random(first.shape) < probability
    noise = generator.standard_normal((2, *first.shape)) * spread
    return np.where(chosen, second + noise[0], first), np.where(chosen, first + noise[1], second)


def _check_table(x: Any) -> np.ndarray:
    array = np.asarray(x)
    expected = "at least two examples of shape (examples, columns), all finite numbers"
    if array.dtype.kind not in "iuf":
        raise problem(
            f"x of type {array.dtype}",
            expected,
            "write categories as numbers and name their columns in `categorical`",
            kind=TypeError,
        )
    if array.ndim != 2 or len(array) < 2 or array.shape[1] < 1:
        raise problem(f"x of shape {array.shape}", expected, "give one row for each example")
    if not np.isfinite(array).all():
        columns = np.flatnonzero(~np.isfinite(array).all(axis=0)).tolist()
        raise problem(
            f"x with NaN or infinity in the columns {columns}",
            expected,
            "leave these rows out, or fill the gaps first",
        )
    return array


def _check_categorical(categorical: Sequence[int], columns: int) -> np.ndarray:
    listed = list(categorical)
    for index in listed:
        check_integer("categorical index", index, at_least=0, fix="count the columns from 0")
    if len(set(listed)) != len(listed) or max(listed, default=0) >= columns:
        raise problem(
            f"categorical={listed}",
            f"different column indexes from 0 to {columns - 1}",
            "list each categorical column of x once",
        )
    is_categorical = np.zeros(columns, dtype=bool)
    is_categorical[listed] = True
    return is_categorical


def _check_teacher(teacher: Any) -> None:
    if teacher is not None and not callable(teacher):
        raise problem(
            f"teacher of type {type(teacher).__module__}.{type(teacher).__qualname__}",
            "a Keras model, or a function from an array to outputs",
            "pass the method that gives the outputs, such as teacher=forest.predict_proba",
            kind=TypeError,
        )


def _encoded(x: np.ndarray, is_categorical: np.ndarray) -> tuple[np.ndarray, dict]:
    """The table in float64, with ranks for categories, and the categories by column.

    As a float64 a large integer, such as a hash, could come out as its neighbour.
    """
    table = x.astype("float64")
    categories = {}
    for column in np.flatnonzero(is_categorical):
        categories[column], table[:, column] = np.unique(x[:, column], return_inverse=True)
    return table, categories


def _decoded(table: np.ndarray, categories: dict, dtype: np.dtype) -> np.ndarray:
    is_integer = dtype.kind in "iu"
    limits = np.iinfo(dtype) if is_integer else np.finfo(dtype)
    rounded = np.rint(table) if is_integer else table
    decoded = np.clip(rounded, limits.min, limits.max).astype(dtype)
    for column, values in categories.items():
        decoded[:, column] = values[table[:, column].astype("int64")]
    return decoded


def _nearest_neighbours(table: np.ndarray, is_categorical: np.ndarray) -> np.ndarray:
    """For each example the index of the nearest of the others."""
    sklearn = _scikit_learn()
    scaled = table[:, ~is_categorical]
    scaled = scaled - scaled.min(axis=0)
    spans = scaled.max(axis=0)
    space = scaled / np.where(spans > 0, spans, 1.0)
    if is_categorical.any():
        from scipy import sparse

        # Two different one-hot vectors are sqrt(2) apart.
        one_hot = sklearn.preprocessing.OneHotEncoder().fit_transform(table[:, is_categorical])
        space = sparse.hstack([sparse.csr_matrix(space), one_hot / np.sqrt(2)], format="csr")
    search = sklearn.neighbors.NearestNeighbors(n_neighbors=1).fit(space)
    return search.kneighbors(return_distance=False)[:, 0]


def _scikit_learn() -> Any:
    try:
        import sklearn.neighbors
        import sklearn.preprocessing
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            three_parts(
                "a table to munge without scikit-learn installed",
                "the `tabular` extra",
                "run: pip install 'keras-kd[tabular]'",
            ),
            name=error.name,
        ) from error
    return sklearn


def _outputs(teacher: Any, x: np.ndarray) -> Any:
    if _keras.is_keras_model(teacher) or _keras.is_tf_keras_model(teacher):
        return teacher.predict(x, batch_size=_BATCH_SIZE, verbose=0)
    if isinstance(teacher, Teacher):
        return _outputs(lambda rows: teacher(rows, Tapped(None, {})).outputs, x)
    batches = [
        _batch_outputs(teacher, x[start : start + _BATCH_SIZE])
        for start in range(0, len(x), _BATCH_SIZE)
    ]
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)


def _batch_outputs(teacher: Callable[[np.ndarray], Any], x: np.ndarray) -> Any:
    outputs = keras.tree.map_structure(keras.ops.convert_to_numpy, teacher(x))
    for output in keras.tree.flatten(outputs):
        if output.ndim == 0 or len(output) != len(x):
            raise problem(
                f"outputs of shape {output.shape} from the teacher for {len(x)} examples",
                "one output per example",
                "let the teacher take an array (examples, columns) and return an array "
                "(examples, ...)",
            )
    return outputs
