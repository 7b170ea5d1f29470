"""Trainings of five steps that must end alike on every backend.

`python tests/backends/_cases.py --write` writes what they end with on TensorFlow to `steps.npz`,
with which `test_steps.py` compares each backend, TensorFlow included. Without `--write` it prints
the differences of the backend that `KERAS_BACKEND` names.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_kd
from keras_kd import losses

STEPS = Path(__file__).parent / "steps.npz"
# Five batches, the last one smaller.
EXAMPLES, BATCH = 37, 8
ops = keras.ops


def _random(seed):
    return np.random.default_rng(seed)


X = _random(0).normal(size=(EXAMPLES, 4, 4, 2)).astype("float32")
Y = _random(1).integers(0, 5, EXAMPLES)
WORDS = _random(2).integers(0, 6, (EXAMPLES, 4))
WEIGHTS = _random(3).uniform(0.2, 2.0, EXAMPLES).astype("float32")


def drawn(variables, seed):
    """Give variables values that do not depend on the backend."""
    for number, variable in enumerate(variables):
        values = _random((seed, number)).normal(scale=0.4, size=variable.shape)
        # Variances of BatchNormalization are among them.
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)


def image_model(seed, *, activation=None, normalized=False, regularizer=None):
    """Small images in, five classes out, with a map and a vector to compare."""
    layers = keras.layers
    tensor = inputs = keras.Input((4, 4, 2))
    tensor = layers.Conv2D(3, 2, padding="same", activation="tanh", name="map")(tensor)
    if normalized:
        tensor = layers.BatchNormalization(name="normalized")(tensor)
    tensor = layers.Flatten()(tensor)
    tensor = layers.Dense(
        6, activation="tanh", kernel_regularizer=regularizer, activity_regularizer=regularizer,
        name="vector",
    )(tensor)  # fmt: skip
    model = keras.Model(inputs, layers.Dense(5, activation=activation, name="outputs")(tensor))
    drawn(model.weights, seed)
    return model


def text_model(seed):
    """Words in, of which 0 is padding; a class for each word out."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int64"),
            layers.Embedding(6, 3, mask_zero=True),
            layers.Dense(5, name="outputs"),
        ]
    )
    drawn(model.weights, seed)
    return model


def attention_model(seed):
    """Words in, attention between them, five classes out."""
    layers = keras.layers
    inputs = keras.Input((4,), dtype="int64")
    tensor = layers.Embedding(6, 4, mask_zero=True)(inputs)
    tensor = layers.MultiHeadAttention(2, 2, name="attention")(tensor, tensor)
    tensor = layers.GlobalAveragePooling1D()(tensor)
    model = keras.Model(inputs, layers.Dense(5, name="outputs")(tensor))
    drawn(model.weights, seed)
    return model


def two_outputs(seed):
    """A model with a dict of outputs: classes and a number."""
    inputs = keras.Input((4, 4, 2))
    tensor = keras.layers.Flatten()(inputs)
    outputs = {
        "label": keras.layers.Dense(5, activation="softmax", name="label")(tensor),
        "number": keras.layers.Dense(1, activation="sigmoid", name="number")(tensor),
    }
    model = keras.Model(inputs, outputs)
    drawn(model.weights, seed)
    return model


def cross_entropy(from_logits=True):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def teaching(teacher, student, distillation=None, loss=None, *, metrics=None, **options):
    """A compiled Distiller whose adapters begin alike everywhere."""
    distiller = keras_kd.Distiller(teacher, student, distillation, **options)
    distiller.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss or cross_entropy(), metrics)
    for number, bridge in enumerate(distiller._objective.bridges):
        drawn(bridge.trainable_weights, 100 + number)
    return distiller


def _models(**options):
    return image_model(1), image_model(2, **options)


def _loss(name, reference):
    """The case of a loss of the package, with the layers that it compares."""
    kind = getattr(losses, name)
    if name == "AttentionScores":
        loss = kind("attention", "attention")
        return lambda: (teaching(attention_model(1), attention_model(2), loss), WORDS, Y, {})
    layers = ()
    if issubclass(kind, losses.FeatureLoss):
        shape = reference.student[0] if isinstance(reference.student, list) else reference.student
        layers = ("map", "map") if len(shape) == 3 else ("vector", "vector")
        if isinstance(reference.student, list):
            layers = (["map", "map"], ["map", "map"]) if len(shape) == 3 else layers
    return lambda: (teaching(*_models(), kind(*layers, **reference.arguments)), X, Y, {})


def of_losses(references):
    """A case for each loss."""
    return {f"loss {name}": _loss(name, one) for name, one in references.items()}


def _softmax():
    teacher, student = image_model(1, activation="softmax"), image_model(2, activation="softmax")
    return teaching(teacher, student, loss=cross_entropy(False), metrics=["accuracy"]), X, Y, {}


def _sigmoid():
    teacher, student = image_model(1, activation="sigmoid"), image_model(2, activation="sigmoid")
    y = keras.utils.to_categorical(Y, 5)
    return teaching(teacher, student, loss="binary_crossentropy"), X, y, {}


def _weights():
    return teaching(*_models()), X, Y, {"sample_weight": WEIGHTS}


