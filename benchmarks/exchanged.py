"""Bytes that replicas exchange in a step, by family of losses: `python benchmarks/exchanged.py`.

Runs one step of a Distiller on two logical CPU devices and adds up what each replica gives to the
collective operations of TensorFlow, gradients of the student aside, which every training exchanges.
Bytes do not depend on the machine: multiply those that grow with the batch by yours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

(_PROCESSOR,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(_PROCESSOR, [tf.config.LogicalDeviceConfiguration()] * 2)

# After the devices, which Keras uses.
import keras  # noqa: E402

import keras_kd  # noqa: E402
from keras_kd import losses  # noqa: E402

BATCH, UNITS, CLASSES = 64, 128, 10
# One for the process: each numbers its collective operations anew, and TensorFlow mixes them up.
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def model(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((32,)),
            keras.layers.Dense(UNITS, activation="relu", name="embedding"),
            keras.layers.Dense(CLASSES, name="logits"),
        ]
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "outputs (SoftTargets)": lambda: losses.SoftTargets(),
    "features (Hint)": lambda: losses.Hint("embedding", "embedding"),
    "outputs of a batch (DIST)": lambda: losses.DIST(),
    "relations (Relational)": lambda: losses.Relational("embedding", "embedding"),
}


def exchanged(loss: Any, *, gather: bool) -> dict[str, int]:
    """What the first replica gives to collective operations in a step, in bytes.

    Counted while the step is traced: of a tensor of examples a replica gathers its half of the
    batch, and sums gradients of all of it.
    """
    sent = {"sums": 0, "gathered": 0}
    context = tf.distribute.ReplicaContext
    originals = {name: getattr(context, name) for name in ("all_reduce", "all_gather")}

    def counting(kind: str, examples: int, original: Callable[..., Any]) -> Callable[..., Any]:
        def called(self: Any, *args: Any, **kwargs: Any) -> Any:
            values = [each for each in args if not isinstance(each, tf.distribute.ReduceOp)]
            if tf.get_static_value(self.replica_id_in_sync_group) == 0:
                for part in tf.nest.flatten(values[0]):
                    sizes = [examples if size is None else size for size in part.shape]
                    sent[kind] += math.prod(sizes) * part.dtype.size
            return original(self, *args, **kwargs)

        return called

    with STRATEGY.scope():
        student = model(2)
        distiller = keras_kd.Distiller(model(1), student, loss, gather_batches=gather)
        distiller.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    x, y = np.ones((BATCH, 32), "float32"), np.zeros(BATCH, "int64")
    counted = {
        "all_reduce": counting("sums", BATCH, originals["all_reduce"]),
        "all_gather": counting("gathered", BATCH // 2, originals["all_gather"]),
    }
    with mock.patch.multiple(context, **counted):
        distiller.fit(x, y, batch_size=BATCH, verbose=0)
    sent["sums"] -= 4 * student.count_params()
    return sent


def main() -> None:
    print(f"a batch of {BATCH} on 2 replicas, {UNITS} units, {CLASSES} classes; bytes per replica")
    for name, loss in FAMILIES.items():
        for gather in (True, False):
            sent = json.dumps(exchanged(loss(), gather=gather))
            print(f"{name:28} gather_batches={gather!s:5} {sent}")


if __name__ == "__main__":
    main()
