"""What every compression must keep, from before training down to the bytes of the file.

A compression is a row of `CASES`. What it promises of a kernel is checked on the trained student,
on the plain one that `strip` makes of it, on that one loaded from its file, and on the tensors of
the `.tflite`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd
from keras_kd import compression, losses, tflite
from keras_kd.compression.families import BY_NAME

from _models import cross_entropy

TRAIN, TEST, BATCH = 2000, 1000, 50
# Shares are met up to one weight of the smallest kernel.
SMALLEST_KERNEL = 72


def model(filters, name):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            *convolution(filters, "first"),
            *convolution(2 * filters, "second"),
            layers.Flatten(name="flat"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
        ],
        name=name,
    )


def convolution(filters, name):
    return [
        layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=name),
        layers.BatchNormalization(momentum=0.9, name=f"{name}_normalization"),
        layers.ReLU(name=f"{name}_relu"),
    ]


@pytest.fixture(scope="module")
def digits():
    data = keras_kd.data.load_sample()
    return data.x_train[:TRAIN], data.y_train[:TRAIN], data.x_test[:TEST], data.y_test[:TEST]


def on_labels(student, digits, epochs):
    student.compile(keras.optimizers.Adam(0.003), cross_entropy(), jit_compile=False)
    student.fit(*digits[:2], epochs=epochs, batch_size=BATCH, verbose=0)
    return student


@pytest.fixture(scope="module")
def teacher(digits):
    return on_labels(model(16, "teacher"), digits, epochs=5)


@pytest.fixture(scope="module")
def student(digits):
    return on_labels(model(8, "student"), digits, epochs=5)


def taught(teacher, student, digits, epochs=2):
    """The Distiller that has trained a student on outputs and on features of other widths."""
    features = losses.Hint("second_relu", "second_relu")
    distiller = keras_kd.Distiller(teacher, student, [losses.SoftTargets(4.0), features], [1, 10])
    distiller.compile(keras.optimizers.Adam(0.001), cross_entropy(), jit_compile=False)
    distiller.fit(*digits[:2], epochs=epochs, batch_size=BATCH, verbose=0)
    return distiller


def accuracy(scores, digits):
    return float(np.mean(scores.argmax(-1) == digits[3]))


# What is promised, as a function of the kernels: arrays by the layers' names, in the shapes of
# Keras. `stored` says that they come from a file, where the numbers may be integers.


def zeros(share, kernels, stored):
    for name, kernel in kernels.items():
        assert np.mean(kernel == 0) >= share - 1 / SMALLEST_KERNEL, name


def zeros_of_groups(zeros, of, kernels, stored):
    for name, kernel in kernels.items():
        # Along the input channels, where the runtime looks for them.
        rows = np.moveaxis(kernel, -2, -1).reshape(-1, kernel.shape[-2])
        groups = rows[:, : rows.shape[1] // of * of].reshape(-1, of)
        assert np.all(np.sum(groups == 0, axis=1) >= zeros), name


def zeros_of_blocks(share, rows, kernels, stored):
    zeros(share, kernels, stored)
    for name, kernel in kernels.items():
        is_zero = (kernel == 0)[: len(kernel) // rows * rows].reshape(-1, rows, kernel.shape[1])
        assert np.all(is_zero.all(axis=1) == is_zero.any(axis=1)), name


def values(number, kernels, stored):
    for name, kernel in kernels.items():
        # In the file each filter is multiplied with the scale of its normalization.
        is_scaled = stored and kernel.ndim == 4
        for part in np.moveaxis(kernel, -1, 0) if is_scaled else [kernel]:
            assert np.unique(part).size <= number, name


def values_of_channels(number, kernels, stored):
    for name in ("first", "second"):
        for channel in np.moveaxis(kernels[name], -1, 0):
            assert np.unique(channel).size <= number, name


def zeros_and_values(share, number, kernels, stored):
    zeros(share, kernels, stored)
    values(number, kernels, stored)


def bits(number, kernels, stored):
    for name, kernel in kernels.items():
        assert np.all(np.isfinite(kernel))
        if stored:
            assert kernel.dtype == np.int8, name
            assert np.unique(kernel).size <= 2**number, name
            # Symmetric, so that zero is zero.
            assert np.abs(kernel.astype(int)).max() <= 2 ** (number - 1) - 1, name


def bits_and(promise, kernels, stored):
    bits(8, kernels, stored)
    promise(kernels, stored)


def shapes(expected, kernels, stored):
    assert {name: kernel.shape for name, kernel in kernels.items()} == expected


@dataclass(frozen=True)
class Case:
    """A compression, what it promises, and how near it stays to the student before training.

    Attributes:
        compress: makes the compressed student of the trained one.
        promise: asserts what holds after training.
        before: compressions, by the names of their cases, that the student has been through.
        difference: of the outputs before training, as a share of their range; None where they
            need not be equal.
        lost: how much accuracy may be lost, training included.
        layers: the kernels that the promise is for; None for all.
    """

    compress: Callable[[Any, Any], Any]
    promise: Callable[[dict, bool], None]
    before: str | None = None
    difference: float | None = None
    lost: float = 0.02
    layers: tuple[str, ...] | None = None

    @property
    def quantization(self):
        return "int8" if "bits" in str(self.promise.func.__name__) else "float32"


DENSE = ("hidden", "logits")
CASES = {
    "factorize": Case(
        lambda student, x: compression.factorize(student, rank=12, layers="hidden"),
        partial(
            shapes,
            {
                "first": (3, 3, 1, 8),
                "second": (3, 3, 8, 16),
                "hidden_factor": (784, 12),
                "hidden": (12, 32),
                "logits": (32, 10),
            },
        ),
    ),
    "factorize to all ranks": Case(
        # A kernel of rank 12 is the same kernel in fewer weights.
        lambda student, x: compression.factorize(low_rank(student), energy=1.0, layers="hidden"),
        partial(shapes, {"hidden": (12, 32), "hidden_factor": (784, 12)}),
        layers=("hidden_factor", "hidden"),
    ),
    "remove_filters": Case(
        lambda student, x: compression.remove_filters(student, 0.25),
        partial(
            shapes,
            {
                "first": (3, 3, 1, 6),
                "second": (3, 3, 6, 12),
                "hidden": (588, 24),
                "logits": (24, 10),
            },
        ),
        lost=0.04,
    ),
    "prune": Case(
        lambda student, x: compression.prune(student, 0.6), partial(zeros, 0.6), difference=0.0
    ),
    "prune m by n": Case(
        lambda student, x: compression.prune(student, pattern=compression.MByN(2, 4)),
        partial(zeros_of_groups, 2, 4),
        difference=0.0,
        layers=("second", "hidden", "logits"),
    ),
    "prune blocks": Case(
        lambda student, x: compression.prune(
            student, 0.4, pattern=compression.Blocks((4, 1)), layers=DENSE
        ),
        partial(zeros_of_blocks, 0.4, 4),
        difference=0.0,
        layers=DENSE,
    ),
    "cluster": Case(
        lambda student, x: compression.cluster(student, 16), partial(values, 16), difference=0.02
    ),
    "cluster per channel": Case(
        lambda student, x: compression.cluster(student, 8, per_channel=True),
        partial(values_of_channels, 8),
        difference=0.05,
    ),
    "cluster sparse": Case(
        lambda student, x: compression.cluster(student, 16),
        partial(zeros_and_values, 0.6, 16),
        before="prune",
        difference=0.02,
    ),
    "quantize_aware": Case(
        lambda student, x: compression.quantize_aware(student, x),
        partial(bits, 8),
        difference=0.01,
    ),
    "quantize_aware sparse": Case(
        lambda student, x: compression.quantize_aware(student, x),
        partial(bits_and, partial(zeros, 0.6)),
        before="prune",
        difference=0.01,
    ),
    "quantize_aware clustered": Case(
        lambda student, x: compression.quantize_aware(student, x),
        partial(bits_and, partial(values, 16)),
        before="cluster",
        difference=0.01,
    ),
    "quantize_aware sparse and clustered": Case(
        lambda student, x: compression.quantize_aware(student, x),
        partial(bits_and, partial(zeros_and_values, 0.6, 16)),
        before="cluster sparse",
        difference=0.05,
    ),
}
# One case of each family, by its name.
FAST = set(BY_NAME)


def test_every_family_has_a_case():
    assert set(CASES) >= FAST


def low_rank(student):
    copy = keras.models.clone_model(student)
    copy.set_weights(student.get_weights())
    hidden = copy.get_layer("hidden")
    left, singular, right = np.linalg.svd(hidden.kernel.numpy(), full_matrices=False)
    hidden.kernel.assign((left[:, :12] * singular[:12]) @ right[:12])
    return copy


class Compressed:
    """One case, compressed and taught."""

    def __init__(self, case, start, teacher, digits):
        self.case = case
        self.start = start
        self.student = case.compress(start, digits[0][:500])
        self.before = scores(self.student, digits[2])
        self.distiller = taught(teacher, self.student, digits)
        self.plain = compression.strip(self.student)
        source = self.student if case.quantization == "int8" else self.plain
        self.file = tflite.convert(source, case.quantization, digits[0][:200])

    def kernels(self, model):
        found = {
            layer.name: np.asarray(layer.kernel)
            for layer in model.layers
            if hasattr(layer, "kernel") and layer.name in (self.case.layers or [layer.name])
        }
        assert found
        return found

    def stored_kernels(self):
        """The kernels as the file stores them, in the shapes of Keras."""
        stored = [
            np.transpose(tensor, (1, 2, 3, 0)) if tensor.ndim == 4 else tensor.T
            for tensor in stored_tensors(self.file)
            if tensor.ndim in (2, 4)
        ]
        expected = {name: kernel.shape for name, kernel in self.kernels(self.plain).items()}
        by_shape = {tensor.shape: tensor for tensor in stored}
        return {name: by_shape[shape] for name, shape in expected.items()}


def scores(model, x):
    return np.asarray(model(x, training=False))


def difference(received, expected):
    """The mean difference as a share of the range."""
    return float(np.abs(received - expected).mean() / np.ptp(expected))


def stored_tensors(file):
    from ai_edge_litert import schema_py_generated as schema

    types = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT8: np.int8}
    content = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(file.content, 0))
    for tensor in content.subgraphs[0].tensors:
        data = content.buffers[tensor.buffer].data
        if data is not None and tensor.type in types:
            yield np.frombuffer(bytes(data), types[tensor.type]).reshape(tensor.shape)


@pytest.fixture(scope="module")
def compressed(student, teacher, digits):
    """The cases by name, each made when first asked for."""
    made = {}

    def of(name):
        if name not in made:
            case = CASES[name]
            start = of(case.before).plain if case.before else student
            made[name] = Compressed(case, start, teacher, digits)
        return made[name]

    return of


@pytest.fixture(
    params=[name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
    scope="module",
)
def one(request, compressed):
    return compressed(request.param)


def test_before_training_the_student_says_what_it_said(one, digits):
    if one.case.difference is None:
        pytest.skip("this compression changes what the student says")
    assert difference(one.before, scores(one.start, digits[2])) <= one.case.difference + 1e-6


def test_the_promise_holds_after_training(one):
    one.case.promise(one.kernels(one.plain), False)


def test_the_promise_holds_in_the_file(one):
    one.case.promise(one.stored_kernels(), True)


def test_the_promise_holds_after_a_reload(one, tmp_path):
    one.plain.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    one.case.promise(one.kernels(loaded), False)


def test_the_stripped_student_says_what_the_trained_one_says(one, digits):
    # Without its rounding a quantization-aware student says almost the same.
    tolerance = 0.01 if one.case.quantization == "int8" else 1e-6
    assert difference(scores(one.plain, digits[2]), scores(one.student, digits[2])) <= tolerance


def test_it_learns_with_features_and_an_adapter(one):
    [_, bridge] = one.distiller._objective.bridges
    assert bridge.weights
    assert np.isfinite([np.asarray(weight).sum() for weight in bridge.weights]).all()
    names = {layer.name.split("_", 1)[-1] for layer in one.student.layers}
    assert any("relu" in name for name in names)


def test_accuracy_stays(one, student, digits):
    before = accuracy(scores(student, digits[2]), digits)
    assert before > 0.9
    for said in (scores(one.student, digits[2]), one.file.predict(digits[2])):
        assert accuracy(said, digits) >= before - one.case.lost


def test_weights_go_to_a_student_that_is_compressed_alike(one, digits, tmp_path):
    before = one.start.get_weights()
    again = one.case.compress(one.start, digits[0][:500])
    for first, second in zip(before, one.start.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    path = str(tmp_path / "student.weights.h5")
    one.student.save_weights(path)
    again.load_weights(path)
    np.testing.assert_array_equal(scores(again, digits[2]), scores(one.student, digits[2]))


def test_it_is_the_same_when_it_is_saved_and_loaded(one, digits, tmp_path):
    path = tmp_path / "student.keras"
    one.student.save(path)
    is_plain = isinstance(one.student, keras.Model)
    loaded = keras.models.load_model(path) if is_plain else compression.load(path)
    # A copy may multiply in another order.
    assert difference(scores(loaded, digits[2]), scores(one.student, digits[2])) <= 1e-6
    one.case.promise(one.kernels(compression.strip(loaded)), False)
    assert hasattr(loaded, "training_callbacks") == hasattr(one.student, "training_callbacks")
