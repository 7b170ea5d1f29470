"""Losses of Keras in the form of this package's."""

import keras
import numpy as np
import pytest

from keras_kd import losses
from keras_kd.losses.foreign import as_loss


def test_a_loss_of_this_package_is_itself():
    loss = losses.SoftTargets()
    assert as_loss(loss) is loss
    assert loss.original is loss


def test_a_loss_of_keras_reads_what_it_names():
    loss = keras.distillation.FeatureDistillation(
        teacher_layer_name="one", student_layer_name="other"
    )
    adapted = as_loss(loss)
    assert adapted.original is loss
    assert (adapted.layers("teacher"), adapted.layers("student")) == (["one"], ["other"])
    assert not adapted.reads_outputs
    assert adapted.read("student", "outputs", {"other": "features"}) == "features"


def test_logits_distillation_gets_logits():
    probabilities = keras.ops.softmax(np.array([[1.0, 2.0], [0.5, 0.0]], "float32"))
    seen = []

    def difference(y_true, y_pred):
        seen.append((np.array(y_true), np.array(y_pred)))
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    class Probe(keras.distillation.LogitsDistillation):
        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return keras.ops.mean(difference(teacher_outputs, student_outputs))

    loss = as_loss(Probe())
    assert loss.softened == ("teacher", "student")
    logits = np.array([[1.0, 2.0], [0.5, 0.0]], "float32")
    loss.compute_loss(keras.ops.softmax(logits), probabilities)
    # The logits behind a softmax are known but for a number that is added to all of a row.
    for part in seen[0]:
        np.testing.assert_allclose(part[:, 0] - part[:, 1], [-1.0, 0.5], atol=1e-6)


def test_a_value_that_is_no_scalar_is_refused():
    class Wrong(keras.distillation.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return keras.ops.square(teacher_outputs - student_outputs)

    with pytest.raises(ValueError, match=r"shape \(2,\) from Wrong.compute_loss"):
        as_loss(Wrong()).compute_loss(keras.ops.ones(2), keras.ops.zeros(2))
