"""Errors of the compressions say how to mend them; here that is done, and it works."""

import re

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd import compression
from keras_kd.compression import (
    Blocks,
    MByN,
    Step,
    factorize,
    prune,
    quantize_aware,
    remove_filters,
    strip,
)

from _models import Row, cross_entropy

layers = keras.layers
X = np.random.default_rng(0).random((16, 6), np.float32)
Y = np.arange(16) % 3


def student(**options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="features")
    x = layers.Dense(16, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="logits", **options)(x))


def unbuilt():
    return keras.Sequential([layers.Dense(3)])


def built():
    return keras.Sequential([keras.Input((6,)), layers.Dense(32), layers.Dense(3)])


def subclassed(is_functional=False):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.logits = layers.Dense(16), layers.Dense(3)

        def call(self, x):
            return self.logits(self.hidden(x))

    model = Own()
    model(X[:1])
    inputs = keras.Input((6,))
    return keras.Model(inputs, model.call(inputs)) if is_functional else model


def frozen():
    model = student()
    model.trainable = False
    return model


def thawed():
    # Its layers alone are frozen, as they are in what `remove_filters` makes of a frozen model.
    model = student()
    for layer in model.layers:
        layer.trainable = False
    for part in (model, *model.layers):
        part.trainable = True
    return model


def quantized_by_keras():
    model = student()
    model.quantize("int8")
    return model


def diverged():
    model = student()
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    return model


def distiller(is_compiled=True):
    made = keras_kd.Distiller(student(), student())
    if is_compiled:
        made.compile("sgd", cross_entropy(), run_eagerly=True)
    return made


def run(steps, made=None, **options):
    return compression.pipeline(steps, made or distiller(), X, Y, verbose=0, **options)


PRUNE, QUANTIZE = Step("prune", epochs=1, sparsity=0.5), Step("quantize_aware", epochs=1)
ROWS = {
    "not built": Row(
        lambda: factorize(unbuilt(), rank=2), r"begin it with keras.Input", lambda: factorize(
            built(), rank=2
        )
    ),
    "subclassed": Row(
        lambda: prune(subclassed(), 0.5),
        r"keras.Model\(inputs, model.call\(inputs\)\)",
        lambda: prune(subclassed(is_functional=True), 0.5),
    ),
    "frozen": Row(
        lambda: prune(frozen(), 0.5),
        r"set trainable = True on the student and on each", lambda: prune(thawed(), 0.5)
    ),
    "quantized by Keras": Row(
        lambda: prune(quantized_by_keras(), 0.5),
        r"take the student as it was before `quantize`",
        lambda: prune(student(), 0.5),
    ),
    "twice quantization-aware": Row(
        lambda: quantize_aware(quantize_aware(student(), X), X),
        r"call `strip` on it first",
        lambda: quantize_aware(strip(quantize_aware(student(), X)), X),
    ),
    "pruned before it is factorized": Row(
        lambda: factorize(prune(student(), 0.5), rank=2),
        r"call `strip` first",
        lambda: factorize(strip(prune(student(), 0.5)), rank=2),
    ),
    "a layer that is not there": Row(
        lambda: prune(student(), 0.5, layers=["hiden"]),
        r"write 'hidden'",
        lambda: prune(student(), 0.5, layers=["hidden"]),
    ),
    "too small for a pattern": Row(
        lambda: prune(student(), 0.5, layers=["hidden"], pattern=Blocks((8, 16))),
        r"\['hidden'\], whose kernels are too small.*pass skip=\['hidden'\], or a smaller pattern",
        lambda: prune(student(), 0.5, layers=["hidden"], pattern=Blocks((4, 1))),
    ),
    "a pattern of another sparsity": Row(
        lambda: prune(student(), 0.8, pattern=MByN(2, 4)),
        r"leave `sparsity` out",
        lambda: prune(student(), pattern=MByN(2, 4)),
    ),
    "no criterion": Row(
        lambda: factorize(student()), r"energy=0.8 keeps", lambda: factorize(built(), energy=0.5)
    ),
    "nothing gets smaller": Row(
        lambda: factorize(student(), rank=16),
        r"a lower rank or energy",
        lambda: factorize(student(), rank=2),
    ),
    "a target too low": Row(
        lambda: factorize(student(), target_parameters=10),
        r"raise the target",
        lambda: factorize(student(), target_parameters=140),
    ),
    "a student that diverged": Row(
        lambda: factorize(diverged(), rank=2),
        r"trained without diverging",
        lambda: factorize(student(), rank=2),
    ),
    "no filter leaves": Row(
        lambda: remove_filters(student(), share=0.01),
        r"pass a larger share",
        lambda: remove_filters(student(), share=0.25),
    ),
    "a range without zero": Row(
        lambda: quantize_aware(student(), X, input_range=(0.5, 1)),
        r"pass input_range=\(0, 1\)",
        lambda: quantize_aware(student(), X, input_range=(0, 1)),
    ),
    "too many bits": Row(
        lambda: quantize_aware(student(), X, weight_bits=16),
        r"pass weight_bits=8",
        lambda: quantize_aware(student(), X, weight_bits=8),
    ),
    "steps in another order": Row(
        lambda: run([QUANTIZE, PRUNE]), r"order the steps as", lambda: run([PRUNE, QUANTIZE])
    ),
    "a distiller that is not compiled": Row(
        lambda: run([PRUNE], distiller(is_compiled=False)),
        r"call distiller.compile\(",
        lambda: run([PRUNE]),
    ),
    "epochs for all steps": Row(
        lambda: run([PRUNE], epochs=3),
        r"write Step\(\"prune\", epochs=3\)",
        lambda: run([Step("prune", epochs=3, sparsity=0.5)]),
    ),
}  # fmt: skip
SLOW = ("steps in another order", "epochs for all steps", "a distiller that is not compiled")


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name, marks=[pytest.mark.slow] * (name in SLOW))
        for name, row in ROWS.items()
    ],
)
@pytest.mark.filterwarnings("ignore:Received a training:UserWarning")
def test_advice_works(row):
    with pytest.raises((ValueError, TypeError), match=r"Received .*To fix it: ") as error:
        row.provoke()
    assert re.search(row.message, str(error.value)), error.value
    row.follow()
