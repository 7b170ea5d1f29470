"""The losses on outputs stated a second time, in NumPy and float64.

Per-example losses give one value per example (and position); `dist` and `direction_matching` are
properties of the batch and give a scalar.
"""

import numpy as np


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_sigmoid(logits):
    return -np.logaddexp(0.0, -logits)


def soften(logits, temperature, activation="softmax"):
    scaled = np.asarray(logits, "float64") / temperature
    if activation == "sigmoid":
        return np.stack([log_sigmoid(scaled), log_sigmoid(-scaled)], axis=-1)
    return log_softmax(scaled)


def soft_targets(teacher, student, temperature=4.0, activation="softmax"):
    teacher = soften(teacher, temperature, activation)
    student = soften(student, temperature, activation)
    return temperature**2 * (np.exp(teacher) * (teacher - student)).sum(axis=-1)


def soft_cross_entropy(teacher, student, temperature=4.0, activation="softmax"):
    teacher = soften(teacher, temperature, activation)
    student = soften(student, temperature, activation)
    return -(temperature**2) * (np.exp(teacher) * student).sum(axis=-1)


def logits_mean_squared_error(teacher, student):
    return np.square(np.asarray(teacher, "float64") - student).mean(axis=-1)


def _log_sum_exp(values):
    largest = values.max()
    return largest + np.log(np.exp(values - largest).sum())


def _divergence(teacher, student):
    """KL divergence between two distributions, given by their logarithms."""
    return (np.exp(teacher) * (teacher - student)).sum()


def decoupled(teacher, student, labels, temperature=4.0, alpha=1.0, beta=8.0):
    labels = np.asarray(labels)
    values = np.zeros(labels.shape)
    for position in np.ndindex(labels.shape):
        of_target, of_others = [], []
        for logits in (teacher[position], student[position]):
            scaled = np.asarray(logits, "float64") / temperature
            others = np.delete(scaled, labels[position])
            target = scaled[labels[position]] - _log_sum_exp(others)
            of_target.append(log_sigmoid(np.array([target, -target])))
            of_others.append(log_softmax(others))
        values[position] = alpha * _divergence(*of_target) + beta * _divergence(*of_others)
    return temperature**2 * values


def _correlation(first, second, smallest_norm=1e-8):
    """Pearson's, of two vectors."""
    first, second = (vector - vector.mean() for vector in (first, second))
    norms = (max(np.linalg.norm(vector), smallest_norm) for vector in (first, second))
    return first @ second / np.prod(list(norms))


def dist(teacher, student, temperature=1.0, inter_weight=1.0, intra_weight=1.0):
    classes = np.shape(teacher)[-1]
    teacher, student = (
        np.exp(soften(logits, temperature)).reshape(-1, classes) for logits in (teacher, student)
    )
    inter = np.mean([1 - _correlation(t, s) for t, s in zip(teacher, student, strict=True)])
    intra = np.mean([1 - _correlation(t, s) for t, s in zip(teacher.T, student.T, strict=True)])
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def standardize(logits, epsilon=1e-7):
    logits = np.asarray(logits, "float64")
    deviation = logits.std(axis=-1, ddof=1, keepdims=True)
    return (logits - logits.mean(axis=-1, keepdims=True)) / (deviation + epsilon)


def standardized_soft_targets(teacher, student, temperature=2.0):
    return soft_targets(standardize(teacher), standardize(student), temperature) / temperature**2


def direction_matching(teacher, student, tikhonov=0.1):
    grams = []
    for logits in (teacher, student):
        vectors = np.asarray(logits, "float64").reshape(len(logits), -1)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        grams.append(vectors @ vectors.T)
    difference = grams[1] - grams[0]
    if len(difference) == 1:
        return 0.0
    covariance = np.cov(difference, rowvar=False, ddof=1) + tikhonov * np.eye(len(difference))
    squares = (difference @ np.linalg.inv(covariance) * difference).sum(axis=1)
    return np.sqrt(np.maximum(squares, 0.0)).mean()


def output_difference(teacher, student, features=None, kernel=0.0, bias=0.0):
    """Without a kernel, what the loss is before its regressor has learnt anything."""
    teacher, student = (np.asarray(logits, "float64") for logits in (teacher, student))
    prediction = bias
    if np.ndim(kernel):
        features = student if features is None else np.asarray(features, "float64")
        extra = tuple(range(student.ndim - 1, features.ndim - 1))
        prediction = features.mean(axis=extra) @ kernel + bias
    return np.square(prediction - (teacher - student)).mean(axis=-1)


def hard_targets(teacher, student, label_smoothing=0.0):
    log_probabilities = log_softmax(student)
    classes = log_probabilities.shape[-1]
    target = np.eye(classes)[np.argmax(teacher, axis=-1)]
    target = (1.0 - label_smoothing) * target + label_smoothing / classes
    return -(target * log_probabilities).sum(axis=-1)
