"""Teachers whose outputs have another form than the student's: against NumPy in float64."""

import collections
import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

import keras_kd
from keras_kd.losses import DIST, Hint, LogitsMSE, SoftTargets
from keras_kd.teachers import Ensemble, ModelTeacher

X = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")


def net(classes, activation=None, seed=0, units=4, name=None):
    keras.utils.set_random_seed(seed)
    wide = keras.initializers.RandomNormal(stddev=1.0)
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(units, "tanh", kernel_initializer=wide, name="hidden")(inputs)
    outputs = keras.layers.Dense(classes, activation, kernel_initializer=wide, name="end")(hidden)
    return keras.Model(inputs, outputs, name=name)


def logits(model):
    """What is before the last activation, in float64."""
    end = model.get_layer("end")
    hidden = keras.Model(model.input, model.get_layer("hidden").output)(X)
    kernel, bias = (np.asarray(weight, "float64") for weight in end.get_weights())
    return np.asarray(hidden, "float64") @ kernel + bias


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def soft_targets(teacher, student, temperature=2.0):
    p, q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    return temperature**2 * np.mean(np.sum(np.exp(p) * (p - q), axis=-1))


def of_two(z):
    return np.concatenate([np.zeros_like(z), z], axis=-1)


def distillation_loss(teacher, student, loss=None, steps=0):
    distiller = keras_kd.Distiller(
        teacher, student, loss or SoftTargets(2.0), student_loss_weight=0
    )
    distiller.compile("sgd", run_eagerly=not steps)
    value = distiller.evaluate(X, batch_size=16, verbose=0, return_dict=True)["distillation_loss"]
    if steps:
        distiller.fit(X, batch_size=16, epochs=steps, verbose=0)
    return value


class TestTwoUnitsAndOne:
    @pytest.mark.fast_rows(1)
    @pytest.mark.parametrize("kinds", [("softmax", "sigmoid"), (None, None), ("softmax", None)])
    def test_a_teacher_of_two_for_a_student_of_one(self, kinds):
        teacher, student = net(2, kinds[0], seed=1, units=6), net(1, kinds[1], seed=2)
        expected = soft_targets(logits(teacher), of_two(logits(student)))
        assert distillation_loss(teacher, student, steps=1) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.fast_rows(1)
    @pytest.mark.parametrize("kinds", [("sigmoid", "softmax"), (None, None), (None, "softmax")])
    def test_a_teacher_of_one_for_a_student_of_two(self, kinds):
        teacher, student = net(1, kinds[0], seed=1, units=6), net(2, kinds[1], seed=2)
        expected = soft_targets(of_two(logits(teacher)), logits(student))
        assert distillation_loss(teacher, student, steps=1) == pytest.approx(expected, rel=1e-5)

    def test_the_gradient_in_a_tf_keras_student(self):
        teacher, student = net(1, "sigmoid", seed=1), net(2, "softmax", seed=2)
        z = logits(student)
        flat = keras_kd.compression.to_tf_keras(student)
        before = flat.get_weights()[-1]
        distiller = keras_kd.Distiller(teacher, flat, SoftTargets(2.0), student_loss_weight=0)
        distiller.compile(keras.optimizers.SGD(1.0))
        distiller.fit(X, batch_size=16, verbose=0)
        p, q = np.exp(log_softmax(of_two(logits(teacher)) / 2)), np.exp(log_softmax(z / 2))
        gradient = 2.0 * np.mean(q - p, axis=0)
        np.testing.assert_allclose(before - flat.get_weights()[-1], gradient, atol=1e-5)

    def test_a_mean_of_members_is_exact_at_any_temperature(self):
        members, student = [net(2, "softmax", 1), net(2, "softmax", 3)], net(1, "sigmoid", 2)
        p = np.mean([np.exp(log_softmax(logits(member) / 5)) for member in members], axis=0)
        q = log_softmax(of_two(logits(student)) / 5)
        expected = 25 * np.mean(np.sum(p * (np.log(p) - q), axis=-1))
        assert distillation_loss(members, student, SoftTargets(5.0)) == pytest.approx(
            expected, rel=1e-4
        )

    def test_logits_are_compared_where_both_are_classifiers(self):
        teacher, student = net(2, "softmax", seed=1), net(1, "sigmoid", seed=2)
        z = logits(teacher)
        expected = np.mean((z[:, 1:] - z[:, :1] - logits(student)) ** 2)
        assert distillation_loss(teacher, student, LogitsMSE()) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(
        ("kinds", "loss"),
        [((None, None), LogitsMSE()), (("sigmoid", "sigmoid"), SoftTargets())],
        ids=["numbers", "two labels"],
    )
    def test_what_is_something_else_is_refused(self, kinds, loss):
        with pytest.raises(ValueError, match="one unit and a sigmoid, or two units and a softmax"):
            distillation_loss(net(2, kinds[0], 1), net(1, kinds[1], 2), loss)


