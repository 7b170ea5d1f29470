"""Students that become teachers of the next generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from keras_kd import _keras
from keras_kd._checks import check_integer, problem


class Generation(NamedTuple):
    """One of `born_again`.

    Attributes:
        number: from 1; the first teacher is generation 0.
        teacher: the student of the generation before.
        student: a new model, to be trained before the next generation.
    """

    number: int
    teacher: Any
    student: Any


def born_again(
    teacher: Any, make_student: Callable[[int], Any], generations: int = 3
) -> Iterator[Generation]:
    """Let each trained student teach the next one.

    The students of the paper have the architecture of their teacher, and often pass it; where they
    are smaller than the first teacher, the later generations are taught by an equal. The body of
    the loop trains:

        ```python
        students = []
        for number, teacher, student in born_again(teacher, lambda number: build_model()):
            distiller = keras_kd.Distiller(teacher, student)
            distiller.compile("adam", loss)
            distiller.fit(dataset, epochs=10)
            students.append(student)
        ensemble = keras_kd.teachers.Ensemble(students)
        ```

    The ensemble of all generations is the last step of the paper; it can teach a small student.

    Args:
        teacher: the trained model to begin with, or anything that `keras_kd.Distiller` takes.
        make_student: makes the student of a generation of its number, with fresh weights.
        generations: how many students.

    Yields:
        A `Generation` each. The student is made when it is needed, and frozen by the Distiller
        when it teaches.

    Raises:
        TypeError: if `generations` is no integer, or `make_student` cannot be called.
        ValueError: if there are no generations, or a student is not a new model.

    Example:
        >>> import keras
        >>> first = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        >>> lineage = list(born_again(first, lambda number: keras.models.clone_model(first), 2))
        >>> len(lineage), lineage[-1].number
        (2, 2)
        >>> lineage[1].teacher is lineage[0].student
        True

    Reference:
        Furlanello, Lipton, Tschannen, Itti, Anandkumar: Born-Again Neural Networks, ICML 2018,
        arXiv 1805.04770.
    """
    generations = check_integer("generations", generations, at_least=1, fix="use 3 or so")
    # A model can be called as well, but makes no other.
    if not callable(make_student) or _keras.is_model(make_student):
        raise problem(
            f"make_student={make_student!r}",
            "a function that makes a new student of the number of its generation",
            "pass for example lambda number: build_model()",
            kind=TypeError,
        )
    return _generations(teacher, make_student, generations)


def _generations(
    teacher: Any, make_student: Callable[[int], Any], generations: int
) -> Iterator[Generation]:
    lineage = [teacher]
    for number in range(1, generations + 1):
        student = _keras.check_model("student", make_student(number))
        if any(student is ancestor for ancestor in lineage):
            raise problem(
                f"the same model {student.name!r} again from make_student({number})",
                "a new student for every generation",
                "build the model inside make_student, or return keras.models.clone_model(...)",
            )
        yield Generation(number, lineage[-1], student)
        lineage.append(student)
