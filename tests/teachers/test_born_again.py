"""Generations of students."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.teachers import Ensemble, born_again


def test_the_student_of_one_generation_teaches_the_next(dense_model):
    first = dense_model(seed=0)
    numbers = []

    def make(number):
        numbers.append(number)
        return dense_model(seed=number)

    lineage = list(born_again(first, make, generations=3))
    assert [generation.number for generation in lineage] == numbers == [1, 2, 3]
    teachers = [generation.teacher for generation in lineage]
    assert teachers == [first, lineage[0].student, lineage[1].student]


def test_a_student_is_made_when_it_is_asked_for(dense_model):
    made = []
    lineage = born_again(dense_model(), lambda number: made.append(number) or dense_model())
    assert made == []
    next(lineage)
    assert made == [1]


def test_any_teacher_can_begin(dense_model):
    models = [dense_model(seed=1), dense_model(seed=2)]
    assert next(born_again(models, lambda number: dense_model())).teacher is models


def test_arguments_are_checked_at_once(dense_model):
    with pytest.raises(ValueError, match=r"generations=0. Expected an integer of at least 1"):
        born_again(dense_model(), dense_model, 0)
    with pytest.raises(TypeError, match="Expected a function that makes a new student"):
        born_again(dense_model(), dense_model())


def test_students_are_new_models(dense_model):
    first = dense_model(name="first")
    with pytest.raises(ValueError, match="a new student for every generation"):
        next(born_again(first, lambda number: first))
    again = dense_model(name="again")
    lineage = born_again(first, lambda number: again)
    next(lineage)
    with pytest.raises(ValueError, match=r"the same model 'again' again from make_student\(2\)"):
        next(lineage)
    with pytest.raises(ValueError, match="student=None"):
        next(born_again(first, lambda number: None))


def test_training_in_the_body_of_the_loop(dense_model, examples):
    x, _ = examples
    students = []
    for number, teacher, student in born_again(
        dense_model(seed=9), lambda number: dense_model(seed=number), generations=2
    ):
        distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0)
        distiller.compile(keras.optimizers.Adam(0.03))
        history = distiller.fit(x, epochs=5, verbose=0).history["loss"]
        assert history[-1] < history[0]
        assert number == len(students) + 1
        students.append(student)
    assert Ensemble(students)(x, None).outputs.shape == (20, 3)
    assert not students[0].trainable_weights
    assert np.all(np.isfinite(students[1](x)))
