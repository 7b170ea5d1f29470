"""The losses stated a second time, in NumPy and float64: one value per example."""

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


def cross_entropy(labels, logits):
    """The loss on integer labels, per example."""
    return -np.take_along_axis(log_softmax(logits), np.asarray(labels)[..., None], axis=-1)[..., 0]


def gradient(formula, student, step=1e-6):
    """Central differences of the scalar `formula(student)`."""
    student = np.asarray(student, "float64")
    result = np.zeros_like(student)
    for index in np.ndindex(student.shape):
        offset = np.zeros_like(student)
        offset[index] = step
        result[index] = (formula(student + offset) - formula(student - offset)) / (2 * step)
    return result


# Every public loss, with its default arguments; the contract test runs over them.
REFERENCES = {
    "SoftTargets": soft_targets,
    "SoftCrossEntropy": soft_cross_entropy,
    "LogitsMSE": logits_mean_squared_error,
}
