"""Hard targets, and DeiT's distillation token: one head learns labels, the other the teacher."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.losses import HardTargets


def two_heads(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(4, "tanh")(inputs)
    heads = {name: keras.layers.Dense(3, name=name)(hidden) for name in ("class", "distillation")}
    return keras.Model(inputs, heads)


def test_one_head_learns_labels_and_the_other_the_teacher(teacher, examples, formulas, hard_loss):
    x, y = examples
    student = two_heads(2)
    distiller = keras_kd.Distiller(teacher, student, HardTargets(outputs="distillation"))
    distiller.compile("sgd", {"class": hard_loss, "distillation": None})
    logs = distiller.evaluate(
        x, {"class": y, "distillation": y}, batch_size=20, verbose=0, return_dict=True
    )
    outputs = student(x)
    decided = np.argmax(teacher(x), axis=-1)
    hard, soft = (
        formulas.cross_entropy(labels, outputs[name].numpy()).mean()
        for name, labels in (("class", y), ("distillation", decided))
    )
    assert logs["student_loss"] == pytest.approx(hard, rel=1e-5)
    assert logs["distillation_loss"] == pytest.approx(soft, rel=1e-5)
    assert logs["total_loss"] == pytest.approx(0.5 * hard + 0.5 * soft, rel=1e-5)


def test_only_the_named_output_of_the_teachers_is_decided(examples):
    teacher, student = np.eye(3, dtype="float32")[None], np.zeros((1, 3, 3), "float32")
    assert float(HardTargets().compute_loss(teacher, student)) == pytest.approx(np.log(3))
    with pytest.raises(ValueError, match=r"outputs=\['absent'\].*the student \['class', 'dist"):
        keras_kd.Distiller(two_heads(1), two_heads(2), HardTargets(outputs="absent"))


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_label_smoothing_is_a_share(value):
    with pytest.raises(ValueError, match=r"label_smoothing=.*at least 0 and at most 1"):
        HardTargets(value)
