import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from keras_kd import tflite
from keras_kd.compression import load, prune, quantize_aware, strip, summary
from keras_kd.compression.bridge.graph import read
from keras_kd.compression.bridge.rebuilding import random_inputs

import _models
from _models import cross_entropy, outputs


def cnn():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Rescaling(2.0),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.SeparableConv2D(8, 3, activation="relu", name="separable"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, name="logits"),
        ],
        name="student",
    )


def data(count=256):
    """Four classes that differ in where they are bright."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, count)
    x = generator.normal(0, 0.3, (count, 8, 8, 1)).astype("float32")
    x[np.arange(count), :, 2 * y] += 3.0 * (y[:, None, None] + 1) / 4
    return x, y


@pytest.fixture(scope="module")
def trained():
    student = cnn()
    student.compile(
        keras.optimizers.Adam(0.01),
        cross_entropy(),
        metrics=["accuracy"],
    )
    student.fit(*data(), epochs=12, batch_size=32, verbose=0)
    return student


def train(student, epochs=3):
    optimizer = tf_keras.optimizers.Adam(0.003)
    return _models.train(
        student, *data(), epochs=epochs, batch_size=32, optimizer=optimizer, run_eagerly=False
    )


def converted(student):
    converter = tf.lite.TFLiteConverter.from_keras_model(student)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    interpreter = Interpreter(
        model_content=converter.convert(), experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    return interpreter


def run(interpreter, x):
    [source], [sink] = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(sink["index"])


def accuracy(logits):
    return float(np.mean(logits.argmax(-1) == data()[1]))


@pytest.mark.slow
def test_calibration_brings_the_student_close_to_float_before_training(trained):
    x, _ = data()
    expected = outputs(trained, x)
    errors = [
        np.abs(outputs(quantize_aware(trained, given), x) - expected).mean()
        for given in (None, x[:128])
    ]
    assert errors[1] < 0.1 * errors[0]
    assert errors[1] < 0.02 * np.abs(expected).max()


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    "form",
    [
        lambda x: {"image": x},
        lambda x: tf.data.Dataset.from_tensor_slices((x, x)).batch(50),
        lambda x: (x[start : start + 64] for start in range(0, 256, 64)),
    ],
    ids=["dict", "dataset with labels", "generator"],
)
def test_calibration_reads_every_form_of_data_and_changes_no_weight(trained, form):
    x, _ = data()
    expected = outputs(quantize_aware(trained, x), x)
    student = quantize_aware(trained, form(x))
    np.testing.assert_allclose(outputs(student, x), expected, atol=1e-4)
    stripped = strip(student)
    for layer in ("conv", "logits", "batch_normalization"):
        original = next(own for own in trained.layers if own.name.startswith(layer))
        for one, other in zip(
            original.get_weights(), stripped.get_layer(original.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((0, 8, 8, 1)), ValueError, r"without an example"),
        ([], ValueError, r"without an example"),
        (np.zeros((4, 8, 8, 3)), ValueError, r"shape \(4, 8, 8, 3\) for the input 'image'"),
        ({"picture": np.zeros((4, 8, 8, 1))}, ValueError, r"\['picture'\].*\['image'\]"),
        (np.full((4, 8, 8, 1), np.nan), ValueError, r"NaN or infinite"),
        (3, TypeError, r"representative_data of type int"),
        (np.zeros((4, 8, 8, 1), "uint8"), ValueError, r"type uint8 .* To fix it: .* / 255"),
    ],
)
def test_data_that_cannot_calibrate(trained, given, error, message):
    with pytest.raises(error, match=message):
        quantize_aware(trained, given)


@pytest.mark.slow
def test_accuracy_and_sparsity_survive_training_stripping_and_conversion(trained):
    x, _ = data()
    pruned = train(prune(trained, 0.5))
    student = train(quantize_aware(pruned, x))

    share = {"conv": 0.5, "separable": 0.5, "logits": 0.5}
    for form in (student, strip(student)):
        assert summary(form).sparsities == pytest.approx(share, abs=0.04)

    interpreter = converted(student)
    logits = run(interpreter, x)
    assert accuracy(logits) >= accuracy(outputs(student, x)) - 0.02
    assert accuracy(logits) > 0.7
    kernels = {}
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] == np.int8 and tuple(tensor["shape"]) in (
            (8, 3, 3, 1),
            (4, 8),
            (8, 1, 1, 8),
        ):
            kernels[tuple(tensor["shape"])] = np.mean(interpreter.get_tensor(tensor["index"]) == 0)
    assert len(kernels) == 3
    assert min(kernels.values()) >= 0.48


def test_zeros_of_a_stripped_student_are_kept_and_zero_kernels_learn(trained):
    student = strip(train(prune(trained, 0.6)))
    student.get_layer("conv").kernel.assign(np.zeros((3, 3, 1, 8)))
    aware = train(quantize_aware(student))
    measured = summary(aware).sparsities
    assert measured["logits"] == pytest.approx(0.6, abs=0.04)
    assert measured["conv"] < 0.5


@pytest.mark.parametrize(
    "name", ["student.keras", pytest.param("student.h5", marks=pytest.mark.slow)]
)
def test_a_saved_student_loads_trains_on_and_strips(trained, tmp_path, name):
    x, _ = data()
    pruned = strip(train(prune(trained, 0.5)))
    student = quantize_aware(pruned, x, input_range=(-3, 6))
    student.save(tmp_path / name)
    loaded = load(tmp_path / name)
    np.testing.assert_array_equal(outputs(loaded, x), outputs(student, x))
    np.testing.assert_array_equal(
        strip(loaded).get_layer("conv").kernel, pruned.get_layer("conv").kernel
    )
    assert summary(strip(train(loaded, epochs=1))).sparsities == summary(pruned).sparsities


def _unsupported():
    """What TF-MOT refuses with "Layer X is not supported", in one model."""
    image = keras.Input((8, 8, 2))
    x = layers.BatchNormalization(name="alone")(image)
    x = layers.Conv2D(4, 3, activation="hard_silu", name="hard")(x)
    x = layers.Conv2D(4, 1, activation="elu", name="elu")(x)
    x = layers.ReLU(6.0)(x)
    x = layers.BatchNormalization(name="after_relu")(x)
    gate = layers.Activation("hard_sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, gate])
    x = layers.Reshape((36, 4))(x)
    x = layers.Conv1D(4, 3, name="conv1d")(x)
    x = layers.MaxPooling1D(2)(x)
    x = layers.SeparableConv1D(4, 3)(x)
    x = layers.LayerNormalization()(x)
    x = layers.PReLU()(x)
    x = layers.GlobalMaxPooling1D()(x)
    return keras.Model(image, layers.Dense(3, activation="softmax")(x))


def _words():
    words = keras.Input((6,), dtype="int32", name="words")
    hidden = layers.Dense(4, activation="relu")(layers.Embedding(9, 4)(words))
    return keras.Model(words, layers.Dense(2)(layers.Flatten()(hidden)))


def _residual():
    image = keras.Input((8, 8, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(image))
    x = layers.Activation("relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    z = layers.Concatenate()(
        [layers.Add()([x, y]), layers.UpSampling2D(2)(layers.AveragePooling2D(2)(x))]
    )
    z = layers.Conv2DTranspose(3, 2)(z)
    return keras.Model(
        image, {"sum": layers.GlobalAveragePooling2D()(z), "map": layers.Softmax()(z)}
    )


def _nested():
    base = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="dense")], name="base")
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(2, name="dense")(base(inputs)))


def _names_of_tf_mot():
    # Names that TF-MOT's transforms would give to the halves of a SeparableConv2D.
    stack = [layers.SeparableConv2D(2, 2, name=name) for name in ("conv2d", "depthwise_conv2d")]
    return keras.Sequential([keras.Input((5, 5, 1)), *stack, layers.Conv2D(2, 2, name="conv2d_1")])


def _shared_and_integers():
    numbers = keras.Input((4,), dtype="int32", name="numbers")
    tower = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="dense"), layers.BatchNormalization()]
    )
    scaled = layers.Rescaling(0.1)(numbers)
    return keras.Model(numbers, layers.Concatenate()([tower(scaled), tower(tower(scaled))]))


every_student = pytest.mark.parametrize(
    "make",
    [_unsupported, _words, _residual, _nested, _names_of_tf_mot, _shared_and_integers],
    ids=lambda f: f.__name__,
)


def examples_for(student):
    [x] = random_inputs(read(student), examples=16).values()
    return x


@pytest.mark.slow
@every_student
def test_every_student_converts(make):
    student = make()
    converted(quantize_aware(student, examples_for(student)))


@pytest.mark.fast_rows(2)
@every_student
def test_every_student_is_quantized_trains_and_strips(make):
    student = make()
    x = examples_for(student)
    aware = quantize_aware(student, x)
    expected = keras.tree.flatten(outputs(student, x))
    received = keras.tree.flatten(outputs(aware, x))
    for one, other in zip(expected, received, strict=True):
        assert np.abs(one - other).max() < 0.1 * max(1.0, np.abs(one).max())

    stripped = strip(aware)
    for one, other in zip(expected, keras.tree.flatten(outputs(stripped, x)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)

    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_mean(y**2) for y in keras.tree.flatten(aware(x, training=True)))
    assert all(g is not None for g in tape.gradient(loss, aware.trainable_weights))


def test_masks_reach_the_layers_that_use_them():
    words = keras.Input((6,), dtype="int32", name="words")
    hidden = layers.Embedding(9, 4, mask_zero=True)(words)
    hidden = layers.Dense(4, activation="gelu", name="dense")(hidden)
    student = keras.Model(words, layers.GlobalAveragePooling1D()(hidden))
    x = np.tile([[3, 5, 2, 0, 0, 0], [1, 0, 0, 0, 0, 0]], (8, 1))
    aware = quantize_aware(student, x)
    assert aware.get_layer("quant_dense").output._keras_mask is not None
    expected = outputs(student, x)
    np.testing.assert_allclose(outputs(aware, x), expected, atol=0.02 * np.abs(expected).max())


def test_frozen_layers_stay_frozen(trained):
    student = keras.models.clone_model(trained)
    student.set_weights(trained.get_weights())
    student.get_layer("conv").trainable = False
    aware = train(quantize_aware(student), epochs=1)
    stripped = strip(aware)
    assert stripped.get_layer("conv").trainable is False
    np.testing.assert_array_equal(
        stripped.get_layer("conv").kernel, student.get_layer("conv").kernel
    )
    assert (stripped.get_layer("logits").kernel != student.get_layer("logits").kernel).numpy().any()


def test_mixed_precision_becomes_float32():
    student = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, dtype="mixed_float16"), layers.Dense(2)]
    )
    aware = quantize_aware(student)
    assert all(layer.compute_dtype == "float32" for layer in aware.layers)
    aware.compile("sgd", "mse", run_eagerly=True)
    aware.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)


def test_a_student_that_is_quantization_aware_already():
    student = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"quantization-aware already.*`strip`"):
        quantize_aware(quantize_aware(student))


def test_a_range_that_clips_the_data_is_warned_of(trained):
    x, _ = data()
    with pytest.warns(UserWarning, match=r"input_range=\(0.0, 1.0\).*outside of it.*clipped"):
        quantize_aware(trained, x, input_range=(0, 1))


@pytest.mark.parametrize("argument", ["per_channel", "preserve_sparsity", "preserve_clusters"])
def test_flags_must_be_true_or_false(trained, argument):
    with pytest.raises(TypeError, match=f"{argument}='no'.*True or False"):
        quantize_aware(trained, **{argument: "no"})


def test_a_stateful_student_is_trained_without_state():
    def student(length, **options):
        steps = keras.Input((length, 3), batch_size=1 if options.get("stateful") else None)
        memory = layers.GRU(4, name="memory", **options)(steps)
        return keras.Model(steps, layers.Dense(2, name="scores")(memory))

    x = np.random.default_rng(0).normal(size=(64, 5, 3)).astype("float32")
    stateful = student(1, stateful=True)
    with pytest.raises(ValueError, match=r"stateful=True.*stateful=False and unroll=True"):
        quantize_aware(stateful, x[:, :1])
    trained = quantize_aware(student(5, unroll=True), x)
    stateful.set_weights(strip(trained).get_weights())
    model = tflite.convert(stateful, "int8", x.reshape(-1, 1, 3)[:100], "microcontroller")
    assert model.state_outputs == {"memory_h": "memory_h_next"}
