"""Shrink a recommender and keep its ranking: soft targets and DIST beside training alone.

    python examples/recommender.py

A teacher with 32 numbers for each user and item learns from what users chose; a student has 8. The
choices are synthetic: users and items have tastes, and some items are popular. Prints, on average
over the users, how much of the teacher's ranking of all items a student keeps: NDCG of its first
ten, graded by the teacher's order, and Kendall's tau. Expect DIST to keep the first ten best (0.64,
alone 0.60) and soft targets the order of all items (0.61, alone 0.56).
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

import keras_kd

USERS, ITEMS, TASTES = 1000, 200, 8


def choices(per_user: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users, and the items that they chose."""
    generator = np.random.default_rng(seed)
    users, items = generator.normal(size=(USERS, TASTES)), generator.normal(size=(ITEMS, TASTES))
    appeal = 0.7 * users @ items.T + generator.normal(size=ITEMS)
    # Adding Gumbel noise and taking the largest draws from the softmax, without replacement.
    drawn = np.argsort(-(appeal + generator.gumbel(size=appeal.shape)), axis=1)[:, :per_user]
    return np.repeat(np.arange(USERS), per_user), drawn.reshape(-1)


def recommender(width: int) -> keras.Model:
    """A user in, the logits of all items out: the product of two tables."""
    user = keras.Input((), dtype="int32")
    taste = keras.layers.Embedding(USERS, width, embeddings_regularizer=keras.regularizers.L2(1e-6))
    return keras.Model(user, keras.layers.Dense(ITEMS, name="items")(taste(user)))


def ndcg(teacher: np.ndarray, student: np.ndarray, first: int = 10) -> float:
    """How good a student's first items are; the teacher's best is worth `first`, the next less."""
    gains = np.maximum(first - np.argsort(np.argsort(-teacher)), 0)
    discounts = 1 / np.log2(np.arange(first) + 2)
    chosen = np.take_along_axis(gains, np.argsort(-student)[:, :first], axis=1)
    return float(np.mean(chosen @ discounts) / (np.arange(first, 0, -1) @ discounts))


def kendall_tau(teacher: np.ndarray, student: np.ndarray) -> float:
    """The share of pairs of items in the same order less the share in the other."""

    def order(scores: np.ndarray) -> np.ndarray:
        return np.sign(scores[:, np.newaxis] - scores)

    pairs = ITEMS * (ITEMS - 1)
    both = zip(teacher, student, strict=True)
    return float(np.mean([(order(one) * order(other)).sum() / pairs for one, other in both]))


def main(argv: list[str] | None = None) -> dict[str, tuple[float, float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--choices", type=int, default=15, help="of each user")
    options = parser.parse_args(argv)
    users, items = choices(options.choices)

    def trained(model: keras.Model) -> keras.Model:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss)
        return model

    def scores(model: keras.Model) -> np.ndarray:
        return model.predict(np.arange(USERS), verbose=0)

    fit_options = {"batch_size": 256, "epochs": options.epochs, "verbose": 2}
    keras.utils.set_random_seed(0)
    teacher = trained(recommender(32))
    teacher.fit(users, items, **fit_options)

    losses = {
        "alone": None,
        "SoftTargets": keras_kd.losses.SoftTargets(temperature=2.0),
        "DIST": keras_kd.losses.DIST(temperature=2.0),
    }
    kept = {}
    for name, loss in losses.items():
        keras.utils.set_random_seed(1)
        student = recommender(8)
        learner = student if loss is None else keras_kd.Distiller(teacher, student, loss, None, 0.1)
        trained(learner).fit(users, items, **fit_options)
        pair = scores(teacher), scores(student)
        kept[name] = (ndcg(*pair), kendall_tau(*pair))
    print(f"{'':12} NDCG@10  Kendall's tau")
    for name, (gain, tau) in kept.items():
        print(f"{name:12} {gain:7.3f}  {tau:13.3f}")
    return kept


if __name__ == "__main__":
    main()
