import gzip
import heapq

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import (
    cluster,
    factorize,
    prune,
    quantize_aware,
    remove_filters,
    strip,
    summary,
    to_tf_keras,
)
from keras_kd.compression.report import sparsity_of
from keras_kd.tflite import convert


def model():
    student = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, name="conv"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(8, name="dense"),
        ],
        name="student",
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


def half_zero():
    student = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.DepthwiseConv2D(2, name="depthwise"),
            layers.SeparableConv2D(2, 2, name="separable"),
            layers.Flatten(),
            layers.Dense(4, name="dense"),
        ]
    )
    kernel = np.ones((8, 4))
    kernel[:6] = 0
    student.get_layer("dense").kernel.assign(kernel)
    return student


def wide():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", name="conv"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.SeparableConv2D(6, 3, padding="same", name="separable"),
            layers.Conv2DTranspose(4, 2, strides=2, name="transposed"),
            layers.Flatten(),
            # Its counter is no parameter.
            layers.Dropout(0.1),
            layers.Dense(2, name="logits"),
        ]
    )


def dense(units, inputs, kernel):
    student = keras.Sequential([keras.Input((inputs,)), layers.Dense(units, name="dense")])
    student.layers[0].kernel.assign(kernel)
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


@pytest.mark.parametrize("form", [lambda model: model, to_tf_keras, prune])
def test_shares_of_zeros(form):
    measured = summary(form(half_zero()))
    # A depthwise kernel without zeros does not count in the whole.
    assert measured.sparsities == {"depthwise": 0.0, "separable": 0.0, "dense": 0.75}
    assert measured.sparsity == sparsity_of(form(half_zero())) == 24 / 34
    assert [(k.layer, k.kernel, k.weights, k.zeros) for k in measured.kernels[1:]] == [
        ("separable", "pointwise_kernel", 2, 0),
        ("dense", "kernel", 32, 24),
    ]
    assert measured["dense"].sparsity == 0.75


def test_a_depthwise_kernel_counts_once_it_has_a_zero():
    student = half_zero()
    kernel = np.ones((2, 2, 1, 1))
    kernel[0] = 0
    student.layers[0].kernel.assign(kernel)
    assert summary(student)["depthwise"].sparsity == 0.5
    assert summary(student).sparsity == 26 / 38


@pytest.mark.parametrize("compress", [cluster, quantize_aware])
def test_zeros_of_clustered_and_quantization_aware_students(compress):
    kernel = np.random.default_rng(0).normal(size=(4, 8))
    kernel[:2] = 0
    assert summary(compress(dense(8, 4, kernel))).sparsities == {"dense": 0.5}


