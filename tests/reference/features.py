"""Losses on hidden features in NumPy and float64, channels last, any number of positions axes.

One value per example and position where a loss is a mean over positions, one per example where it
looks at the map as a whole, one per batch where it is a property of the batch.
"""

import itertools
import math

import numpy as np


def hint(teacher, student):
    return np.square(double(student) - double(teacher)).mean(axis=-1)


def attention_transfer(teacher, student, power=2):
    teacher, student = same_size(teacher, student)
    difference = attention(student, power) - attention(teacher, power)
    return np.square(difference).mean(axis=-1)


def factor_transfer(teacher, student, power=2, norm=1):
    teacher, student = same_size(teacher, student)
    difference = attention(student, power) - attention(teacher, power)
    return np.power(np.abs(difference), norm).mean(axis=-1)


def neuron_selectivity_transfer(teacher, student):
    teacher, student = (unit(flat(part), axis=1) for part in same_size(teacher, student))

    def kernel(first, second):
        return np.square(np.einsum("bpc,bpd->bcd", first, second)).mean(axis=(1, 2))

    return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)


def activation_boundary(teacher, student, margin=1.0):
    teacher, student = double(teacher), double(student)
    wrongly_on = np.where((teacher <= 0) & (student > -margin), student + margin, 0.0)
    wrongly_off = np.where((teacher > 0) & (student <= margin), student - margin, 0.0)
    squares = np.square(wrongly_on) + np.square(wrongly_off)
    return squares.sum(axis=-1) * positions(student) * 3 / 1000


def partial_l2(teacher, student, margin):
    target = np.maximum(double(teacher), np.reshape(margin, -1))
    student = double(student)
    counts = (student > target) | (target > 0)
    return np.where(counts, np.square(student - target), 0.0).sum(axis=-1) * positions(student)


def hierarchical_context(teacher, student, levels=(4, 2, 1)):
    teacher, student = double(teacher), double(student)
    total = np.square(student - teacher).mean(axis=rest(student))
    weight = weights = 1.0
    for level in levels:
        if level < student.shape[1]:
            size = (level,) * (student.ndim - 2)
            difference = pooled(student, size) - pooled(teacher, size)
            weight /= 2
            weights += weight
            total = total + weight * np.square(difference).mean(axis=rest(difference))
    return total / weights


def inter_channel_correlation(teacher, student):
    def correlation(features):
        features = flat(features)
        return unit(np.einsum("bpc,bpd->bcd", features, features), axis=2)

    difference = correlation(student) - correlation(teacher)
    batch, channels, _ = difference.shape
    return np.square(difference).sum() / (channels * batch**2)


def variational_information(teacher, student, log_scale, epsilon=1e-5):
    variance = np.log1p(np.exp(double(log_scale))) + epsilon
    squares = np.square(double(student) - double(teacher))
    return (0.5 * (squares / variance + np.log(variance))).mean(axis=-1)


def flow_of_solution(teacher_first, teacher_second, student_first, student_second):
    def flow(first, second):
        first, second = (flat(part) for part in same_size(first, second))
        return np.einsum("bpc,bpd->bcd", first, second) / first.shape[1]

    difference = flow(student_first, student_second) - flow(teacher_first, teacher_second)
    return np.square(difference).mean(axis=(1, 2))


def attention_scores(teacher, student, heads=None):
    teacher, student = double(teacher), double(student)
    if heads is not None:
        teacher = np.stack([teacher[:, np.atleast_1d(group)].mean(axis=1) for group in heads], 1)
    return np.square(student - teacher)


def channel_wise(teacher, student, temperature=4.0):
    def log_distributions(features):
        scaled = flat(features) / temperature
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        return scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))

    log_p, log_q = log_distributions(teacher), log_distributions(student)
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean(axis=1)


def simple_recipe(teacher, student, exponent=1.0):
    return np.log(np.power(np.abs(double(student) - double(teacher)), exponent).sum())


def double(features):
    return np.asarray(features, "float64")


def flat(features):
    """Positions on one axis: `(batch, positions, channels)`."""
    features = double(features)
    return features.reshape(len(features), -1, features.shape[-1])


def rest(features):
    """Every axis but that of the batch."""
    return tuple(range(1, features.ndim))


def positions(features):
    return math.prod(features.shape[1:-1])


def unit(features, axis):
    norm = np.sqrt(np.square(features).sum(axis=axis, keepdims=True))
    return features / np.maximum(norm, 1e-12)


def attention(features, power):
    return unit(np.power(np.abs(flat(features)), power).mean(axis=-1), axis=1)


def same_size(first, second):
    """Both pooled, along each axis of positions, to the smaller of the two."""
    first, second = double(first), double(second)
    size = np.minimum(first.shape[1:-1], second.shape[1:-1])
    return pooled(first, size), pooled(second, size)


def pooled(features, size):
    """Adaptive average pooling, window by window."""
    features = double(features)
    result = np.zeros((len(features), *size, features.shape[-1]))
    for place in itertools.product(*(range(length) for length in size)):
        window = tuple(
            slice(index * given // length, -((index + 1) * given // -length))
            for index, given, length in zip(place, features.shape[1:-1], size, strict=True)
        )
        axes = tuple(range(1, features.ndim - 1))
        result[(slice(None), *place)] = features[(slice(None), *window)].mean(axis=axes)
    return result
