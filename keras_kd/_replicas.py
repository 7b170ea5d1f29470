"""One batch on several devices: sums, means and whole batches across the replicas of a step.

With `tf.distribute` each replica runs the step on its part of a batch, and gradients are summed
over the replicas. A loss is then exact if each replica computes its own summands, divided by a
number that counts the examples of all of them. Without a strategy nothing here adds an operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops


def number() -> int:
    """How many replicas share the batch of a step; 1 without `tf.distribute` and within `whole`.

    It is 1 as well where Keras traces a step for its shapes only, and never runs it.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1 or tf.distribute.in_cross_replica_context():
        return 1
    return strategy.num_replicas_in_sync


def learns_shapes() -> bool:
    """Whether Keras traces a loss under a strategy for its shapes only, and never runs it."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.in_cross_replica_context()


@contextmanager
def whole() -> Iterator[None]:
    """Within this context a replica of several works as one device does on a whole batch.

    Neither this package nor Keras' own losses then divide by the number of replicas, and variables
    are those of the replica.
    """
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    # A number, by which variables find the copy of the replica.
    context = tf.distribute.get_replica_context()
    own = int(tf.get_static_value(context.replica_id_in_sync_group))
    with tf.Graph().as_default():
        # A graph begins without the strategy.
        alone = tf.distribute.get_strategy()
    with tf.distribute.ReplicaContext(alone, own % len(strategy.extended.worker_devices)):
        yield


def total(values: Any) -> Any:
    """The sum of a tensor over the replicas, the same on each of them; no gradient flows back.

    Args:
        values: tensor of the same shape on every replica.
    """
    if number() == 1:
        return values
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return ops.stop_gradient(
        context.all_reduce(tf.distribute.ReduceOp.SUM, ops.stop_gradient(values))
    )


def mean(summed: Any, count: Any) -> Any:
    """The mean over the whole batch, as each replica's share of it.

    Args:
        summed: a replica's summands, summed up: a scalar.
        count: how many they are, a scalar of the same dtype; their mean is 0 where none has any.

    Returns:
        A scalar, on each replica the mean divided by the number of replicas. Its gradient is that
        of the replica's own summands in the mean, so that the sum of the gradients is the gradient
        of the mean.
    """
    replicas = number()
    if replicas == 1:
        return ops.divide_no_nan(summed, count)
    both = total(ops.stack([summed, count]))
    own = ops.divide_no_nan(summed, both[1])
    shared = ops.divide_no_nan(both[0], both[1]) / replicas
    return own + ops.stop_gradient(shared - own)


def mean_of_examples(value: Any, count: Any) -> Any:
    """`mean` of the value of each replica as a mean over its own examples.

    Args:
        value: a scalar, of no meaning where a replica has no examples.
        count: how many examples the replica has.
    """
    count = ops.cast(count, value.dtype)
    return mean(ops.where(count > 0, value, ops.zeros_like(value)) * count, count)


def share(value: Any) -> Any:
    """A replica's share of a value that all replicas have computed of the whole batch."""
    replicas = number()
    return value if replicas == 1 else value / replicas


def gathered(tensors: list[Any], *, constant: bool) -> list[Any]:
    """Each tensor `(part of the batch, ...)` as `(batch, ...)`, the replicas' parts in order.

    Gradients flow back to the replica that an example is from.

    Args:
        tensors: tensors whose other sizes are the same on all replicas.
        constant: whether no gradient flows back, which halves what is exchanged.
    """
    if number() == 1:
        return tensors
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    received: dict[int, Any] = {}
    # TensorFlow packs what it gathers together, which must be of one type.
    sent_as = [_sent_as(keras.backend.standardize_dtype(tensor.dtype)) for tensor in tensors]
    for dtype in dict.fromkeys(sent_as):
        places = [place for place, sent in enumerate(sent_as) if sent == dtype]
        sent = [tf.cast(tensors[place], dtype) for place in places]
        if constant:
            sent = [tf.stop_gradient(tensor) for tensor in sent]
        for place, part in zip(places, context.all_gather(sent, axis=0), strict=True):
            # TensorFlow forgets the other sizes on the way.
            part.set_shape([None, *tensors[place].shape[1:]])
            part = tf.stop_gradient(part) if constant else part
            received[place] = tf.cast(part, tensors[place].dtype)
    return [received[place] for place in range(len(tensors))]


def _sent_as(dtype: str) -> str:
    """A type of numbers that every implementation of collective operations gathers."""
    is_small = dtype in ("bool", "int8", "int16", "uint8", "uint16")
    return "int32" if is_small else dtype
