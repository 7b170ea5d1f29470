"""Processes that train on several replicas: where workers are, and the strategy of each process."""

import json
import os
import socket


def places(count=2):
    """The TF_CONFIG of each worker."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(count)
    ]


def strategy_of_process():
    """That of one worker of several, or of two logical CPU devices; before Keras is imported."""
    import tensorflow as tf

    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    (processor,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, two)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