def _class_weights():
    weights = {"class_weight": {number: 1.0 + number / 4 for number in range(5)}}
    return teaching(*_models(), missing_label=-1), X, np.where(Y == 2, -1, Y), weights


def _adapters():
    hints = [
        losses.Hint("map", "map"),
        losses.VariationalInformation("vector", "vector"),
        losses.SoftTargets(temperature=2.0),
    ]
    return teaching(*_models(), hints), X, Y, {}


def _schedules():
    decay = keras.optimizers.schedules.PolynomialDecay(4.0, 5, 1.0)
    share = keras.optimizers.schedules.PolynomialDecay(0.1, 5, 0.9)
    loss = losses.SoftTargets(temperature=decay)
    return teaching(*_models(), loss, student_loss_weight=share), X, Y, {}


def _normalized():
    student = image_model(2, normalized=True, regularizer=keras.regularizers.L2(0.01))
    return teaching(image_model(1, normalized=True), student), X, Y, {}


def _masks():
    distiller = teaching(text_model(1), text_model(2))
    return distiller, WORDS, np.repeat(Y[:, None], 4, axis=1), {}


def _two_outputs():
    loss = {"label": cross_entropy(False), "number": "binary_crossentropy"}
    # Keras' own means of each output's loss count whole batches on TensorFlow, and examples on the
    # others: here all batches have the same size.
    whole = EXAMPLES - EXAMPLES % BATCH
    y = {"label": Y[:whole], "number": (Y[:whole] % 2)[:, None].astype("float32")}
    kinds = [
        losses.SoftTargets(outputs="label"),
        losses.SoftTargets(outputs="number"),
    ]
    return teaching(two_outputs(1), two_outputs(2), kinds, loss), X[:whole], y, {}


def _ensemble():
    teachers = [image_model(1), image_model(3, activation="softmax")]
    return teaching(teachers, image_model(2), metrics=[keras_kd.metrics.Agreement()]), X, Y, {}


def _moving_average():
    student = image_model(2)
    return teaching(keras_kd.teachers.MovingAverage(decay=0.9), student), X, Y, {}


def _function():
    def logits(x):
        return ops.mean(x, axis=(1, 2)) @ ops.ones((2, 5)) * ops.arange(5, dtype="float32")

    return teaching(keras_kd.teachers.Function(logits), image_model(2)), X, Y, {}


def _numpy_function():
    teacher = keras_kd.teachers.NumpyFunction(
        lambda x: np.cumsum(np.repeat(x.mean(axis=(1, 2))[:, :1], 5, axis=1), axis=1), (5,)
    )
    return teaching(teacher, image_model(2)), X, Y, {}


def _inputs():
    distiller = teaching(*_models(), teacher_inputs="large", student_inputs="small")
    return distiller, {"large": X[:, ::-1].copy(), "small": X}, Y, {}


CASES = {
    "a softmax": _softmax,
    "sigmoids": _sigmoid,
    "sample weights": _weights,
    "class weights and missing labels": _class_weights,
    "adapters": _adapters,
    "schedules": _schedules,
    "normalization and regularization": _normalized,
    "masks": _masks,
    "two outputs": _two_outputs,
    "an ensemble": _ensemble,
    "a moving average": _moving_average,
    "a function": _function,
    "a function of arrays": _numpy_function,
    "inputs of each": _inputs,
}


def ends(case):
    """What a training ends with: the student's weights in one array, and its logs."""
    distiller, x, y, options = case()
    history = distiller.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, **options).history
    weights = [keras.ops.convert_to_numpy(weight).ravel() for weight in distiller.student.weights]
    evaluated = distiller.evaluate(x, y, batch_size=BATCH, verbose=0, return_dict=True)
    logs = {name: values[-1] for name, values in history.items()}
    logs |= {f"evaluated_{name}": value for name, value in evaluated.items()}
    return np.concatenate(weights), logs


def all_cases():
    """Every case by its name."""
    sys.path.insert(0, str(STEPS.parents[1]))
    from reference import formulas

    return CASES | of_losses(formulas.REFERENCES)


def known():
    """What `steps.npz` holds: for each case the weights and the logs."""
    found = {}
    with np.load(STEPS) as file:
        for key in file.files:
            name, _, log = key.rpartition("/")
            found.setdefault(name, {})[log] = file[key]
    return found


def write():
    """Write `steps.npz`."""
    arrays = {}
    for name, case in all_cases().items():
        weights, logs = ends(case)
        arrays[f"{name}/weights"] = weights
        arrays |= {f"{name}/{log}": np.float32(value) for log, value in sorted(logs.items())}
    np.savez_compressed(STEPS, **arrays)


def compare():
    """Print how far this backend is from what `steps.npz` holds."""
    print("| training | largest difference of a weight | of a log, relative |\n|---|---|---|")
    expected = known()
    for name, case in all_cases().items():
        weights, logs = ends(case)
        own = expected[name]
        of_weights = np.abs(weights - own["weights"]).max()
        of_logs = max(abs(value - own[log]) / max(abs(own[log]), 1) for log, value in logs.items())
        print(f"| {name} | {of_weights:.1e} | {of_logs:.1e} |", flush=True)


if __name__ == "__main__":
    write() if "--write" in sys.argv else compare()
