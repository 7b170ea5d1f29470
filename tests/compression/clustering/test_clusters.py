import gzip
import heapq

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import Clusters, cluster, clusters, prune, strip, to_tf_keras
from keras_kd.tflite import convert


def model():
    student = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, name="conv"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(8, name="dense"),
        ]
    )
    # Four values for one channel, two others for the other one.
    kernel = np.zeros((9, 2))
    kernel[:, 0] = [1, 1, 1, 1, 1, 2, 2, 3, 4]
    kernel[:, 1] = [5, 5, 5, 5, 5, 5, 5, 5, 6]
    student.get_layer("conv").kernel.assign(kernel.reshape(3, 3, 1, 2))
    values = np.random.default_rng(0).choice(
        [0.5, -0.25, 0, 1], (8, 8), p=[0.5, 0.25, 0.125, 0.125]
    )
    student.get_layer("dense").kernel.assign(values)
    return student


def huffman_bits(kernel):
    """How many bits Huffman's code takes for all weights."""
    heap = list(np.unique(kernel, return_counts=True)[1])
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        bits += pair
        heapq.heappush(heap, pair)
    return bits


@pytest.mark.parametrize("form", [lambda model: model, to_tf_keras, prune, cluster])
def test_values_and_sizes_of_each_kernel(form):
    student = model()
    measured = clusters(form(student))
    assert measured.layers == {"conv": 6, "dense": 4}
    conv, dense = measured.kernels
    assert (conv.weights, conv.values, conv.values_per_channel) == (18, 6, 4)
    # Whole: 3 bits each and 6 values. By channel: 2 bits and 1 bit, and as many values.
    assert (conv.float_bytes, conv.indexed_bytes) == (72, 6 * 4 + 4)
    assert (dense.values, dense.values_per_channel) == (4, None)
    assert (dense.float_bytes, dense.indexed_bytes) == (256, 64 * 2 // 8 + 4 * 4)
    kernel = student.get_layer("dense").kernel.numpy()
    assert dense.gzip_bytes == len(gzip.compress(kernel.tobytes(), mtime=0))
    huffman = 16 + huffman_bits(kernel) / 8
    assert huffman - 64 / 8 < dense.entropy_bytes <= np.ceil(huffman)
    assert measured.indexed_bytes == conv.indexed_bytes + dense.indexed_bytes


def test_entropy_by_hand():
    student = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    student.layers[0].kernel.assign([[1] * 4, [1] * 4, [2] * 4, [3, 3, 3, 4]])
    counts = np.array([8, 4, 3, 1])
    bits = -np.sum(counts * np.log2(counts / 16))
    assert clusters(student).entropy_bytes == 16 + np.ceil(bits / 8)


def test_kernels_without_equal_weights_are_stored_as_they_are():
    student = keras.Sequential([keras.Input((7,)), layers.Dense(3)])
    measured = clusters(student)
    assert measured.indexed_bytes == measured.entropy_bytes == measured.float_bytes == 84


def test_a_kernel_of_a_single_value_needs_no_bits():
    student = keras.Sequential([keras.Input((4,)), layers.Dense(4, kernel_initializer="ones")])
    assert clusters(student).indexed_bytes == clusters(student).entropy_bytes == 4


def test_the_table():
    lines = str(clusters(model())).splitlines()
    heading = "layer kernel weights values channel bytes indexed entropy gzip"
    assert " ".join(lines[0].split()) == heading
    assert [line.split()[:4] for line in lines[1:3]] == [
        ["conv", "kernel", "18", "6"],
        ["dense", "kernel", "64", "4"],
    ]
    assert lines[3].split()[:3] == ["overall", "82", "328"]
    assert len({len(line) for line in lines}) == 1


def test_depthwise_kernels_count_if_they_share_values():
    student = model()
    student.get_layer("depthwise").depthwise_constraint = None
    student.get_layer("depthwise").kernel.assign(np.ones((3, 3, 2, 1)))
    assert clusters(student).layers["depthwise"] == 1


def test_every_kernel_of_a_recurrent_layer_counts_on_its_own():
    student = keras.Sequential(
        [keras.Input((5, 4)), layers.Bidirectional(layers.LSTM(3), name="both"), layers.Dense(2)]
    )
    measured = clusters(student)
    assert [kernel.weights for kernel in measured.kernels] == [48, 36, 48, 36, 12]
    assert len({kernel.kernel for kernel in measured.kernels[:4]}) == 4


def test_layers_inside_nested_models_count():
    outer = keras.Sequential([keras.Input((6, 6, 1)), model()])
    assert clusters(outer) == clusters(model())


def test_what_is_no_model_or_has_no_kernel():
    with pytest.raises(ValueError, match=r"Received model='student'"):
        clusters("student")
    with pytest.raises(ValueError, match=r"without a layer that can be clustered.*Dense"):
        clusters(keras.Sequential([keras.Input((4,)), layers.ReLU()]))


@pytest.mark.slow
def test_the_file_does_not_shrink_but_gzip_makes_less_of_it():
    student = keras.Sequential(
        [
            keras.Input((32,)),
            layers.Dense(64, "relu", kernel_initializer=keras.initializers.RandomNormal(seed=1)),
            layers.Dense(32, kernel_initializer=keras.initializers.RandomNormal(seed=2)),
        ]
    )
    clustered = strip(cluster(student, 16))
    before, after = convert(student), convert(clustered)
    assert after.size == before.size
    saved = clusters(student).gzip_bytes - clusters(clustered).gzip_bytes
    assert before.compressed_size - after.compressed_size == pytest.approx(saved, rel=0.1)
    # 4 bits of 32; gzip knows only bytes that repeat.
    assert clusters(clustered).indexed_bytes < 0.14 * clusters(student).float_bytes
    assert clusters(clustered).gzip_bytes < 0.35 * clusters(student).gzip_bytes


def test_the_result_can_be_compared():
    assert isinstance(clusters(model()), Clusters)
    assert clusters(model()) == clusters(model())
