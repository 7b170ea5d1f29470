import json
import subprocess
import sys

import numpy as np
import pytest

import keras_kd

# Logical devices are made before TensorFlow begins, so this is a process of its own.
SCRIPT = """
import json, sys
import numpy as np, tensorflow as tf

(processor,) = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(processor, two)
import keras, keras_kd

x, y = np.load("x.npy"), np.load("y.npy")
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    distiller = keras_kd.Distiller(*map(keras.saving.load_model, sys.argv[1:]))
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
history = distiller.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history
weights = [weight.tolist() for weight in distiller.student.get_weights()]
teacher = distiller.teacher.model
teacher.set_weights([weight * np.nan for weight in teacher.get_weights()])
try:
    distiller.fit(x, y, batch_size=8, verbose=0)
except ValueError as error:
    print(json.dumps([history, weights, str(error)]))
"""


@pytest.mark.slow
def test_two_replicas_learn_what_one_learns_and_hear_of_nan(
    dense_model, examples, hard_loss, tmp_path
):
    x, y = (part[:16] for part in examples)
    teacher, student = dense_model(units=6, seed=1), dense_model(seed=2)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    teacher.save(tmp_path / "teacher.keras")
    student.save(tmp_path / "student.keras")
    command = [sys.executable, "-c", SCRIPT, "teacher.keras", "student.keras"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    history, weights, error = json.loads(done.stdout.splitlines()[-1])

    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss)
    alone = distiller.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history
    for one, other in zip(weights, student.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert history.keys() == alone.keys()
    for name, values in history.items():
        np.testing.assert_allclose(values, alone[name], rtol=1e-5, err_msg=name)
    assert error.startswith("Received NaN or infinite outputs from the teacher")
