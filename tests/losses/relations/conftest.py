"""Features of a teacher and a student, of different sizes, and a pairing of examples."""

import numpy as np
import pytest


@pytest.fixture
def features():
    """A function from a seed and shapes to features of a teacher and a student in float32."""

    def draw(seed, teacher_shape, student_shape):
        random = np.random.default_rng(seed)
        return tuple(
            random.normal(size=shape).astype("float32") for shape in (teacher_shape, student_shape)
        )

    return draw


@pytest.fixture
def turn():
    """A rotation of vectors of 6 numbers."""
    square = np.random.default_rng(3).normal(size=(6, 6))
    return np.linalg.qr(square)[0].astype("float32")
