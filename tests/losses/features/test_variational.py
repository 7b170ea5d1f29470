"""Variational information, and what it learns."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd.losses import VariationalInformation


def test_every_variance_is_5_at_first():
    loss = VariationalInformation()
    assert loss.log_scale is None
    assert loss.weights == []
    loss.build((None, 4, 4, 3), (None, 4, 4, 3))
    assert loss.log_scale.shape == (3,)
    assert loss.weights == [loss.log_scale]
    variance = np.log1p(np.exp(loss.log_scale.numpy())) + 1e-5
    np.testing.assert_allclose(variance, 5.0, rtol=1e-6)


def test_the_variances_learn_how_far_the_student_is():
    random = np.random.default_rng(0)
    teacher = np.zeros((4096, 2), "float32")
    student = random.normal(scale=[0.5, 2.0], size=(4096, 2)).astype("float32")
    loss = VariationalInformation()
    for _ in range(100):
        with tf.GradientTape() as tape:
            value = loss.compute_loss(teacher, student)
        # Newton's method would be faster; plain descent shows that the gradient is there.
        (gradient,) = tape.gradient(value, [loss.log_scale.value])
        loss.log_scale.assign_sub(2.0 * gradient)
    variance = np.log1p(np.exp(loss.log_scale.numpy()))
    np.testing.assert_allclose(variance, [0.25, 4.0], rtol=0.15)


def test_another_number_of_channels_is_refused():
    loss = VariationalInformation()
    loss.build((None, 3), (None, 3))
    loss.build((None, 3), (None, 3))
    with pytest.raises(ValueError, match=r"shape \(None, 4\).*with 3 variances.*for each pair"):
        loss.build((None, 4), (None, 4))


def test_the_number_of_channels_must_be_known():
    with pytest.raises(ValueError, match=r"shape \(None, None\).*a known number of channels"):
        VariationalInformation().build((None, None), (None, None))


def test_several_layers_are_refused():
    message = r"several features \['a', 'b'\].*one VariationalInformation for each pair"
    with pytest.raises(ValueError, match=message):
        VariationalInformation(["a", "b"], ["c", "d"])
    outputs = {"a": np.ones((2, 3)), "b": np.ones((2, 3))}
    with pytest.raises(ValueError, match=message):
        VariationalInformation().compute_loss(outputs, outputs)


def test_an_epsilon_of_0_is_refused():
    with pytest.raises(ValueError, match=r"epsilon=0.*above 0.*such as 1e-5"):
        VariationalInformation(epsilon=0)
