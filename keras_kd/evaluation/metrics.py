"""What the scores of a classifier say, about the labels and about the teacher."""

from __future__ import annotations

import keras
import numpy as np

# Softmax of float32, or of int8 with its steps of 1/256, adds up to 1 only about.
_SUM_TOLERANCE = 0.05


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Return scores as probabilities: unchanged if they are, else their softmax.

    Args:
        scores: shape (examples, classes), logits or probabilities.
    """
    sums = scores.sum(axis=-1)
    if scores.min() >= 0 and np.all(np.abs(sums - 1) < _SUM_TOLERANCE):
        return scores / sums[:, np.newaxis]
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of examples whose highest score is at their label, in 0..1.

    Args:
        scores: shape (examples, classes).
        labels: class indices, shape (examples,).
    """
    return float(np.mean(scores.argmax(axis=-1) == labels))


def accuracy_per_class(scores: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """The accuracy on the examples of each class; NaN for a class without examples."""
    hits = scores.argmax(axis=-1) == labels
    classes = scores.shape[-1]
    correct = np.bincount(labels, weights=hits, minlength=classes)
    count = np.bincount(labels, minlength=classes)
    shares = np.divide(correct, count, out=np.full(classes, np.nan), where=count > 0)
    return tuple(float(share) for share in shares)


def macro_f1(scores: np.ndarray, labels: np.ndarray) -> float:
    """The unweighted mean over classes of F1 = 2TP / (2TP + FP + FN), in 0..1.

    Args:
        scores: shape (examples, classes).
        labels: class indices, shape (examples,).
    """
    metric = keras.metrics.F1Score(average="macro")
    metric.update_state(keras.utils.to_categorical(labels, scores.shape[-1]), scores)
    return float(metric.result())


def agreement(scores: np.ndarray, teacher_scores: np.ndarray) -> float:
    """The share of examples on which model and teacher choose the same class, in 0..1.

    Args:
        scores: shape (examples, classes).
        teacher_scores: shape (examples, classes).
    """
    return float(np.mean(scores.argmax(axis=-1) == teacher_scores.argmax(axis=-1)))


def divergence(scores: np.ndarray, teacher_scores: np.ndarray) -> float:
    """The mean Kullback-Leibler divergence KL(teacher || model) in nats: 0 is a perfect copy.

    It sees what agreement does not: whether the probabilities behind the choice are the teacher's
    (Stanton et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021).

    Args:
        scores: shape (examples, classes), logits or probabilities.
        teacher_scores: shape (examples, classes), logits or probabilities.
    """
    # An int8 softmax gives exact zeros below half of its step of 1/256: half a step stands for
    # them, since infinity for one rounded probability would say nothing about the others.
    floor = 1 / 512
    model = np.maximum(probabilities(scores.astype("float64")), floor)
    teacher = np.maximum(probabilities(teacher_scores.astype("float64")), floor)
    model /= model.sum(axis=-1, keepdims=True)
    teacher /= teacher.sum(axis=-1, keepdims=True)
    return float(np.mean(np.sum(teacher * np.log(teacher / model), axis=-1)))
