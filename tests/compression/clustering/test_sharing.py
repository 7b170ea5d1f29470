import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from keras import layers

import keras_kd
from keras_kd.compression import (
    PolynomialSchedule,
    cluster,
    load,
    prune,
    quantize_aware,
    strip,
    summary,
    to_tf_keras,
)

import _models
from _models import cnn, cross_entropy, examples_for, mlp, outputs

# Four steps.
train = functools.partial(_models.train, epochs=1)


def most_values(model):
    """The largest number of values in a kernel, or channel, of those that are clustered."""
    found = [each for each in summary(model).kernels if each.layer != "depthwise"]
    return max(each.values_per_channel or each.values for each in found)


def kernels(model):
    return {
        layer.name: weight.numpy()
        for layer in strip(model).layers
        for weight in layer.weights
        if weight.name in ("kernel", "pointwise_kernel")
    }


def test_weights_share_no_more_values_than_asked_for_after_training():
    student = cnn()
    before = student.get_weights()
    clustered = train(cluster(student, 5), run_eagerly=False)
    for model in (clustered, strip(clustered)):
        values = summary(model).values
        assert values.pop("depthwise") == 36
        assert set(values) == {"conv", "separable", "hidden", "logits"}
        assert set(values.values()) <= {4, 5}
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_moves_the_values_and_what_lies_behind_them():
    clustered = cluster(mlp(), 4)
    wrapper = clustered.get_layer("cluster_hidden")
    before = {weight.name: weight.numpy() for weight in clustered.weights}
    # What moves a value is the sum of the gradients of the weights that have it.
    x, y = examples_for(clustered)
    with tf.GradientTape() as tape:
        loss = cross_entropy(tf_keras)(y, clustered(x, training=True))
    original, centroids = wrapper.layer.kernel, wrapper.weights[2]
    gradient, shared = tape.gradient(loss, [original, centroids])
    clustered_kernel = kernels(clustered)["hidden"]
    expected = [
        np.sum(gradient.numpy()[clustered_kernel == value]) for value in centroids.numpy()[0]
    ]
    np.testing.assert_allclose(shared[0], expected, rtol=1e-4, atol=1e-6)
    train(clustered)
    for weight in clustered.trainable_weights:
        assert not np.array_equal(weight, before[weight.name]), weight.name


