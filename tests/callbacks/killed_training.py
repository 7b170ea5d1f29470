"""A training that `test_resume_training.py` kills: python killed_training.py DIRECTORY RESULT."""

import sys

import keras
import numpy as np
from keras import layers

import keras_kd

directory, result = sys.argv[1:]
keras.utils.set_random_seed(1)
x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
y = np.random.default_rng(1).integers(0, 3, 40)
student = keras.Sequential(
    [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dropout(0.3), layers.Dense(3)]
)
teacher = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
distiller = keras_kd.Distiller(teacher, student)
distiller.compile(
    keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
history = distiller.fit(
    x,
    y,
    batch_size=4,
    validation_data=(x, y),
    epochs=4,
    verbose=0,
    callbacks=[
        keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: print(batch, flush=True)
        ),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1),
        keras_kd.callbacks.ResumeTraining(directory, save_freq=2),
    ],
).history
weights = {f"weight_{i}": weight for i, weight in enumerate(student.get_weights())}
state = {f"state_{i}": np.asarray(v) for i, v in enumerate(distiller.optimizer.variables)}
np.savez(result, **weights, **state, **{name: np.array(v) for name, v in history.items()})
