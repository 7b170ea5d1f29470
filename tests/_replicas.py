"""Trains on one device and on several replicas; prints how far apart they end.

    python _replicas.py CASE ...           two logical CPU devices of one process
    TF_CONFIG=... python _replicas.py ...  one worker of several processes

A process of its own, because logical devices are made before TensorFlow begins.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from _workers import strategy_of_process

EXAMPLES, BATCH, EPOCHS = 37, 16, 4
CASES = {}


STRATEGY = strategy_of_process()

# After the devices, which Keras uses.
import keras  # noqa: E402
from keras import layers  # noqa: E402

import keras_kd  # noqa: E402
from keras_kd import losses  # noqa: E402


def case(function):
    """A function that returns `(Distiller's arguments, compile's arguments, fit's arguments)`."""
    CASES[function.__name__] = function
    return function


def random(seed=0):
    return np.random.default_rng(seed)


def features(count=EXAMPLES, *shape):
    return random(1).normal(size=(count, *(shape or (5,)))).astype("float32")


def labels(count=EXAMPLES, *shape):
    return random(2).integers(0, 3, (count, *shape))


def weights(count=EXAMPLES, *shape):
    found = random(3).uniform(0, 2, (count, *shape)).astype("float32")
    found[1] = 0.0
    return found


def chain(*stack, shape=(5,), seed=2, kit=keras):
    """A model of random weights; the kit is a Keras."""
    keras.utils.set_random_seed(seed)
    model = kit.Sequential([kit.layers.InputLayer(shape), *stack], name=f"model_{seed}")
    generator = random(seed)
    for weight in model.trainable_weights:
        weight.assign(generator.normal(size=weight.shape) * 0.5)
    return model


def dense(units=4, seed=2, end=None, kit=keras, **options):
    return chain(
        kit.layers.Dense(units, activation="tanh", name="hidden", **options),
        kit.layers.Dense(3, activation=end, name="outputs"),
        seed=seed,
        kit=kit,
    )


def teacher(**options):
    return dense(6, seed=1, **options)


def hard(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


def fitted(x=None, y=None, **options):
    return {"x": features() if x is None else x, "y": labels() if y is None else y, **options}


def compiled(loss=None, **options):
    return {"optimizer": keras.optimizers.SGD(0.1), "loss": loss or hard(), **options}


@case
def outputs_and_features():
    """Adapters, sample weights, and a last batch of one, which leaves a replica without any."""
    given = [losses.SoftTargets(3.0), losses.Hint("hidden", "hidden")]
    return (
        ((teacher(), dense(), given), {}),
        compiled(metrics=["accuracy"]),
        fitted(features(33), labels(33), sample_weight=weights(33)),
    )


class Shown(keras.callbacks.Callback):
    """Shows each loss in the logs, as TensorBoard does."""

    def set_model(self, model):
        super().set_model(model)
        model.show_terms()


@case
def watched():
    """The means of each loss, and the agreement with the teacher."""
    given = [losses.SoftTargets(3.0), losses.Hint("hidden", "hidden")]
    return (
        ((teacher(), dense(), given), {}),
        compiled(metrics=["accuracy", keras_kd.metrics.Agreement()]),
        fitted(sample_weight=weights(), callbacks=[Shown()]),
    )


@case
def relations():
    """Losses that compare the examples of a batch, also Keras' own and probabilities."""
    given = [
        losses.DIST(2.0),
        losses.DirectionMatching(),
        losses.SimilarityPreserving("hidden", "hidden"),
        losses.CorrelationCongruence("hidden", "hidden"),
        losses.ContrastiveRepresentation("hidden", "hidden", projection_units=4),
        keras.distillation.LogitsDistillation(temperature=2.0, loss=keras.losses.KLDivergence()),
    ]
    return (
        ((teacher(end="softmax"), dense(end="softmax"), given, [0.1] * len(given)), {}),
        compiled("sparse_categorical_crossentropy", metrics=["accuracy"]),
        fitted(),
    )


@case
def weighted_relations():
    given = [losses.Relational("hidden", "hidden"), losses.SimpleRecipe("hidden", "hidden")]
    return ((teacher(), dense(), given), {}), compiled(), fitted(sample_weight=weights())