class TestClasses:
    def test_a_teacher_of_many_for_a_student_of_some(self):
        teacher, student = net(9, "softmax", seed=1), net(3, seed=2)
        expected = soft_targets(logits(teacher)[:, [7, 2, 4]], logits(student))
        for classes in ({7: 0, 2: 1, 4: 2}, [None, None, 1, None, 2, None, None, 0, None]):
            for taught in (
                ModelTeacher(teacher, classes=classes),
                Ensemble([teacher], classes=[classes]),
            ):
                assert distillation_loss(taught, student) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.fast_rows(1)
    @pytest.mark.parametrize("activation", [None, "softmax"])
    def test_a_student_of_more_learns_the_others_from_labels(self, activation):
        teacher, student = net(3, seed=1), net(6, activation, seed=2)
        z = logits(student)
        for classes in ([5, 0, 2], {0: 5, 1: 0, 2: 2}):
            for taught in (
                ModelTeacher(teacher, classes=classes),
                Ensemble([teacher], classes=[classes]),
            ):
                expected = soft_targets(logits(teacher), z[:, [5, 0, 2]])
                assert distillation_loss(taught, student) == pytest.approx(expected, rel=1e-5)
        kernel = student.get_layer("end").get_weights()[0]
        distillation_loss(ModelTeacher(teacher, classes=[5, 0, 2]), student, steps=1)
        changed = student.get_layer("end").get_weights()[0] != kernel
        np.testing.assert_array_equal(changed.any(axis=0), [True, False, True, False, False, True])

    @pytest.mark.parametrize("who", ["teacher", "student"])
    def test_models_of_tf_keras(self, who):
        teacher, student = net(4, seed=1), net(6, "softmax", seed=2)
        expected = soft_targets(logits(teacher)[:, [1, 0, 3]], logits(student)[:, [0, 2, 5]])
        if who == "teacher":
            teacher = keras_kd.compression.to_tf_keras(teacher)
        else:
            student = keras_kd.compression.to_tf_keras(student)
        taught = ModelTeacher(teacher, classes=[2, 0, None, 5])
        assert distillation_loss(taught, student) == pytest.approx(expected, rel=1e-5)

    def test_members_that_know_parts_of_the_classes(self):
        members, student = [net(2, seed=1, name="a"), net(2, seed=3, name="b")], net(6, seed=2)
        taught = Ensemble(members, [1, 3], classes=[[1, 4], [5, 1]])
        p = np.zeros((16, 3))
        p[:, [0, 1]] += 0.25 * np.exp(log_softmax(logits(members[0]) / 2))
        p[:, [2, 0]] += 0.75 * np.exp(log_softmax(logits(members[1]) / 2))
        q = log_softmax(logits(student)[:, [1, 4, 5]] / 2)
        expected = 4 * np.mean(np.sum(p * (np.log(p) - q), axis=-1))
        assert distillation_loss(taught, student) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("sizes", [(11, 8), (8, 11)])
    def test_a_padded_vocabulary(self, sizes):
        teacher, student = net(sizes[0], seed=1), net(sizes[1], seed=2)
        taught = ModelTeacher(teacher, classes={n: n for n in range(8)})
        expected = soft_targets(logits(teacher)[:, :8], logits(student)[:, :8])
        assert distillation_loss(taught, student) == pytest.approx(expected, rel=1e-5)
        expected = np.mean((logits(teacher)[:, :8] - logits(student)[:, :8]) ** 2)
        assert distillation_loss(taught, student, LogitsMSE()) == pytest.approx(expected, rel=1e-5)

    def test_the_message_about_other_classes_says_how(self):
        teacher, student = net(11, seed=1), net(8, seed=2)
        with pytest.raises(ValueError, match=r"ModelTeacher\(teacher, classes=") as caught:
            keras_kd.Distiller(teacher, student)
        assert "classes={n: n for n in range(8)}" in str(caught.value)
        keras_kd.Distiller(ModelTeacher(teacher, classes={n: n for n in range(8)}), student)

    def test_classes_that_the_student_does_not_have(self):
        taught = ModelTeacher(net(3), classes=[0, 1, 7])
        with pytest.raises(ValueError, match="a teacher of the class 7 for a student's output"):
            keras_kd.Distiller(taught, net(5))

    def test_they_are_saved(self, tmp_path):
        teacher = ModelTeacher(net(9, seed=1), classes={7: 0, 2: 1, 4: 2})
        distiller = keras_kd.Distiller(teacher, net(3, seed=2))
        distiller.save(tmp_path / "all.keras")
        loaded = keras.models.load_model(tmp_path / "all.keras")
        said = [np.asarray(each.teacher(X, None).outputs) for each in (distiller, loaded)]
        np.testing.assert_array_equal(*said)
        assert said[0].shape == (16, 3)

    def test_hidden_layers_are_read_as_before(self):
        teacher = ModelTeacher(net(9, seed=1), classes={7: 0, 2: 1, 4: 2})
        student = net(3, seed=2)
        features = [
            np.asarray(keras.Model(model.input, model.get_layer("hidden").output)(X), "float64")
            for model in (teacher.model, student)
        ]
        value = distillation_loss(teacher, student, Hint("hidden", "hidden"))
        assert value == pytest.approx(np.mean((features[0] - features[1]) ** 2), rel=1e-5)


