"""The mean of several teachers against NumPy in double precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import ops

import keras_kd
from keras_kd._logits import recognise_logits
from keras_kd.losses import LogitsMSE, SoftTargets
from keras_kd.taps import Tapped
from keras_kd.teachers import (
    Ensemble,
    Function,
    LastExit,
    ModelTeacher,
    NumpyFunction,
    as_teacher,
)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def normal(*shape, seed=0, scale=3.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


def says(logits, activation=None):
    """A teacher that says the same whatever it is asked."""
    tensor = ops.convert_to_tensor(np.asarray(logits, dtype="float32"))
    return lambda inputs: tensor if activation is None else activation(tensor)


def asked(ensemble):
    return ensemble(ops.zeros((1, 1)), None).outputs


def kl_and_gradient(probabilities, student, temperature):
    """T^2 KL(p || softmax(student / T)), the mean over examples, and its gradient."""
    q = softmax(student / temperature)
    p = np.where(probabilities > 0, probabilities, 1.0)
    values = np.sum(probabilities * (np.log(p) - np.log(q)), axis=-1)
    rows = values.size
    return temperature**2 * values.mean(), temperature * (q - probabilities) / rows


def loss_and_gradient(loss, teacher_output, student, **kwargs):
    student = tf.Variable(student.astype("float32"))
    with tf.GradientTape() as tape:
        value = loss.compute_loss(teacher_output, tf.identity(student), **kwargs)
    return float(value), np.asarray(tape.gradient(value, student))


def close(received, expected):
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("activation", [None, keras.activations.softmax])
def test_the_mean_of_probabilities_is_taken_at_the_temperature_of_the_loss(temperature, activation):
    members, student = normal(3, 6, 5), normal(6, 5, seed=1)
    weights = np.array([1.0, 2.0, 5.0])
    ensemble = Ensemble([says(z, activation) for z in members], weights)
    p = np.tensordot(weights / 8, softmax(members / temperature), axes=1)
    value, gradient = kl_and_gradient(p, student, temperature)
    received = loss_and_gradient(SoftTargets(temperature), asked(ensemble), student)
    close(received[0], value)
    close(received[1], gradient)


def test_a_schedule_of_temperatures_reaches_the_mean():
    members, student = normal(2, 4, 3), normal(4, 3, seed=1)
    output = asked(Ensemble([says(z) for z in members]))
    loss = SoftTargets(lambda step: 1.0 + ops.cast(step, "float32"))
    for step in (0, 3):
        p = softmax(members / (1 + step)).mean(axis=0)
        value, gradient = kl_and_gradient(p, student, 1 + step)
        received = loss_and_gradient(loss, output, student, step=step)
        close(received[0], value)
        close(received[1], gradient)


@pytest.mark.parametrize("classes", [1, 4])
def test_sigmoid_members_are_averaged_class_by_class(classes):
    members, student = normal(2, 5, classes), normal(5, classes, seed=1)
    output = asked(Ensemble([says(z, keras.activations.sigmoid) for z in members], [3, 1]))
    p = 0.75 * sigmoid(members[0] / 2) + 0.25 * sigmoid(members[1] / 2)
    q = sigmoid(student / 2)
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    received = loss_and_gradient(SoftTargets(2.0), output, student)
    close(received[0], 4 * kl.mean())
    close(received[1], 2 * (q - p) / p.size)


def test_the_output_itself_is_the_logits_of_the_mean_at_temperature_1():
    members = normal(2, 6, 5)
    output = asked(Ensemble([says(z) for z in members]))
    np.testing.assert_allclose(
        softmax(np.asarray(output)), softmax(members).mean(axis=0), atol=1e-6
    )


def test_the_mean_of_logits():
    members, student = normal(2, 6, 5), normal(6, 5, seed=1)
    ensemble = Ensemble(
        [says(z, keras.activations.softmax) for z in members], [1, 3], average="logits"
    )
    mean = 0.25 * members[0] + 0.75 * members[1]
    value, gradient = kl_and_gradient(softmax(mean / 4), student, 4.0)
    received = loss_and_gradient(SoftTargets(4.0), asked(ensemble), student)
    close(received[0], value)
    close(received[1], gradient)
    assert recognise_logits(asked(ensemble)).activation == "softmax"


def test_the_mean_of_regressions_of_any_rank():
    members, student = normal(2, 6), normal(6, seed=1)
    output = asked(Ensemble([says(z) for z in members], [1, 3], average="logits"))
    np.testing.assert_allclose(output, 0.25 * members[0] + 0.75 * members[1], rtol=1e-5)
    assert output.shape == student.shape


def test_extreme_logits_stay_finite():
    members = np.array([[[1e4, 0.0, -1e4]], [[0.0, 1e4, -1e4]]])
    output = asked(Ensemble([says(z) for z in members]))
    value, gradient = loss_and_gradient(SoftTargets(1.0), output, np.zeros((1, 3)))
    assert value == pytest.approx(np.log(3) - np.log(2), rel=1e-5)
    np.testing.assert_allclose(gradient, [[1 / 3 - 1 / 2, 1 / 3 - 1 / 2, 1 / 3]], atol=1e-6)


class TestClasses:
    def test_disjoint_experts_share_the_probability_by_weight(self):
        first, second, student = normal(4, 3), normal(4, 2, seed=5), normal(4, 5, seed=1)
        ensemble = Ensemble([says(first), says(second)], [2, 1], classes=[[0, 2, 4], [3, 1]])
        p = np.zeros((4, 5))
        p[:, [0, 2, 4]] = 2 / 3 * softmax(first / 3)
        p[:, [3, 1]] = 1 / 3 * softmax(second / 3)
        value, gradient = kl_and_gradient(p, student, 3.0)
        received = loss_and_gradient(SoftTargets(3.0), asked(ensemble), student)
        close(received[0], value)
        close(received[1], gradient)

    @pytest.mark.parametrize("everything", [None, [0, 1, 2, 3]])
    def test_overlapping_experts_add_what_each_gives_a_class(self, everything):
        first, second, student = normal(4, 4), normal(4, 2, seed=5), normal(4, 4, seed=1)
        ensemble = Ensemble([says(first), says(second)], classes=[everything, [1, 2]])
        p = 0.5 * softmax(first)
        p[:, [1, 2]] += 0.5 * softmax(second)
        np.testing.assert_allclose(p.sum(axis=-1), 1.0)
        value, gradient = kl_and_gradient(p, student, 1.0)
        received = loss_and_gradient(SoftTargets(1.0), asked(ensemble), student)
        close(received[0], value)
        close(received[1], gradient)

    def test_a_sigmoid_class_is_the_mean_of_those_who_know_it(self):
        first, second = normal(4, 2), normal(4, 2, seed=5)
        members = [says(z, keras.activations.sigmoid) for z in (first, second)]
        output = asked(Ensemble(members, [1, 3], classes=[[0, 1], [1, 2]]))
        for temperature in (1.0, 4.0):
            p = np.empty((4, 3))
            p[:, 0] = sigmoid(first[:, 0] / temperature)
            p[:, 1] = 0.25 * sigmoid(first[:, 1] / temperature)
            p[:, 1] += 0.75 * sigmoid(second[:, 0] / temperature)
            p[:, 2] = sigmoid(second[:, 1] / temperature)
            logits = recognise_logits(output).at(temperature, "sigmoid")
            np.testing.assert_allclose(sigmoid(np.asarray(logits) / temperature), p, atol=1e-6)

    def test_a_logit_is_the_mean_of_those_who_know_the_class(self):
        first, second = normal(4, 2), normal(4, 2, seed=5)
        ensemble = Ensemble(
            [says(first), says(second)], [1, 3], average="logits", classes=[[0, 1], [1, 2]]
        )
        middle = 0.25 * first[:, 1] + 0.75 * second[:, 0]
        expected = np.stack([first[:, 0], middle, second[:, 1]], axis=-1)
        np.testing.assert_allclose(asked(ensemble), expected, rtol=1e-5)

    def test_unknown_classes_neither_overflow_nor_become_nan(self):
        output = asked(Ensemble([says([[5.0]]), says([[1.0, 2.0]])], classes=[[0], [1, 2]]))
        for temperature in (1e-3, 1.0, 1e4):
            received = loss_and_gradient(SoftTargets(temperature), output, np.ones((1, 3)))
            assert np.isfinite(received[0])
            assert np.all(np.isfinite(received[1]))

    def test_a_class_that_nobody_knows_is_refused(self):
        ensemble = Ensemble([says([[5.0]]), says([[1.0, 2.0]])], classes=[[0], [1, 3]])
        with pytest.raises(ValueError, match=r"no member has the classes \[2\]. Expected every"):
            asked(ensemble)

    def test_as_many_classes_as_columns(self):
        ensemble = Ensemble([says([[5.0, 1.0]])], classes=[[0, 1, 2]])
        with pytest.raises(ValueError, match=r"Received 3 classes for .* shape \(1, 2\)"):
            asked(ensemble)

    @pytest.mark.parametrize("classes", [[0, 0], [-1, 2], ["a"], [], [0.5], 3])
    def test_bad_lists(self, classes):
        with pytest.raises(ValueError, match="a list of different class indexes, from 0, or None"):
            Ensemble([says([[5.0, 1.0]])], classes=[classes])


class TestOutputs:
    def test_each_member_teaches_a_part_and_shared_parts_are_averaged(self):
        a, b, box = normal(4, 3), normal(4, 3, seed=1), normal(4, 2, seed=2)
        ensemble = Ensemble(
            [lambda x: {"label": says(a)(x), "box": says(box)(x)}, says(b)],
            [1, 3],
            average="logits",
            outputs=[["label", "box"], "label"],
        )
        said = asked(ensemble)
        assert list(said) == ["label", "box"]
        np.testing.assert_allclose(said["label"], 0.25 * a + 0.75 * b, rtol=1e-5)
        np.testing.assert_allclose(said["box"], box, rtol=1e-6)

    def test_an_output_of_one_member_is_passed_on(self):
        box = normal(4, 2)
        said = asked(Ensemble([says(normal(4, 3)), says(box)], outputs=["label", "box"]))
        np.testing.assert_allclose(said["box"], box, rtol=1e-6)

    def test_indexes_give_a_list(self):
        said = asked(Ensemble([says([[1.0]]), says([[2.0]])], outputs=[1, 0]))
        assert [float(x[0, 0]) for x in said] == [2.0, 1.0]

    def test_names_that_a_member_has_not(self):
        ensemble = Ensemble([lambda x: {"a": x, "b": x}], outputs=[["a", "c"]])
        with pytest.raises(ValueError, match=r"outputs=\['a', 'c'\] for .* has \['a', 'b'\]"):
            asked(ensemble)

    def test_single_outputs_among_named_ones(self):
        ensemble = Ensemble([lambda x: {"a": x, "b": x}, lambda x: x])
        with pytest.raises(ValueError, match="None being a single output"):
            asked(ensemble)

    def test_keys_of_a_wrong_type(self):
        with pytest.raises(ValueError, match=r"Received 0.5 among outputs"):
            Ensemble([says([[1.0]])], outputs=[0.5])


def test_members_of_other_shapes_are_refused():
    ensemble = Ensemble([says([[1.0, 2.0]]), says([[1.0, 2.0, 3.0]])])
    with pytest.raises(ValueError, match="Expected outputs of one shape from all members"):
        asked(ensemble)


def test_softmax_and_sigmoid_are_not_mixed():
    z = normal(2, 3)
    ensemble = Ensemble([says(z, keras.activations.softmax), says(z, keras.activations.sigmoid)])
    with pytest.raises(ValueError, match="Expected one kind of output from all members"):
        asked(ensemble)


@pytest.mark.parametrize("weights", [[1, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_are_positive_and_finite(weights):
    with pytest.raises(ValueError, match="Expected a finite number above 0"):
        Ensemble([says([[1.0]])] * 2, weights)


@pytest.mark.parametrize("argument", ["weights", "outputs", "classes"])
def test_one_entry_per_member(argument):
    with pytest.raises(ValueError, match=f"{argument}=.* for 2 teachers. Expected one entry per"):
        Ensemble([says([[1.0]])] * 2, **{argument: [None]})


def test_a_list_of_teachers():
    with pytest.raises(ValueError, match="Expected a list of one model or more"):
        Ensemble([])
    with pytest.raises(ValueError, match="Expected one of 'probabilities', 'logits'"):
        Ensemble([says([[1.0]])], average="votes")


def test_members_take_the_same_inputs(dense_model):
    other = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)], name="other")
    with pytest.raises(ValueError, match=r"members for inputs of shape .* in 'other'"):
        Ensemble([dense_model(), other])


def test_an_ensemble_in_an_ensemble_counts_as_its_members():
    members = normal(3, 6, 5)
    nested = Ensemble([[says(members[0]), says(members[1])], says(members[2])], [2, 1])
    flat = Ensemble([says(z) for z in members])
    for temperature in (1.0, 3.0):
        logits = [recognise_logits(asked(x)).at(temperature, "softmax") for x in (nested, flat)]
        np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)


def test_an_ensemble_of_one_equals_its_member(dense_model, examples):
    model = dense_model(activation="softmax", seed=4)
    student = normal(20, 3, seed=1)
    one = Ensemble([model])(examples[0], None).outputs
    received = loss_and_gradient(SoftTargets(3.0), one, student)
    expected = loss_and_gradient(SoftTargets(3.0), model(examples[0]), student)
    close(received[0], expected[0])
    close(received[1], expected[1])


def test_hidden_layers_by_the_name_of_the_member(dense_model, examples):
    first, second = dense_model(seed=1, name="first"), dense_model(seed=2, name="second")
    ensemble = Ensemble([first, second])
    ensemble.tap(["second/hidden", "first/hidden"])
    features = ensemble(examples[0], None).features
    for model in (first, second):
        np.testing.assert_allclose(
            features[f"{model.name}/hidden"], model.layers[0](examples[0]), rtol=1e-6
        )
    assert set(ensemble.shapes(None).features) == {"first/hidden", "second/hidden"}


def test_hidden_layers_need_names_of_one_member(dense_model):
    twins = Ensemble([dense_model(name="twin"), dense_model(name="twin")])
    for name in ("twin/hidden", "hidden", "twin"):
        with pytest.raises(ValueError, match="Expected the name of one member, a slash, and"):
            twins.tap([name])
    with pytest.raises(ValueError, match="layer name 'absent' for model 'twin'"):
        Ensemble([dense_model(name="twin")]).tap(["twin/absent"])


def test_models_and_jit_of_all_members(dense_model):
    first, second = dense_model(name="first"), dense_model(name="second")
    ensemble = Ensemble([first, [second]])
    assert ensemble.models == [first, second]
    assert ensemble.supports_jit
    assert not Ensemble([first, NumpyFunction(lambda x: x, (3,))]).supports_jit
    assert ensemble.shapes(None).outputs.shape == (None, 3)
    assert Ensemble([first, says([[1.0]])]).shapes(None) is None


def test_shapes_of_parts(dense_model):
    ensemble = Ensemble([dense_model(3), dense_model(2)], classes=[[0, 1, 2], [3, 4]])
    assert ensemble.shapes(None).outputs.shape == (None, 5)
    with pytest.raises(ValueError, match="no member has the classes"):
        Ensemble([dense_model(3)], classes=[[0, 1, 3]]).shapes(None)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_averaged_in_float32(dtype):
    members, student = normal(2, 6, 5).astype("float16"), normal(6, 5, seed=1)
    halves = [tf.cast(z, dtype) for z in members]
    output = asked(Ensemble([lambda x, z=z: z for z in halves]))
    assert output.dtype == "float32"
    p = softmax(np.stack([np.asarray(tf.cast(z, "float64")) for z in halves]) / 2).mean(axis=0)
    value, _ = kl_and_gradient(p, student, 2.0)
    close(loss_and_gradient(SoftTargets(2.0), output, student)[0], value)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("classes", [None, [[0, 1, 2], [1, 2, 3]]])
def test_compiled_steps_compute_the_same(jit_compile, classes):
    members, student = normal(2, 6, 3).astype("float32"), normal(6, 3 if classes is None else 4)
    student = ops.convert_to_tensor(student.astype("float32"))

    def loss(first, second):
        ensemble = Ensemble(
            [lambda x: ops.softmax(first), lambda x: ops.softmax(second)], classes=classes
        )
        return SoftTargets(3.0).compute_loss(asked(ensemble), student)

    compiled = tf.function(loss, jit_compile=jit_compile)
    arguments = [ops.convert_to_tensor(z) for z in members]
    assert float(compiled(*arguments)) == pytest.approx(float(loss(*arguments)), rel=1e-5)


def test_no_gradient_flows_into_the_members():
    first, second = tf.Variable(normal(4, 3)), tf.Variable(normal(4, 3, seed=1))
    with tf.GradientTape() as tape:
        output = asked(Ensemble([lambda x: first, lambda x: second]))
        value = SoftTargets(2.0).compute_loss(output, tf.zeros((4, 3)))
    assert tape.gradient(value, [first, second]) == [None, None]


def test_losses_without_temperature_see_the_mean_at_1():
    members, student = normal(2, 4, 3, scale=1.0), normal(4, 3, seed=1)
    output = asked(Ensemble([says(z) for z in members]))
    mean = np.log(softmax(members).mean(axis=0))
    value, _ = loss_and_gradient(LogitsMSE(), output, student)
    assert value == pytest.approx(np.mean((mean - student) ** 2), rel=1e-5)


def test_tf_keras_and_keras_3_members_together(dense_model, examples):
    old = tf_keras.Sequential(
        [tf_keras.layers.InputLayer((5,)), tf_keras.layers.Dense(3, activation="softmax")]
    )
    new = dense_model(activation="softmax")
    output = Ensemble([old, new])(examples[0], None).outputs
    expected = (np.asarray(old(examples[0])) + np.asarray(new(examples[0]))) / 2
    np.testing.assert_allclose(softmax(np.asarray(output)), expected, atol=1e-6)


def test_configuration_round_trip(dense_model, examples):
    models = [dense_model(3, seed=1, name="a"), dense_model(2, seed=2, name="b")]
    ensemble = Ensemble(models, [1, 2], classes=[[0, 1, 2], [2, 3]], name="both")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ensemble))
    for model, copy in zip(models, again.models, strict=True):
        copy.set_weights(model.get_weights())
    np.testing.assert_allclose(
        again(examples[0], None).outputs, ensemble(examples[0], None).outputs, rtol=1e-6
    )
    assert again.name == "both"
    assert all(isinstance(teacher, ModelTeacher) for teacher in again.teachers)


class TestTraining:
    def test_the_loss_of_a_distiller_is_that_of_the_mean(self, dense_model, student, examples):
        x, _ = examples
        models = [dense_model(seed=1, activation="softmax"), dense_model(seed=7)]
        distiller = keras_kd.Distiller(models, student, SoftTargets(3.0), student_loss_weight=0)
        distiller.compile("sgd", run_eagerly=True)
        logits = [np.asarray(models[0].layers[0](x)), np.asarray(models[1](x))]
        last = models[0].layers[1]
        logits[0] = logits[0] @ np.asarray(last.kernel) + np.asarray(last.bias)
        p = np.mean([softmax(z.astype("float64") / 3) for z in logits], axis=0)
        value, _ = kl_and_gradient(p, np.asarray(student(x), dtype="float64"), 3.0)
        logs = distiller.evaluate(x, batch_size=20, verbose=0, return_dict=True)
        assert logs["distillation_loss"] == pytest.approx(value, rel=1e-5)

    def test_members_do_not_change_and_files_hold_all_of_them(
        self, dense_model, student, examples, hard_loss, tmp_path
    ):
        models = [dense_model(seed=1, name="a"), dense_model(seed=7, name="b")]
        before = [weight for model in models for weight in model.get_weights()]
        distiller = keras_kd.Distiller(Ensemble(models, [1, 2]), student)
        distiller.compile("sgd", hard_loss, run_eagerly=True)
        distiller.fit(*examples, verbose=0)
        after = [weight for model in models for weight in model.get_weights()]
        assert all(map(np.array_equal, before, after))
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
        assert [x.name for x in loaded.teacher.models] == ["a", "b"]
        assert loaded.evaluate(*examples, verbose=0) == pytest.approx(
            distiller.evaluate(*examples, verbose=0), rel=1e-5
        )

    def test_a_loss_reads_a_layer_of_one_member(self, dense_model, student, examples, hard_loss):
        models = [dense_model(seed=1, name="a"), dense_model(seed=7, name="b")]
        hint = keras_kd.losses.Hint("b/hidden", "hidden")
        distiller = keras_kd.Distiller(models, student, hint, student_loss_weight=0)
        distiller.compile("sgd", run_eagerly=True)
        x = examples[0]
        expected = np.mean((np.asarray(models[1].layers[0](x)) - student.layers[0](x)) ** 2)
        logs = distiller.evaluate(x, batch_size=20, verbose=0, return_dict=True)
        assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)


def test_call_gives_what_a_forward_pass_gives(dense_model, examples):
    assert isinstance(Ensemble([dense_model()])(examples[0], None), Tapped)


def test_stored_teachers_are_no_members(dense_model, tmp_path):
    stored = keras_kd.teachers.StoredTeacher.create(
        dense_model(), np.zeros((4, 5), "float32"), tmp_path / "s"
    )
    with pytest.raises(
        ValueError, match=r"stored teachers .* as members.*store the outputs of the ensemble"
    ):
        keras_kd.teachers.Ensemble([stored, dense_model()])


def test_models_of_either_keras(teacher):
    old = tf_keras.Sequential([tf_keras.layers.Dense(3)])
    for model in (teacher, old):
        found = as_teacher(model)
        assert isinstance(found, ModelTeacher)
        assert found.model is model


def test_lists_functions_and_teachers(teacher):
    assert isinstance(as_teacher([teacher, teacher]), Ensemble)
    assert isinstance(as_teacher((teacher,)), Ensemble)
    assert isinstance(as_teacher(lambda x: x), Function)
    assert isinstance(as_teacher(keras.layers.Dense(3)), Function)
    own = LastExit()
    assert as_teacher(own) is own


@pytest.mark.parametrize("value", [None, "teacher.keras", 3, np.ones(2), keras.Model])
def test_anything_else(value):
    with pytest.raises(ValueError, match=r"Received teacher=.* Expected a keras.Model or a"):
        as_teacher(value)
    with pytest.raises(ValueError, match=r"Expected a list of one model or more"):
        as_teacher([])


def test_the_distiller_has_a_teacher_of_one_type(teacher, student):
    assert keras_kd.Distiller(teacher, student).teacher.model is teacher
    ensemble = Ensemble([teacher])
    assert keras_kd.Distiller(ensemble, student).teacher is ensemble
