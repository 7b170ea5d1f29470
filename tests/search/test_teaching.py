"""Losses, judges and deadlines of a search."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers, losses

import keras_kd
from keras_kd.devices import Device
from keras_kd.metrics import MEASURES
from keras_kd.search.code import _loss as code_of_loss
from keras_kd.search.code import code_of
from keras_kd.search.teaching import (
    Deadline,
    Examples,
    Judge,
    Recipe,
    check_labels,
    outputs_of,
    usual_loss,
    warn_of_untrained,
)

PROBABILITIES = np.array([[0.2, 0.8], [0.5, 0.5]], "float32")
LOGITS = np.array([[-2.0, 3.0], [0.0, 1.0]], "float32")


@pytest.mark.parametrize(
    ("task", "outputs", "y", "kind", "from_logits"),
    [
        ("classification", PROBABILITIES, [1, 0], losses.SparseCategoricalCrossentropy, False),
        ("classification", LOGITS, [1, 0], losses.SparseCategoricalCrossentropy, True),
        ("classification", LOGITS, [[0, 1], [1, 0]], losses.CategoricalCrossentropy, True),
        ("classification", LOGITS[:, :1], [1, 0], losses.BinaryCrossentropy, True),
        ("multilabel", PROBABILITIES, [[1, 1], [0, 1]], losses.BinaryCrossentropy, False),
        ("regression", LOGITS, [[0.5, 1], [1, 2]], losses.MeanSquaredError, None),
    ],
)
def test_the_loss_follows_from_the_task(task, outputs, y, kind, from_logits):
    loss = usual_loss(task, outputs, np.array(y))
    assert type(loss) is kind
    assert loss.get_config().get("from_logits") == from_logits
    again = eval(code_of_loss(loss), {"keras": keras})
    assert again.get_config() == loss.get_config()


def test_a_task_without_a_loss_wants_one():
    with pytest.raises(ValueError, match=r"'ranking' without a loss.*pass loss="):
        usual_loss("ranking", LOGITS, np.zeros(2))


def test_losses_of_users_are_variables_in_code():
    class Own(losses.MeanSquaredError):
        pass

    assert code_of_loss(Own()) == "loss"
    assert code_of_loss("mse") == "'mse'"


def model_of(value):
    return keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(1, "linear", True, "zeros", keras.initializers.Constant(value)),
        ]
    )


def test_less_is_better_where_the_measure_is_an_error():
    examples = Examples.of("data", (np.zeros((4, 2)), np.array([[0.5], [1.5], [2.5], [3.5]])))
    judge, outputs = Judge.of(model_of(2.0), examples, None)
    assert (judge.task, judge.measure.name) == ("regression", "mae")
    assert judge.value(outputs) == pytest.approx(1.0)
    assert judge.signed(1.0) > judge.signed(2.0)
    assert judge.of_model(model_of(1.0)) == pytest.approx(1.25)


@pytest.mark.parametrize(("seconds", "steps"), [(0, 1), (None, 8), (3600, 8)])
def test_a_training_ends_with_its_time(seconds, steps):
    model = model_of(0.0)
    model.compile("sgd", "mse")
    deadline = Deadline(seconds)
    options = {"batch_size": 2, "epochs": 2, "verbose": 0, "callbacks": [deadline]}
    model.fit(np.zeros((8, 2)), np.ones((8, 1)), **options)
    assert int(model.optimizer.iterations) == steps
    assert deadline.is_over is (seconds == 0)
    assert deadline.start_seconds > 0


@pytest.mark.parametrize("package", [keras, tf_keras])
def test_a_teacher_with_several_outputs_is_cut_in_its_own_keras(package):
    inputs = package.Input((2,))
    outputs = [package.layers.Dense(1)(inputs), package.layers.Dense(1)(inputs)]
    teacher = package.Model(inputs, outputs)
    examples = Examples.of("data", (np.zeros((4, 2)), np.arange(4.0)[:, None]))
    with pytest.raises(ValueError, match="with several outputs") as caught:
        Judge.of(teacher, examples, None)
    advice = str(caught.value).split("pass ")[1].rstrip(".")
    names = {"keras": keras, "tf_keras": tf_keras, "teacher": teacher}
    judge, _ = Judge.of(eval(advice, names), examples, None)
    assert judge.task == "regression"


@pytest.mark.parametrize("with_examples", [False, True])
def test_code_for_several_inputs_takes_examples_of_each(with_examples):
    class Proposed:
        def code(self):
            return "student = teacher"

    recipe = Recipe(2, 8, 1e-3, 0.1, None, losses.MeanSquaredError(), 0.7, 0)
    device = Device(flash="1 MB", target="android")
    options = {"is_named": True, "is_aware": True, "with_examples": with_examples}
    code = code_of(Proposed(), [(2, 5)], 6, recipe, device, 3, **options)
    x = {"a": np.arange(9), "b": np.arange(9)}
    [some] = re.findall(r"^examples = (.*)$", code, re.MULTILINE)
    assert [len(array) for array in eval(some, {"x_train": x}).values()] == [3, 3]
    assert "quantize_aware(student, examples)" in code
    assert ('"int8", examples, target' in code) is with_examples
    compile(code, "code", "exec")


def test_a_list_of_inputs_gets_their_names():
    inputs = [keras.Input((3,), name="a"), keras.Input((4,), dtype="int32", name="b")]
    x = [np.arange(15).reshape(5, 3), np.zeros((5, 4), int)]
    teacher = keras.Model(inputs, layers.Dense(1)(inputs[0]))
    examples = Examples.of("data", (x, np.zeros(5)), inputs).for_inputs_of(teacher)
    assert {name: array.dtype.kind for name, array in examples.x.items()} == {"a": "f", "b": "i"}
    names = {"x_train": x}
    exec("\n".join(examples.code), names)
    for name, array in examples.x.items():
        np.testing.assert_array_equal(names["x_train"][name], array)
        assert names["x_train"][name].dtype == array.dtype
    with pytest.raises(ValueError, match=r"a list of 1 inputs.*arrays of \(3,\) for 'a', \(4,\)"):
        Examples.of("data", (x[:1], np.zeros(5)), inputs)


def test_a_dataset_is_read_and_the_code_reads_it_alike():
    inputs = [keras.Input((3,), name="a"), keras.Input((4,), name="b")]
    teacher = keras.Model(inputs, layers.Dense(1)(inputs[0]))
    x, y = (np.arange(15.0).reshape(5, 3), np.arange(20).reshape(5, 4)), np.arange(5.0)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(5).batch(2)
    examples = Examples.of("data", dataset, inputs).for_inputs_of(teacher)
    np.testing.assert_array_equal(examples.x["a"], x[0][examples.y.astype(int)])
    assert examples.given == "data"
    names = {"keras_kd": keras_kd, "data": dataset}
    exec("\n".join(examples.code), names)
    np.testing.assert_array_equal(names["y_train"], examples.y)
    for name, array in examples.x.items():
        np.testing.assert_array_equal(names["x_train"][name], array)
        assert names["x_train"][name].dtype == array.dtype


def test_the_code_of_whole_numbers_makes_real_ones():
    x = np.arange(8).reshape(4, 2)
    examples = Examples.of("data", (x, np.zeros(4))).for_inputs_of(model_of(0.0))
    names = {"x_train": x}
    exec("\n".join(examples.code), names)
    assert names["x_train"].dtype == examples.x.dtype == np.float32
    real = Examples.of("data", (x.astype("float32"), np.zeros(4))).for_inputs_of(model_of(0.0))
    assert real.code == ()


@pytest.mark.parametrize(
    ("y", "others", "message"),
    [
        (
            np.eye(2),
            np.array([0, 1]),
            r"labels of shape \(2, 2\), validation_data of \(2,\)",
        ),
        (np.array([1, 2]), np.array([0, 1]), "labels from 1 to 2.*number the classes from 0"),
        (np.array([0, -1]), np.array([0, 1]), "labels from -1 to 0"),
    ],
)
def test_training_labels_of_another_form_are_refused(y, others, message):
    judge = Judge(Examples(LOGITS, others), MEASURES["classification"][0], "classification")
    check_labels(others, judge, LOGITS)
    check_labels(others[:, None], judge, LOGITS)
    with pytest.raises(ValueError, match=message):
        check_labels(y, judge, LOGITS)


def test_labels_of_one_column_may_have_an_axis_or_not():
    judge = Judge(Examples(LOGITS, np.array([0, 1])), MEASURES["classification"][0], "multilabel")
    check_labels(np.array([[0], [1]]), judge, LOGITS[:, :1])


def test_inputs_of_another_shape_are_named():
    examples = Examples.of("data", (np.zeros((4, 3)), np.zeros((4, 1))))
    with pytest.raises(
        ValueError, match=r"shape \(4, 3\) for the input .*examples of shape \(2,\)"
    ):
        Judge.of(model_of(0.0), examples, None)


def two_inputs():
    a, b = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    return keras.Model({"left": a, "right": b}, layers.Dense(1)(layers.Add()([a, b])))


@pytest.mark.parametrize(
    ("x", "given"),
    [
        ({"left": np.zeros((3, 2)), "rigth": np.zeros((3, 2))}, r"the arrays \['left', 'rigth'\]"),
        (np.zeros((3, 2)), "one array"),
    ],
)
def test_inputs_of_other_names_are_refused(x, given):
    message = rf"Received data with {given} for the inputs \['left', 'right'\].*under the name of"
    with pytest.raises(ValueError, match=message):
        outputs_of(two_inputs(), Examples(x, np.zeros(3)), "data")


def test_keys_of_a_dict_may_differ_from_the_names_of_inputs():
    inputs = {"a": keras.Input((2,), name="first"), "b": keras.Input((2,), name="second")}
    model = keras.Model(inputs, layers.Add()(list(inputs.values())))
    x = {"a": np.ones((3, 2)), "b": np.ones((3, 2))}
    np.testing.assert_array_equal(outputs_of(model, Examples(x, np.zeros(3))), np.full((3, 2), 2))


@pytest.mark.parametrize(
    ("task", "y", "good", "bad"),
    [
        # Two thirds are of class 1.
        ("classification", [0, 1, 1], [[2, 0], [0, 2], [0, 2]], [[0, 2], [0, 2], [0, 2]]),
        ("classification", [0, 1, 1], [[-1], [1], [1]], [[1], [1], [1]]),
        ("classification", [[0, 1], [1, 1]], np.eye(2)[[[0, 1], [1, 1]]], np.ones((2, 2, 2))),
        ("multilabel", [[1, 0], [1, 1]], [[0.9, 0.1], [0.9, 0.9]], [[0.1, 0.1], [0.1, 0.1]]),
        ("regression", [[0.0], [4.0]], [[1.0], [3.0]], [[4.0], [0.0]]),
    ],
)
def test_a_teacher_that_knows_nothing_is_warned_of(task, y, good, bad, recwarn):
    judge = Judge(Examples(None, np.array(y)), MEASURES[task][0], task)
    teacher = model_of(0.0)
    warn_of_untrained(teacher, judge, np.array(good, "float32"))
    assert not recwarn
    with pytest.warns(UserWarning, match="no better than that of a constant answer"):
        warn_of_untrained(teacher, judge, np.array(bad, "float32"))