@case
def maps_and_schedules():
    """Convolutions, synchronized statistics, penalties, schedules in the logs, validation."""

    def convolutional(filters, seed):
        return chain(
            layers.Conv2D(filters, 3, name="first"),
            layers.BatchNormalization(synchronized=True, name="statistics"),
            layers.ReLU(),
            layers.Conv2D(filters, 2, name="second", kernel_regularizer="l2"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
            shape=(6, 6, 2),
            seed=seed,
        )

    stages = ["first", "second"]
    given = [
        losses.AttentionTransfer("first", "first"),
        losses.FlowOfSolution(stages, stages),
        losses.VariationalInformation("second", "second"),
        losses.SoftTargets(lambda step: 4.0 - 0.1 * keras.ops.cast(step, "float32")),
    ]
    x = features(EXAMPLES, 6, 6, 2)
    falling = keras.optimizers.schedules.PolynomialDecay(1.0, 12)
    return (
        ((convolutional(4, 1), convolutional(3, 2), given, [1.0, 1.0, 0.1, falling]), {}),
        compiled(metrics=["accuracy"]),
        fitted(x, sample_weight=weights(), validation_data=(x, labels())),
    )


@case
def added_losses():
    """Of activations and of weights, which count once."""
    student = dense(activity_regularizer="l2", kernel_regularizer="l2")
    return ((teacher(), student, losses.Hint("hidden", "hidden")), {}), compiled(), fitted()


def tokens(kit=keras):
    return random(4).integers(0, 5, (EXAMPLES, 6)).astype("int32")


def reader(seed, kit=keras):
    return chain(
        kit.layers.Embedding(5, 4, mask_zero=True, name="embedding"),
        kit.layers.Dense(3, activation="tanh", name="hidden"),
        kit.layers.Dense(3, name="outputs"),
        shape=(6,),
        seed=seed,
        kit=kit,
    )


@case
def masks():
    """A value per position, of which each replica has another number."""
    given = [losses.SoftTargets(2.0), losses.Hint("hidden", "hidden")]
    return (
        ((reader(1), reader(2), given), {}),
        compiled(metrics=["accuracy"]),
        fitted(tokens(), labels(EXAMPLES, 6), sample_weight=weights(EXAMPLES, 6)),
    )


@case
def class_weights():
    return (
        ((teacher(), dense(), [losses.HardTargets()]), {}),
        compiled(),
        fitted(class_weight={0: 0.5, 1: 2.0, 2: 3.0}),
    )


@case
def missing_labels():
    y = labels()
    y[::3] = -1
    return (
        ((teacher(), dense()), {"missing_label": -1}),
        compiled(metrics=["accuracy"]),
        fitted(y=y, sample_weight=weights(), class_weight={0: 0.5, 1: 2.0, 2: 3.0}),
    )


def forked(seed, kit=keras):
    keras.utils.set_random_seed(seed)
    inputs = kit.Input((5,), name="inputs")
    hidden = kit.layers.Dense(4, activation="tanh", name="hidden")(inputs)
    first = kit.layers.Dense(3, name="first")(hidden)
    second = kit.layers.Dense(2, name="second")(hidden)
    return kit.Model(inputs, {"first": first, "second": second}, name=f"forked_{seed}")


def of_outputs():
    y = {"first": labels(), "second": random(5).normal(size=(EXAMPLES, 2)).astype("float32")}
    return fitted(y=y, sample_weight={"first": weights(), "second": weights()[::-1].copy()})


@case
def several_outputs():
    """A reduction for each output."""
    loss = {"first": hard(reduction="mean_with_sample_weight"), "second": "mse"}
    given = [losses.SoftTargets(outputs="first"), losses.LogitsMSE(outputs="second")]
    return (
        ((forked(1), forked(2), given), {}),
        compiled(loss, loss_weights={"first": 1.0, "second": 0.3}),
        of_outputs(),
    )


@case
def summed_loss():
    return ((teacher(), dense()), {}), compiled(hard(reduction="sum")), fitted()


@case
def ensemble_and_loss_of_student():
    student = dense()
    student.compile(loss=hard())
    members = keras_kd.teachers.Ensemble([teacher(), dense(5, seed=3, end="softmax")])
    return (
        ((members, student, [losses.SoftTargets(), losses.DIST()]), {}),
        {"optimizer": keras.optimizers.SGD(0.1)},
        fitted(sample_weight=weights()),
    )


@case
def moving_average():
    average = keras_kd.teachers.MovingAverage(0.9)
    given = [losses.LogitsMSE(), losses.Hint("hidden", "hidden")]
    return ((average, dense(), given), {}), compiled(), fitted()


@case
def function_of_arrays():
    def asked(x):
        return np.stack([x[:, 0], x[:, 1] - x[:, 2], x[:, 3]], axis=-1)

    asked = keras_kd.teachers.NumpyFunction(asked, (3,))
    return ((asked, dense()), {"save_teacher": False}), compiled(), fitted()


@case
def stored_teacher():
    data = tf.data.Dataset.from_tensor_slices((features(), labels())).batch(BATCH)
    path = f"{os.environ['STORES']}/{tf.distribute.get_strategy().num_replicas_in_sync}.sqlite"
    stored = keras_kd.teachers.StoredTeacher.create(
        teacher(), data, path, outputs=["logits", "hidden"]
    )
    given = [losses.SoftTargets(), losses.Hint("hidden", "hidden")]
    return ((stored, dense(), given), {}), compiled(), {"x": stored.join(data)}


def older():
    import tf_keras

    return tf_keras


@case
def older_student():
    """A tf_keras student with a Keras 3 teacher and a schedule in the logs."""
    given = [losses.SoftTargets(3.0), losses.Hint("hidden", "hidden"), losses.DIST()]
    falling = keras.optimizers.schedules.PolynomialDecay(1.0, 12)
    return (
        ((teacher(), dense(kit=older()), given, [1.0, falling, 1.0]), {}),
        compiled(metrics=["accuracy"]),
        fitted(
            features(33),
            labels(33),
            sample_weight=weights(33),
            validation_data=(features(), labels()),
        ),
    )


@case
def older_masks_and_average():
    given = [losses.LogitsMSE(), losses.Hint("hidden", "hidden")]
    return (
        ((keras_kd.teachers.MovingAverage(0.9), reader(2, older()), given), {}),
        compiled(),
        fitted(tokens(), labels(EXAMPLES, 6), sample_weight=weights(EXAMPLES, 6)),
    )


@case
def older_outputs():
    given = [losses.SoftTargets(outputs="first"), losses.LogitsMSE(outputs="second")]
    return (
        ((forked(1), forked(2, older()), given), {}),
        compiled({"first": hard(), "second": "mse"}),
        of_outputs(),
    )


@case
def pruned():
    student = keras_kd.compression.prune(dense(16), 0.5)
    given = [losses.SoftTargets(), losses.Hint("hidden", "hidden")]
    return ((teacher(), student, given), {}), compiled(), fitted(sample_weight=weights())


@case
def quantization_aware():
    student = keras_kd.compression.quantize_aware(dense(), features())
    given = [losses.SoftTargets(), losses.Hint("hidden", "hidden")]
    return ((teacher(), student, given), {}), compiled(), fitted(sample_weight=weights())


class OwnLoss(keras.Model):
    def __init__(self):
        super().__init__()
        self.outputs_layer = layers.Dense(3)

    def call(self, inputs):
        return self.outputs_layer(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(hard()(y, y_pred))


def mean_of_batch(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_pred))


class OneNumber(losses.DistillationLoss):
    def per_example(self, teacher_output, student_output, **context):
        return keras.ops.mean(keras.ops.square(student_output - teacher_output))


# What several replicas cannot train: the student, its losses, and the arguments of compile.
REFUSED = {
    "jit_compile": (dense, None, {"jit_compile": True}),
    "run_eagerly": (dense, None, {"run_eagerly": True}),
    "steps_per_execution": (dense, None, {"steps_per_execution": 2}),
    "accumulation": (
        dense,
        None,
        {"optimizer": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)},
    ),
    "own_loss": (OwnLoss, None, {"loss": lambda: None}),
    "mean_of_batch": (dense, None, {"loss": lambda: mean_of_batch}),
    "not_reduced": (dense, None, {"loss": lambda: hard(reduction=None)}),
    "one_number": (dense, OneNumber, {}),
}


