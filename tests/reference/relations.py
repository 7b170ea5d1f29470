"""The losses on relations, in NumPy and float64: one value per batch, written as in the papers."""

import numpy as np


def _flat(features):
    features = np.asarray(features, "float64")
    return features.reshape(len(features), -1)


def _unit(vectors):
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def similarity_preserving(teacher, student):
    teacher, student = (_unit(_flat(x) @ _flat(x).T) for x in (teacher, student))
    return np.square(student - teacher).mean()


def correlation_congruence(teacher, student):
    gap = np.abs(_flat(student) - _flat(teacher))
    products = [(gap[i] * gap[i + 1]).sum() for i in range(len(gap) - 1)]
    return np.mean(products) if products else 0.0


def probabilistic_transfer(teacher, student):
    probabilities = []
    for features in (teacher, student):
        vectors = _unit(_flat(features))
        kernel = (vectors @ vectors.T + 1.0) / 2.0
        probabilities.append(kernel / kernel.sum(axis=1, keepdims=True))
    p, q = probabilities
    return (p * np.log((p + 1e-7) / (q + 1e-7))).mean()


def _huber(gap):
    size = np.abs(gap)
    return np.where(size < 1.0, 0.5 * gap**2, size - 0.5)


def relational(teacher, student, distance_weight=25.0, angle_weight=50.0):
    distances, angles = [], []
    for features in (teacher, student):
        vectors = _flat(features)
        sides = vectors[:, None] - vectors[None]
        lengths = np.linalg.norm(sides, axis=-1)
        others = lengths[~np.eye(len(vectors), dtype=bool)]
        mean = others.mean() if others.any() else 1.0
        distances.append(lengths / mean)
        angles.append(np.einsum("ijc,ikc->ijk", _unit(sides), _unit(sides)))
    return (
        distance_weight * _huber(distances[1] - distances[0]).mean()
        + angle_weight * _huber(angles[1] - angles[0]).mean()
    )


def contrastive_representation(
    teacher, student, teacher_projection, student_projection, temperature=0.07
):
    teacher = _unit(_flat(teacher) @ np.asarray(teacher_projection, "float64"))
    student = _unit(_flat(student) @ np.asarray(student_projection, "float64"))
    similarities = student @ teacher.T / temperature
    values = []
    for own, row in enumerate(similarities):
        largest = row.max()
        values.append(largest + np.log(np.exp(row - largest).sum()) - row[own])
    return np.mean(values)
