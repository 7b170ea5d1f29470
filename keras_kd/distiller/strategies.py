"""`tf.distribute` around a Distiller: what it refuses, and what Keras does otherwise there.

With `replicas.py` the only place that uses what is private to the steps of the two Kerases.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_kd import _keras, _replicas
from keras_kd._checks import problem

# What a Distiller overrides of a Keras 3 model for several replicas, all of it private.
_OVERRIDDEN = ("_maybe_symbolic_build", "_symbolic_build", "_get_metrics_result_or_logs")
_STRATEGIES = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)


def check_strategy(distiller: Any) -> None:
    """Check that training on the devices of a strategy is what it is on one device.

    Args:
        distiller: a compiled distiller.

    Raises:
        ValueError: if it is not, or was not tried.
    """
    if keras.distribution.distribution() is not None:
        raise problem(
            "a distribution of keras.distribution, by which the TensorFlow backend trains on one "
            "device",
            "a strategy of tf.distribute",
            "call keras.distribution.set_distribution(None), and build and compile the Distiller "
            "within tf.distribute.MirroredStrategy().scope()",
        )
    strategy = distiller.distribute_strategy
    _check_scope(distiller.student, strategy)
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return
    if not isinstance(strategy, _STRATEGIES):
        raise problem(
            f"{type(strategy).__name__} with {replicas} replicas",
            "tf.distribute.MirroredStrategy or MultiWorkerMirroredStrategy, whose replicas take "
            "each step together",
            "build the Distiller within the scope of one of them",
        )
    _check_keras()
    for received, fix in _not_supported(distiller):
        raise problem(
            f"{received} on {replicas} replicas",
            "a step that Keras can run on several replicas",
            fix,
        )


def _check_keras() -> None:
    """Check that Keras has what is overridden, and so calls it.

    Raises:
        ValueError: if it has not.
    """
    missing = [name for name in _OVERRIDDEN if not hasattr(keras.Model, name)]
    if missing:
        raise problem(
            f"Keras {keras.__version__} without Model.{missing[0]}, for a step on several replicas",
            "a version of Keras that was tried",
            "install Keras 3.15, which was tried, or train on one device",
        )


def _not_supported(distiller: Any) -> list[tuple[str, str]]:
    """What Keras cannot do on several replicas, and what to do instead."""
    arguments = distiller._compile_arguments.value
    optimizer = getattr(distiller.optimizer, "inner_optimizer", distiller.optimizer)
    accumulated = getattr(optimizer, "gradient_accumulation_steps", None)
    found = []
    if arguments.jit_compile is True:
        found.append(("jit_compile=True", "leave out jit_compile"))
    if distiller.run_eagerly or tf.config.functions_run_eagerly():
        # Far slower, and not tried with losses of a whole batch.
        found.append(("a step that runs eagerly", "leave out run_eagerly"))
    if arguments.steps_per_execution not in (None, 1):
        found.append(
            (
                f"steps_per_execution={arguments.steps_per_execution}",
                "leave out steps_per_execution",
            )
        )
    if accumulated is not None and accumulated > 1:
        found.append(
            (
                f"gradient_accumulation_steps={accumulated}",
                "leave it out, and give fit a larger batch_size, which the replicas share",
            )
        )
    regularized = [
        layer.name
        for bridge in distiller._objective.bridges
        for layer in bridge._flatten_layers()
        if getattr(layer, "activity_regularizer", None) is not None
    ]
    if regularized:
        found.append(
            (
                f"the adapter {regularized[0]!r} with an activity_regularizer",
                "regularize the adapter's weights instead",
            )
        )
    if distiller._computes_own_loss:
        found.append(
            (
                f"the student {distiller.student.name!r}, whose own compute_loss returns one "
                "number for the examples of a replica,",
                "pass loss=... to compile of the Distiller",
            )
        )
    return found


def _check_scope(student: Any, strategy: Any) -> None:
    """Check that student and distiller were built within the same scope."""
    variables = [
        weight.value if isinstance(weight, keras.Variable) else weight
        for weight in student.weights[:1]
    ]
    shared = [isinstance(variable, tf.distribute.DistributedValues) for variable in variables]
    if shared in ([], [isinstance(strategy, _STRATEGIES)]):
        return
    places = {True: "within the scope of a strategy", False: "outside of it"}
    raise problem(
        f"the student {student.name!r}, built {places[shared[0]]}, and a Distiller that was built "
        f"{places[not shared[0]]}",
        "both built within the same scope",
        "build or load teacher and student, and build and compile the Distiller, within "
        "`with strategy.scope():`",
    )


def taken_losses(student: Any) -> list[Any]:
    """What the student's layers have added with `add_loss` in the pass of one of several replicas.

    The layers of Keras 3 keep it themselves, where the next replica's pass takes its place; those
    of tf_keras keep it for each thread.

    Raises:
        ValueError: if another replica ran in the middle of the pass.
    """
    if _replicas.number() == 1 or not _keras.is_keras_model(student):
        return []
    taken = _keras.take_losses(student)
    synchronized = [
        layer.name for layer in student._flatten_layers() if getattr(layer, "synchronized", False)
    ]
    if taken and synchronized and len(tf.distribute.get_strategy().extended.worker_devices) > 1:
        raise problem(
            f"the student {student.name!r}, whose layers add losses of activations and of which "
            f"{synchronized[0]!r} is synchronized, on several replicas of one process",
            "one of the two: Keras mixes up the added losses of replicas that wait for each other",
            "leave out activity_regularizer and add_loss, or synchronized=True",
        )
    return taken


def first_part(distiller: Any, iterator: Any, data_batch: Any) -> Any:
    """A batch as one replica of this process sees it.

    Keras takes the mean of the replicas' data, which have different shapes where a batch does not
    divide evenly, and which `MultiWorkerMirroredStrategy` cannot reduce.

    Args:
        distiller: the distiller.
        iterator: an iterator of Keras over an epoch, or `None`.
        data_batch: the batch, where there is none.
    """
    if iterator is not None:
        data_batch = next(next(iter(iterator))[2])
    strategy = distiller.distribute_strategy

    def local(value: Any) -> Any:
        value = strategy.experimental_local_results(value)[0]
        return None if isinstance(value, tf.experimental.Optional) else value

    return keras.tree.map_structure(local, data_batch)


def in_shape_of_logs(distiller: Any, logs: dict[str, Any]) -> dict[str, Any]:
    """The logs of a step with an axis to take the mean over, as Keras 3 does with several workers.

    Args:
        distiller: the distiller.
        logs: scalars.
    """
    is_alone = _replicas.number() == 1 or not is_multi_worker()
    if is_alone or not _keras.is_keras_model(distiller):
        return logs
    return {name: tf.reshape(value, (1,)) for name, value in logs.items()}


def is_multi_worker() -> bool:
    """Whether the replicas of the current strategy are in several processes."""
    strategy = tf.distribute.get_strategy()
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def merged_logs(logs: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """The logs of an epoch: of the metrics what all replicas have, and the rest as it is.

    Args:
        logs: those of the last step.
        results: the metrics' values over all replicas.
    """
    return {name: results.get(name, value) for name, value in logs.items()}
