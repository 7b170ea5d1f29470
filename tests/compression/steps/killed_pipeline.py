"""A pipeline that `test_pipeline.py` kills: python killed_pipeline.py DIRECTORY RESULT."""

import sys

import keras
import numpy as np
from keras import layers

import keras_kd
from keras_kd.compression import Step, pipeline

directory, result = sys.argv[1:]
keras.utils.set_random_seed(1)
x = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
y = np.random.default_rng(1).integers(0, 3, 40)
student = keras.Sequential(
    [keras.Input((8,)), layers.Dense(8, activation="relu"), layers.Dropout(0.3), layers.Dense(3)]
)
teacher = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
distiller = keras_kd.Distiller(teacher, student)
distiller.compile(
    keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
finished = pipeline(
    [
        Step("prune", epochs=3, sparsity=0.5),
        Step("cluster", epochs=3, num_clusters=4),
        Step("quantize_aware", epochs=3, learning_rate=1e-3),
    ],
    distiller,
    x,
    y,
    batch_size=4,
    directory=directory,
    verbose=0,
    callbacks=[
        keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: print(f"epoch {epoch}", flush=True),
            on_train_batch_end=lambda batch, logs: print(batch, flush=True),
        )
    ],
)
weights = {f"weight_{i}": weight for i, weight in enumerate(finished.student.get_weights())}
np.savez(result, sizes=[stage.compressed_bytes for stage in finished.stages], **weights)