def refused(name):
    """The error of `fit`, before which no step was taken."""
    student, loss, options = REFUSED[name]
    options = {key: value() if callable(value) else value for key, value in options.items()}
    with STRATEGY.scope():
        student = student()
        student(features())
        distiller = keras_kd.Distiller(teacher(), student, None if loss is None else loss())
        distiller.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": hard()} | options)
    return message_of(distiller)


def message_of(distiller):
    try:
        distiller.fit(features(), labels(), batch_size=BATCH, verbose=0)
    except ValueError as error:
        assert int(distiller.optimizer.iterations.numpy()) == 0
        return str(error)
    return "no error"


def refused_places():
    """A student of another scope than the distiller's."""
    found = {}
    for name, of_student, of_distiller in [
        ("student_outside", tf.distribute.get_strategy(), STRATEGY),
        ("distiller_outside", STRATEGY, tf.distribute.get_strategy()),
    ]:
        with of_student.scope():
            student = dense()
        with of_distiller.scope():
            distiller = keras_kd.Distiller(teacher(), student)
            distiller.compile("sgd", hard())
        found[name] = message_of(distiller)
    return found


def train(strategy, name):
    """The logs, and all weights at the end."""
    with strategy.scope():
        (positional, options), compile_options, fit_options = CASES[name]()
        distiller = keras_kd.Distiller(*positional, **options)
        distiller.compile(**compile_options)
    fit_options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False} | fit_options
    if isinstance(fit_options["x"], tf.data.Dataset):
        del fit_options["batch_size"]
    history = distiller.fit(verbose=0, **fit_options).history
    models = [distiller.student, *distiller.teacher.learning_models]
    trained = [weight.numpy() for weight in distiller.trainable_variables]
    for model in models:
        trained += [np.array(weight) for weight in model.get_weights()]
    return history, trained