def test_what_evaluation_computes_is_what_strip_gives():
    clustered = train(cluster(cnn(), 6, per_channel=True))
    x, _ = examples_for(clustered)
    before = clustered.get_weights()
    stripped = strip(clustered)
    np.testing.assert_array_equal(outputs(clustered, x), outputs(to_tf_keras(stripped), x))
    assert isinstance(stripped, keras.Model)
    assert [layer.name for layer in stripped.layers[1:]] == [layer.name for layer in cnn().layers]
    for one, other in zip(before, clustered.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_tf_mot_itself_changes_weights_in_inference():
    # The trap that looking values up avoids.
    model = tfmot.clustering.keras.cluster_weights(
        to_tf_keras(mlp()), 4, tfmot.clustering.keras.CentroidInitialization.LINEAR
    )
    wrapper = model.layers[1]
    [indices] = [weight for weight in wrapper.weights if "indices" in weight.name]
    wrapper.original_clusterable_weights["kernel"].assign(np.zeros((16, 10)))
    before = indices.numpy()
    model(examples_for(model)[0], training=False)
    assert not np.array_equal(indices.numpy(), before)


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("initialization", ["kmeans++", "linear", "density", "random"])
def test_initializations(initialization):
    def clustered():
        tf_keras.utils.set_random_seed(5)
        return cluster(mlp(), 8, initialization=initialization)

    assert set(summary(clustered()).values.values()) <= set(range(4, 9))
    for one, other in zip(clustered().get_weights(), clustered().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_with_few_different_values_begin_as_they_are():
    student = mlp()
    x, _ = examples_for(student)
    student.get_layer("hidden").kernel.assign(np.random.default_rng(0).choice([1, -2, 3], (16, 10)))
    # As many values as weights.
    clustered = cluster(student, 40)
    np.testing.assert_allclose(outputs(clustered, x), outputs(student, x), rtol=1e-5)


def test_a_kernel_that_begins_with_zeros_trains():
    student = keras.Sequential(
        [keras.Input((16,)), layers.Dense(4, kernel_initializer="zeros", name="logits")]
    )
    clustered = train(cluster(student, 4), epochs=8)
    assert 1 < summary(clustered).values["logits"] <= 4


@pytest.mark.parametrize("axis", [pytest.param(None, marks=pytest.mark.slow), -1, -2])
def test_channels_have_values_of_their_own(axis):
    kind = {None: layers.Conv1D, -1: layers.Conv2D, -2: layers.Conv2DTranspose}[axis]
    shape = (8, 3) if axis is None else (8, 8, 3)
    student = keras.Sequential(
        [keras.Input(shape), kind(5, 3, name="conv"), layers.Flatten(), layers.Dense(4, name="d")]
    )
    clustered = train(cluster(student, 3, per_channel=True), epochs=1)
    [conv, dense] = summary(clustered).kernels
    assert conv.values_per_channel == 3
    assert conv.values > 3
    assert dense.values == 3
    kernel = np.moveaxis(kernels(clustered)["conv"], axis or -1, 0)
    assert [len(np.unique(channel)) for channel in kernel] == [3] * 5


@pytest.mark.parametrize("form", ["wrapped", pytest.param("stripped", marks=pytest.mark.slow)])
def test_the_zeros_of_a_pruned_student_stay(form):
    pruned = train(prune(cnn(), 0.6, schedule=PolynomialSchedule(end_step=2, frequency=1)))
    before = kernels(pruned)
    student = pruned if form == "wrapped" else strip(pruned)
    optimizer = tf_keras.optimizers.AdamW(0.01, weight_decay=0.1)
    clustered = train(cluster(student, 4, per_channel=True), optimizer=optimizer)
    assert summary(clustered).sparsities == summary(pruned).sparsities
    for name, kernel in kernels(clustered).items():
        np.testing.assert_array_equal(kernel == 0, before[name] == 0, name)
    assert most_values(clustered) == 4


def test_zeros_do_not_stay_where_they_are_not_wanted():
    student = mlp()
    kernel = student.get_layer("hidden").kernel
    kernel.assign(np.where(np.arange(160).reshape(16, 10) % 2, kernel, 0))
    assert summary(train(cluster(student, 8))).sparsities["hidden"] == 0.5
    clustered = train(cluster(student, 8, preserve_sparsity=False))
    assert summary(clustered).sparsities["hidden"] == 0
    assert summary(clustered).values["hidden"] == 8


def test_a_student_is_clustered_under_a_distiller_with_features():
    teacher, clustered = cnn(), cluster(cnn(), 4)
    distiller = keras_kd.Distiller(
        teacher,
        clustered,
        [keras_kd.losses.SoftTargets(), keras_kd.losses.Hint("hidden", "hidden")],
    )
    distiller.compile(keras.optimizers.Adam(0.01), cross_entropy(), run_eagerly=True)
    x, y = examples_for(clustered)
    before = [weight.numpy() for weight in clustered.trainable_weights]
    history = distiller.fit(x, y, batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite(history["distillation_loss"]).all()
    after = clustered.trainable_weights
    assert not any(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    assert most_values(strip(clustered)) == 4


@pytest.mark.parametrize(
    ("options", "gradient_aggregation"),
    [
        ({}, "mean"),
        pytest.param({"jit_compile": True}, "mean", marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, "sum", marks=pytest.mark.slow),
        pytest.param({"steps_per_execution": 2}, "sum", marks=pytest.mark.slow),
    ],
)
def test_steps_of_all_kinds_are_the_same(options, gradient_aggregation):
    def trained(**mode):
        student = prune(mlp(), 0.5, schedule=PolynomialSchedule(end_step=1))
        clustered = cluster(student, 4, gradient_aggregation=gradient_aggregation)
        return train(clustered, optimizer=tf_keras.optimizers.SGD(0.05), **mode)

    expected = trained(run_eagerly=True)
    received = trained(run_eagerly=False, compiled=options)
    for one, other in zip(expected.get_weights(), received.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_student_in_mixed_precision_is_clustered_in_full_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = cnn()
    finally:
        keras.config.set_dtype_policy("float32")
    clustered = train(cluster(student, 4))
    assert strip(clustered).get_layer("hidden").compute_dtype == "float16"
    assert most_values(clustered) == 4
    x, _ = examples_for(clustered)
    assert clustered(x).dtype == tf.float16
    np.testing.assert_array_equal(outputs(clustered, x), outputs(to_tf_keras(strip(clustered)), x))


def test_regularizers_and_activity_regularizers_count_once():
    student = mlp(kernel_regularizer=keras.regularizers.L2(0.5), activity_regularizer="l1")
    x, _ = examples_for(student)
    clustered, plain = cluster(student, 200), to_tf_keras(student)
    for model in (clustered, plain):
        model(x)
    assert len(clustered.losses) == 2
    np.testing.assert_allclose(sum(clustered.losses), sum(plain.losses), rtol=1e-6)


def test_masks_and_the_training_flag_reach_the_layer():
    words = keras.Input((6,), dtype="int32")
    embedded = layers.Embedding(5, 8, mask_zero=True, name="words")(words)
    hidden = layers.Dense(8, name="dense")(embedded)
    student = keras.Model(words, layers.GlobalAveragePooling1D()(hidden))
    x = np.array([[1, 2, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]])
    clustered = cluster(student, 64)
    assert [layer.name for layer in clustered.layers[1:3]] == ["cluster_words", "cluster_dense"]
    np.testing.assert_allclose(outputs(clustered, x), outputs(student, x), rtol=1e-5)


def test_a_shared_layer_stays_shared():
    one, other = keras.Input((4,)), keras.Input((4,))
    dense = layers.Dense(4, name="shared")
    student = keras.Model([one, other], layers.Add()([dense(one), dense(other)]))
    clustered = cluster(student, 3)
    assert [layer.name for layer in clustered.layers if "shared" in layer.name] == [
        "cluster_shared"
    ]
    clustered.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    clustered.fit([x, x], x, verbose=0)
    assert summary(strip(clustered)).values == {"shared": 3}


def test_frozen_layers_are_left_alone_and_freezing_later_holds():
    clustered = cluster(cnn(frozen=True), 4)
    assert clustered.get_layer("conv").trainable is False
    wrapper = clustered.get_layer("cluster_hidden")
    wrapper.trainable = False
    before = wrapper.layer.get_weights(), kernels(clustered)["hidden"]
    train(clustered)
    assert wrapper.trainable_weights == []
    for one, other in zip(before[0], wrapper.layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before[1], kernels(clustered)["hidden"])


def test_depthwise_kernels_are_clustered_if_asked_for():
    clustered = train(cluster(cnn(), 4, layers=[keras.layers.DepthwiseConv2D, "logits"]))
    assert summary(clustered).values["depthwise"] == 4
    assert summary(clustered).values["conv"] == 36
    assert summary(clustered).values["logits"] == 4


def test_layers_are_chosen_by_a_function_and_skipped_by_name():
    clustered = cluster(
        cnn(), 4, layers=lambda layer: isinstance(layer, keras.layers.Dense), skip="logits"
    )
    assert [layer.name for layer in clustered.layers if layer.name.startswith("cluster_")] == [
        "cluster_hidden"
    ]


def test_layers_of_a_pruned_student_are_chosen_by_their_own_names():
    clustered = cluster(prune(mlp(), 0.5), 4, layers="hidden")
    assert [layer.name for layer in clustered.layers[1:]] == ["cluster_hidden", "logits"]


@pytest.mark.parametrize(
    "name",
    [
        "student.keras",
        pytest.param("student.h5", marks=pytest.mark.slow),
        pytest.param("student", marks=pytest.mark.slow),
    ],
)
def test_a_clustered_student_saves_and_loads(name, tmp_path):
    clustered = train(
        cluster(prune(cnn(), 0.5, schedule=PolynomialSchedule(end_step=1)), 4, per_channel=True)
    )
    clustered.save(tmp_path / name)
    loaded = load(tmp_path / name)
    x, y = examples_for(clustered)
    # A copy of the normalization computes in another order.
    np.testing.assert_allclose(outputs(loaded, x), outputs(clustered, x), atol=1e-5)
    for layer, kernel in kernels(clustered).items() if name != "student" else ():
        np.testing.assert_array_equal(kernels(loaded)[layer], kernel)
    if name != "student":
        # Trained on, it knows its zeros.
        loaded.fit(x, y, verbose=0)
        assert summary(loaded).sparsities == summary(clustered).sparsities
        assert most_values(loaded) == 4


@pytest.mark.slow
def test_weights_files_copies_and_backups(tmp_path):
    student = cnn()
    clustered = train(cluster(student, 4))
    clustered.save_weights(tmp_path / "a.weights.h5")
    other = cluster(student, 4)
    other.load_weights(tmp_path / "a.weights.h5")
    copy = tf_keras.models.clone_model(clustered)
    copy.set_weights(clustered.get_weights())
    x, _ = examples_for(clustered)
    for model in (other, copy):
        np.testing.assert_array_equal(outputs(model, x), outputs(clustered, x))
    train(copy, epochs=1)
    np.testing.assert_array_equal(outputs(other, x), outputs(clustered, x))


class Killed(Exception):
    pass


class Kill(tf_keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise Killed


@pytest.mark.slow
def test_a_training_that_was_interrupted_goes_on(tmp_path):
    def training():
        clustered = cluster(prune(mlp(), 0.5, schedule=PolynomialSchedule(end_step=1)), 4)
        clustered.compile(tf_keras.optimizers.Adam(0.01), cross_entropy(tf_keras))
        return clustered

    def fit(model, callbacks):
        x, y = examples_for(model)
        model.fit(x, y, epochs=4, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)

    whole, first, second = training(), training(), training()
    fit(whole, [])
    backup = tf_keras.callbacks.BackupAndRestore(str(tmp_path))
    with pytest.raises(Killed):
        fit(first, [backup, Kill()])
    fit(second, [tf_keras.callbacks.BackupAndRestore(str(tmp_path))])
    for one, other in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_clusters": 1}, "num_clusters=1.*at least 2"),
        ({"initialization": "kmeans"}, r"initialization='kmeans'.*'kmeans\+\+'"),
        ({"gradient_aggregation": "average"}, "gradient_aggregation='average'.*'mean'"),
        ({"preserve_sparsity": "yes"}, "preserve_sparsity='yes'.*'auto'"),
        ({"preserve_sparsity": True, "num_clusters": 2}, r"\['conv', .*zeros are kept"),
        ({"skip": ["convv"]}, r"skip=\['convv'\].*'conv'"),
        ({"layers": "normalization"}, r"\['normalization'\] cannot be clustered"),
        ({"layers": keras.layers.ReLU}, "no chosen layer can be clustered"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        cluster(cnn(), **arguments)


def test_the_number_of_clusters_must_be_whole():
    with pytest.raises(TypeError, match=r"num_clusters=4\.5"):
        cluster(mlp(), 4.5)


@pytest.mark.parametrize(
    ("compress", "state"), [(cluster, "clustered"), (quantize_aware, "quantization-aware")]
)
def test_a_student_that_is_compressed_already(compress, state):
    with pytest.raises(ValueError, match=rf"{state} already.*a plain student.*`strip`"):
        cluster(compress(mlp()))


def test_a_clustered_student_is_not_pruned_nor_converted():
    with pytest.raises(ValueError, match="clustered already"):
        prune(cluster(mlp()))
    with pytest.raises(ValueError, match=r"with clustering wrappers.*strip"):
        keras_kd.tflite.convert(cluster(mlp()))