@dataclasses.dataclass
class Answer:
    logits: object
    loss: object = None


Named = collections.namedtuple("Named", ["loss", "logits"])


class TestForm:
    @pytest.mark.fast_rows(3)
    @pytest.mark.parametrize(
        "form",
        [
            lambda z: {"logits": z},
            lambda z: {"logits": z, "hidden": z[:, :1]},
            lambda z: {"anything": z},
            lambda z: (z,),
            lambda z: [z],
            Answer,
            lambda z: Named(ops.zeros(()), z),
        ],
        ids=["logits", "logits and more", "one", "tuple", "list", "object", "named tuple"],
    )
    def test_a_single_output_in_something(self, form):
        inner, student = net(3, seed=1), net(3, seed=2)
        expected = soft_targets(logits(inner), logits(student))
        assert distillation_loss(lambda x: form(inner(x)), student) == pytest.approx(
            expected, rel=1e-5
        )

        class Wrapped(keras.Model):
            def call(self, x):
                return form(inner(x))

        model = Wrapped()
        # Compiled, too, where Python must take the form apart.
        steps = int(form is Answer)
        assert distillation_loss(model, student, steps=steps) == pytest.approx(expected, rel=1e-5)

    def test_a_functional_teacher_of_a_dict(self):
        inner = net(3, seed=1)
        teacher = keras.Model(inner.input, {"logits": inner.outputs[0]})
        student = net(3, seed=2)
        expected = soft_targets(logits(inner), logits(student))
        assert distillation_loss(teacher, student) == pytest.approx(expected, rel=1e-5)

    def test_a_student_of_a_dict(self):
        inner, teacher = net(3, seed=1), net(3, seed=2)
        student = keras.Model(inner.input, {"label": inner.outputs[0]})
        expected = soft_targets(logits(teacher), logits(inner))
        assert distillation_loss(teacher, student) == pytest.approx(expected, rel=1e-5)

    def test_several_outputs_are_not_guessed(self):
        inner = net(3, seed=1)
        teacher = keras.Model(inner.input, {"a": inner.outputs[0], "b": inner.outputs[0]})
        with pytest.raises(ValueError, match="the same outputs from both"):
            keras_kd.Distiller(teacher, net(3), DIST())
