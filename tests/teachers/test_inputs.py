"""Teachers that see other inputs than the student."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.teachers.inputs import Inputs


def test_the_same_for_both():
    inputs = Inputs()
    assert inputs.are_shared
    assert inputs.of_teacher(3) == inputs.of_student(3) == 3


def test_a_function_of_what_the_student_sees():
    inputs = Inputs(lambda x: x + 1)
    assert (inputs.of_teacher(3), inputs.of_student(3)) == (4, 3)


def test_entries_by_name():
    x = {"small": 1, "large": 2, "depth": 3}
    one, two = Inputs("large"), Inputs(["large", "depth"])
    assert one.of_teacher(x) == 2
    assert one.of_student(x) == {"small": 1, "depth": 3}
    assert two.of_teacher(x) == {"large": 2, "depth": 3}
    assert two.of_student(x) == 1
    assert two.of_student(7) == 7


def test_an_entry_that_the_data_do_not_have():
    with pytest.raises(ValueError, match=r"inputs \['small'\] with teacher_inputs='large'.*name"):
        Inputs("large").of_teacher({"small": 1})


@pytest.mark.parametrize("wrong", [0.5, [0.5], [], True, {}, {"ids": 0.5}])
def test_what_names_no_inputs(wrong):
    with pytest.raises(TypeError, match=r"Received teacher_inputs=.*pass for example 'large'"):
        Inputs(wrong)


def test_entries_by_index():
    # Not integers: those are the sizes of a shape.
    x = (1.0, 2.0, 3.0)
    assert Inputs(1).of_teacher(x) == 2
    assert Inputs(1).of_student(x) == [1, 3]
    assert Inputs([2, 0]).of_teacher(x) == [3, 1]
    assert Inputs([2, 0]).of_student(x) == 2
    assert Inputs(1, 1).of_student(x) == 2
    assert Inputs([0, 1], [1, 2]).of_student(list(x)) == [2, 3]
    # Data for the student alone.
    assert Inputs(1).of_student((1.0,)) == 1
    assert Inputs(1).of_student(np.ones(2)).shape == (2,)
    assert not Inputs(1).reach_teacher((1.0,))


def test_entries_under_other_names():
    x = {"input_ids": 1, "mask": 2, "short": 3}
    both = Inputs({"ids": "input_ids", "mask": "mask"}, {"ids": "short", "mask": "mask"})
    assert both.of_teacher(x) == {"ids": 1, "mask": 2}
    assert both.of_student(x) == {"ids": 3, "mask": 2}
    # As the student alone takes them.
    assert both.of_student({"ids": 3, "mask": 2}) == {"ids": 3, "mask": 2}
    assert Inputs({"ids": "input_ids"}).of_student(x) == {"mask": 2, "short": 3}
    assert Inputs({"first": 1, "second": 0}).of_teacher((5.0, 6.0)) == {"first": 6, "second": 5}


def test_entries_as_the_models_take_them():
    x = {"a": 1, "b": 2, "c": 3}
    one = Inputs({"x": "a"}, "b").between("x", "anything")
    assert (one.of_teacher(x), one.of_student(x)) == (1, 2)
    named = Inputs("a", "b").between({"a": "a"}, {"b": "b"})
    assert (named.of_teacher(x), named.of_student(x)) == ({"a": 1}, {"b": 2})
    listed = Inputs({"q": "a", "p": "b"}, ["c", "a"]).between(["p", "q"], ["a", "c"])
    assert (listed.of_teacher(x), listed.of_student(x)) == ([2, 1], [1, 3])
    # What the student is called by, where the rest is not it.
    shared = Inputs(["a", "b", "c"]).between(None, "b")
    assert shared.of_student(x) == 2
    assert Inputs(["a", "b"]).between(None, {"b": "b", "c": "c"}).of_student(x) == {"b": 2, "c": 3}


def test_nothing_left_for_the_student():
    with pytest.raises(ValueError, match=r"all of which teacher_inputs.*student_inputs='a'"):
        Inputs(["a", "b"]).of_student({"a": 1, "b": 2})


def test_student_entries_that_the_data_do_not_have():
    with pytest.raises(ValueError, match=r"inputs \['b'\] with student_inputs='a'"):
        Inputs(None, "a").of_student({"b": 1})


def test_a_function_reaches_the_teacher_where_it_finds_its_entries():
    inputs = Inputs(lambda x: x["large"])
    assert inputs.reach_teacher({"large": 1})
    assert not inputs.reach_teacher({"small": 1})
    assert Inputs(None, lambda x: x + 1).of_student(3) == 4


@pytest.fixture
def models():
    def image_model(size, name):
        return keras.Sequential(
            [keras.Input((size, size, 1)), keras.layers.Flatten(), keras.layers.Dense(3)], name=name
        )

    return image_model(8, "teacher"), image_model(4, "student")


@pytest.mark.fast_rows
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("way", ["function", "name"])
def test_larger_images_for_the_teacher(models, hard_loss, flavour, way):
    teacher, student = models
    if flavour == "tf_keras":
        student = keras_kd.compression.to_tf_keras(student)
    small = np.random.default_rng(0).normal(size=(12, 4, 4, 1)).astype("float32")
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    y = np.arange(12) % 3
    if way == "function":
        given, x = (lambda x: keras.ops.repeat(keras.ops.repeat(x, 2, axis=1), 2, axis=2)), small
    else:
        given, x = "large", {"small": small, "large": large}
    distiller = keras_kd.Distiller(teacher, student, teacher_inputs=given)
    # Each flavour and each way once in a graph.
    is_eager = (flavour == "keras") == (way == "name")
    distiller.compile("sgd", hard_loss, run_eagerly=is_eager)
    distiller.fit(x, y, verbose=0)
    logs = distiller.evaluate(x, y, verbose=0, return_dict=True)
    loss = keras_kd.losses.SoftTargets()
    expected = float(loss.compute_loss(teacher(large), student(small)))
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(
        distiller.predict(x, verbose=0), student(small), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        distiller.predict(small, verbose=0), student(small), rtol=1e-4, atol=1e-6
    )


def test_names_are_saved(models, hard_loss, tmp_path):
    distiller = keras_kd.Distiller(*models, teacher_inputs="large")
    distiller.compile("sgd", hard_loss)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.teacher_inputs == "large"


def test_other_shapes_without_saying_so(models):
    with pytest.raises(ValueError, match="pass teacher_inputs and student_inputs"):
        keras_kd.Distiller(*models)


def vectors(*names, seed=0):
    """A model that sums what becomes of its inputs, with inputs of these names in a dict."""
    keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input((4,), name=name) for name in names}
    parts = [keras.layers.Dense(3)(tensor) for tensor in inputs.values()]
    return keras.Model(inputs, parts[0] if len(parts) == 1 else keras.layers.add(parts))


A, B, C = np.random.default_rng(0).normal(size=(3, 12, 4)).astype("float32")
LABELS = np.arange(12) % 3


def distillation(teacher_output, student_output):
    return float(keras_kd.losses.SoftTargets().compute_loss(teacher_output, student_output))


@pytest.mark.fast_rows
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("student_inputs", [None, ["b", "c"]])
def test_an_entry_for_both_one_renamed_and_data_for_the_student_alone(
    hard_loss, flavour, student_inputs, tmp_path
):
    teacher, student = vectors("p", "b", seed=1), vectors("b", "c", seed=2)
    own = student({"b": B, "c": C})
    taught = student if flavour == "keras" else keras_kd.compression.to_tf_keras(student)
    distiller = keras_kd.Distiller(
        teacher,
        taught,
        teacher_inputs={"p": "a", "b": "b"},
        student_inputs=student_inputs,
    )
    distiller.compile("sgd", hard_loss, ["accuracy"], run_eagerly=True)
    x = {"a": A, "b": B, "c": C}
    expected = distillation(teacher({"p": A, "b": B}), own)
    logs = distiller.evaluate(x, LABELS, batch_size=12, verbose=0, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(distiller.predict(x, verbose=0), own, atol=1e-5)
    # Without what only the teacher sees: labels alone.
    alone = {"b": B, "c": C}
    np.testing.assert_allclose(distiller.predict(alone, verbose=0), own, atol=1e-5)
    measured = distiller.evaluate(alone, LABELS, batch_size=12, verbose=0, return_dict=True)
    assert "distillation_loss" not in measured
    assert measured["loss"] == pytest.approx(logs["student_loss"], rel=1e-5)
    history = distiller.fit(x, LABELS, validation_data=(alone, LABELS), verbose=0).history
    assert {"val_loss", "val_accuracy", "val_student_loss"} <= set(history)
    if flavour == "keras":
        distiller.save(tmp_path / "all.keras")
        loaded = keras.models.load_model(tmp_path / "all.keras")
        assert loaded.teacher_inputs == {"p": "a", "b": "b"}
        assert loaded.student_inputs == student_inputs
        np.testing.assert_allclose(
            loaded.predict(x, verbose=0), distiller.predict(x, verbose=0), atol=1e-6
        )


@pytest.mark.fast_rows
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("as_", [tuple, list])
def test_tuples_and_lists(hard_loss, flavour, as_, tmp_path):
    teacher, student = vectors("p", "q", seed=1), vectors("b", seed=2)
    own = student({"b": B})
    taught = student if flavour == "keras" else keras_kd.compression.to_tf_keras(student)
    distiller = keras_kd.Distiller(
        teacher, taught, teacher_inputs={"q": 0, "p": 1}, student_inputs={"b": 1}
    )
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    x = as_([A, B])
    logs = distiller.evaluate(x, LABELS, batch_size=12, verbose=0, return_dict=True)
    expected = distillation(teacher({"q": A, "p": B}), own)
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)
    alone = distiller.evaluate({"b": B}, LABELS, batch_size=12, verbose=0, return_dict=True)
    assert alone["loss"] == pytest.approx(logs["student_loss"], rel=1e-5)
    distiller.fit(x, LABELS, verbose=0)


def test_data_without_the_teachers_part_do_not_train(models, hard_loss):
    distiller = keras_kd.Distiller(*models, teacher_inputs="large")
    distiller.compile("sgd", hard_loss)
    with pytest.raises(ValueError, match="with teacher_inputs='large'"):
        distiller.fit({"small": np.zeros((12, 4, 4, 1))}, LABELS, verbose=0)
