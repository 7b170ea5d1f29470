"""Loading what a file says of its tensors."""

import resource

import flatbuffers
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from keras_kd.tflite.runtimes.litert import LiteRTInterpreter


@pytest.fixture(scope="module")
def giant():
    """Some hundred bytes that take 6 GB when they run."""
    spec = tf.TensorSpec((1, 3), tf.float32)
    function = tf.function(lambda x: tf.reduce_mean(tf.tile(x, (1, 5 * 10**8)), 1), [spec])
    concrete = function.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], function).convert()


def with_shape(content, before, after):
    """A file that says something else of the sizes of its tensors."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for tensor in model.subgraphs[0].tensors:
        if list(tensor.shape) == before:
            tensor.shape = after
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("shape", [[1, 15 * 10**8], [1, 1]])
def test_tensors_that_fill_the_memory(giant, shape):
    """Also where the file does not say so, and only LiteRT finds out."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"its tensors take 6\d{9} bytes at one time, at TILE"):
        LiteRTInterpreter(with_shape(giant, [1, 15 * 10**8], shape))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000