def relative_difference(ours, theirs):
    """In parts of what is above 1, where float32 has no more digits."""
    return float(np.max(np.abs(np.subtract(ours, theirs)) / np.maximum(1.0, np.abs(theirs))))


def apart(name):
    """The largest differences of weights and of logs, the names of logs, and how far it learned."""
    (logs, ours), (expected, theirs) = (
        train(strategy, name) for strategy in (STRATEGY, tf.distribute.get_strategy())
    )
    assert list(logs) == list(expected), (list(logs), list(expected))
    assert all(np.isfinite(weight).all() for weight in theirs)
    return {
        "weights": max(
            float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True)
        ),
        "logs": max(map(relative_difference, logs.values(), expected.values())),
        "names": list(logs),
        "learned": expected["loss"][0] - expected["loss"][-1],
    }


def of_parts():
    """A loss of a batch with `gather_batches=False`: what is logged, and what it means."""
    loss = losses.SimilarityPreserving("hidden", "hidden")
    x, y = features(7), labels(7)
    with STRATEGY.scope():
        distiller = keras_kd.Distiller(teacher(), dense(), loss, gather_batches=False)
        distiller.compile(keras.optimizers.SGD(0.0), hard())
    # In order, as the parts below are.
    logs = distiller.fit(x, y, batch_size=7, shuffle=False, verbose=0).history
    hidden = [chain_of_hidden(model)(x).numpy() for model in (teacher(), dense())]

    def on_one_device(part):
        return float(loss.compute_loss(*(outputs[part] for outputs in hidden)))

    data = tf.data.Dataset.from_tensor_slices(x).batch(7)
    [parts] = STRATEGY.experimental_distribute_dataset(data)
    sizes = [len(part) for part in STRATEGY.experimental_local_results(parts)]
    each = [on_one_device(slice(sizes[0])), on_one_device(slice(sizes[0], 7))]
    return {
        "sizes": sizes,
        "logged": logs["distillation_loss"][0],
        "expected": float(np.average(each, weights=sizes)),
        "whole": on_one_device(slice(7)),
    }


def chain_of_hidden(model):
    return keras.Sequential(model.layers[:1])


def refusals():
    """The messages about what several replicas cannot train."""
    return {name: refused(name) for name in REFUSED} | refused_places()


def main(names):
    others = {"parts": of_parts, "refusals": refusals}
    return {name: others[name]() if name in others else apart(name) for name in names}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