@pytest.mark.parametrize("form", [lambda model: model, to_tf_keras, prune, cluster])
def test_values_and_sizes_of_each_kernel(form):
    student = model()
    measured = summary(form(student))
    assert (measured["conv"].values, measured["dense"].values) == (6, 4)
    conv, depthwise, dense = measured.kernels
    assert (conv.weights, conv.values, conv.values_per_channel) == (18, 6, 4)
    # Whole: 3 bits each and 6 values. By channel: 2 bits and 1 bit, and as many values.
    assert (conv.float_bytes, conv.indexed_bytes) == (72, 6 * 4 + 4)
    assert (dense.values, dense.values_per_channel) == (4, None)
    assert (dense.float_bytes, dense.indexed_bytes) == (256, 64 * 2 // 8 + 4 * 4)
    kernel = student.get_layer("dense").kernel.numpy()
    assert dense.gzip_bytes == len(gzip.compress(kernel.tobytes(), mtime=0))
    huffman = 16 + huffman_bits(kernel) / 8
    assert huffman - 64 / 8 < dense.entropy_bytes <= np.ceil(huffman)
    # Random, each of its 18 weights on its own.
    assert (depthwise.values, depthwise.indexed_bytes) == (18, 72)
    assert measured.indexed_bytes == conv.indexed_bytes + dense.indexed_bytes + 72


def test_entropy_by_hand():
    student = dense(4, 4, [[1] * 4, [1] * 4, [2] * 4, [3, 3, 3, 4]])
    counts = np.array([8, 4, 3, 1])
    bits = -np.sum(counts * np.log2(counts / 16))
    assert summary(student).entropy_bytes == 16 + np.ceil(bits / 8)


def test_kernels_without_equal_weights_are_stored_as_they_are():
    measured = summary(dense(3, 7, np.arange(21).reshape(7, 3)))
    assert measured.indexed_bytes == measured.entropy_bytes == measured.float_bytes == 84


def test_a_kernel_of_a_single_value_needs_no_bits():
    measured = summary(dense(4, 4, np.ones((4, 4))))
    assert measured.indexed_bytes == measured.entropy_bytes == 4


@pytest.mark.slow
def test_the_file_does_not_shrink_but_its_size_after_gzip_does():
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
    of_student, of_clustered = summary(student), summary(clustered)
    saved = of_student.gzip_bytes - of_clustered.gzip_bytes
    assert before.compressed_size - after.compressed_size == pytest.approx(saved, rel=0.1)
    # 4 bits of 32; gzip knows only bytes that repeat.
    assert of_clustered.indexed_bytes < 0.14 * of_student.float_bytes
    assert of_clustered.gzip_bytes < 0.35 * of_student.gzip_bytes


def test_every_kernel_of_a_recurrent_layer_has_a_row():
    student = keras.Sequential(
        [keras.Input((3, 2)), layers.Bidirectional(layers.LSTM(2), name="both")]
    )
    backward = student.layers[0].backward_layer.cell
    backward.recurrent_kernel.assign(np.zeros((2, 8)))
    measured = summary(student)
    assert [(row.kernel, row.weights, row.zeros) for row in measured.kernels] == [
        ("forward_layer/kernel", 16, 0),
        ("forward_layer/recurrent_kernel", 16, 0),
        ("backward_layer/kernel", 16, 0),
        ("backward_layer/recurrent_kernel", 16, 16),
    ]
    assert measured.sparsities == {"both": 0.25}


def test_layers_inside_nested_models_count():
    outer = summary(keras.Sequential([keras.Input((6, 6, 1)), model()]))
    assert outer.kernels == summary(model()).kernels


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclassed_model_is_measured_without_multiplications():
    student = Subclassed()
    student(np.zeros((1, 3)))
    measured = summary(student)
    assert (measured.parameters, measured.multiplications, measured.sparsity) == (8, None, 0.0)


def test_a_model_without_kernels():
    measured = summary(keras.Sequential([keras.Input((4,)), layers.ReLU(name="relu")], name="none"))
    assert (measured.parameters, measured.sparsity, measured.kernels) == (0, None, ())
    assert str(measured) == "none: 0 parameters, 0 multiplications"
    with pytest.raises(ValueError, match=r"Received student='student'"):
        summary("student")


def test_multiplications_before_and_after():
    student = wide()
    measured = summary(remove_filters(student, 0.5), student)
    before = {layer.name: layer.channels for layer in measured.original.layers if layer.channels}
    after = {layer.name: layer.channels for layer in measured.layers if layer.channels}
    assert before == {"conv": 8, "separable": 6, "transposed": 4, "logits": 2}
    assert after == {"conv": 4, "separable": 3, "transposed": 2, "logits": 2}
    assert measured.original.parameters == student.count_params()

    def multiplications(conv, separable, transposed):
        return (
            # Strides leave 4 x 4 positions.
            16 * 9 * 3 * conv
            + 16 * 9 * conv
            + 16 * (9 * conv + conv * separable)
            # Each input position is multiplied with a 2 x 2 kernel.
            + 16 * 4 * separable * transposed
            + 64 * transposed * 2
        )

    assert measured.original.multiplications == multiplications(8, 6, 4)
    assert measured.multiplications == multiplications(4, 3, 2)
    assert measured.parameters == (
        (27 + 1) * 4 + 4 * 4 + (9 + 1) * 4 + 9 * 4 + 4 * 3 + 3 + (4 * 3 + 1) * 2 + (128 + 1) * 2
    )


def test_a_map_of_unknown_size_has_no_number_of_multiplications():
    student = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(4, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    measured = summary(remove_filters(student, 0.5), student)
    assert measured.original.multiplications is measured.multiplications is None
    assert "multiplications" not in str(measured)


def test_a_pruned_student_has_the_parameters_of_the_plain_one():
    student = wide()
    assert summary(prune(student, 0.5)).parameters == student.count_params()


def test_models_without_a_common_layer_cannot_be_compared():
    other = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="other")])
    with pytest.raises(ValueError, match=r"without a common layer.*from before"):
        summary(other, model())


def test_the_tables_of_zeros_and_channels():
    student = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(1000, kernel_initializer="ones", name="hidden"),
            layers.Dense(2, kernel_initializer="zeros", name="logits"),
        ],
        name="student",
    )
    lines = str(summary(remove_filters(student, 0.5), student)).splitlines()
    assert lines[0] == "student: 6,502 parameters, 6,000 multiplications, 16.7% zeros"
    # How much gzip saves depends on its version.
    assert [line.rsplit(maxsplit=1)[0].rstrip() for line in lines[2:6]] == [
        "layer    kernel  weights   zeros  values  channel   bytes  indexed  entropy",
        "hidden   kernel    5,000    0.0%       1           20,000        4        4",
        "logits   kernel    1,000  100.0%       1            4,000        4        4",
        "overall            6,000   16.7%                   24,000        8        8",
    ]
    assert lines[7:] == [
        "filters or units of  before  after  left",
        "hidden                1,000    500   50%",
        "logits                    2      2  100%",
        "all parameters       13,002  6,502   50%",
        "multiplications      12,000  6,000   50%",
    ]


def test_the_table_of_a_factorized_student():
    student = keras.Sequential(
        [keras.Input((12,)), layers.Dense(10, name="hidden"), layers.Dense(2, name="logits")]
    )
    lines = str(summary(factorize(student, rank=2))).splitlines()
    start = lines.index("layer   form   kernel  rank  of  before  after   error  output error")
    assert lines[start + 1].split()[:7] == ["hidden", "dense", "12x10", "2", "10", "130", "54"]
    assert lines[start + 2] == (
        "not factorized: logits, rank 2 of 2 takes 24 weights, the kernel 20"
    )


def test_the_numbers_for_programs():
    measured = summary(quantize_aware(model()))
    told = measured.to_dict()
    assert told["parameters"] == measured.parameters
    assert [layer["name"] for layer in told["layers"]] == [each.name for each in measured.layers]
    [conv] = [layer for layer in told["layers"] if layer["name"] == "conv"]
    assert conv["quantization"]["weight_bits"] == 8
    records = measured._records()
    assert {record["layer"] for record in records} == {each.name for each in measured.layers}
    assert next(r for r in records if r["layer"] == "conv")["values"] == measured["conv"].values
    assert "<table>" in measured._repr_html_()
