import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from keras import layers

from keras_kd.compression import (
    Blocks,
    ConstantSchedule,
    MByN,
    PolynomialSchedule,
    prune,
    quantize_aware,
    strip,
    summary,
    to_tf_keras,
)

from _models import cnn, cross_entropy, examples_for, mlp, outputs, train

PolynomialDecay = tfmot.sparsity.keras.PolynomialDecay


def dense(units=8, inputs=16):
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(units, name="dense")])


@pytest.mark.parametrize("wanted", [0.8])
def test_the_sparsity_asked_for_is_the_sparsity_measured_in_a_short_training(wanted):
    student = cnn()
    before = student.get_weights()
    pruned = train(prune(student, wanted), run_eagerly=False)
    for trained in (pruned, strip(pruned)):
        measured = summary(trained)
        shares = measured.sparsities
        assert shares.pop("depthwise") == 0
        assert set(shares) == {"conv", "separable", "hidden", "logits"}
        # Up to the rounding of the 32 weights of the smallest kernel.
        assert shares == pytest.approx(dict.fromkeys(shares, wanted), abs=1 / 32)
        assert measured.sparsity == pytest.approx(wanted, abs=0.02)
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_tf_mot_itself_misses_a_short_training():
    # The trap that `prune` avoids: updates every 100 steps.
    model = tfmot.sparsity.keras.prune_low_magnitude(
        to_tf_keras(dense()),
        tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=6),
    )
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.ones((64, 16), "float32")
    callback = tfmot.sparsity.keras.UpdatePruningStep()
    model.fit(x, x[:, :8], batch_size=8, verbose=0, callbacks=[callback])
    assert summary(model).sparsity == 0.0


def test_a_quarter_of_the_training_recovers_at_full_sparsity():
    pruned = prune(mlp(), 0.8)
    [callback] = pruned.training_callbacks()
    train(pruned, epochs=5)
    timetable = callback._schedules[0].timetable
    assert (timetable.begin_step, timetable.end_step) == (0, 15)


@pytest.mark.slow
def test_given_steps_are_kept():
    pruned = train(
        prune(
            mlp(),
            0.6,
            schedule=PolynomialSchedule(
                begin_step=1, end_step=5, frequency=2, initial_sparsity=0.3
            ),
        )
    )
    assert summary(pruned).sparsity == pytest.approx(0.6, abs=0.02)


@pytest.mark.slow
def test_sparsity_stays_in_a_second_training():
    pruned = train(prune(mlp(), 0.7))
    train(pruned)
    assert summary(pruned).sparsity == pytest.approx(0.7, abs=0.02)


def test_later_epochs_count_what_is_left_of_the_training():
    pruned = train(prune(mlp(), 0.7), epochs=6, initial_epoch=4)
    assert summary(pruned).sparsity == pytest.approx(0.7, abs=0.02)


def _endless(count):
    x, y = examples_for(mlp())
    for _ in range(count):
        yield x[:16], y[:16]


def test_data_of_unknown_length_prune_from_the_second_epoch_on():
    pruned = prune(mlp(), 0.7)
    pruned.compile("adam", cross_entropy(tf_keras), run_eagerly=True)
    dataset = tf.data.Dataset.from_generator(
        lambda: _endless(4),
        output_signature=(
            tf.TensorSpec((None, 16), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    with pytest.raises(ValueError, match=r"unknown length for a single epoch.*steps_per_epoch"):
        pruned.fit(dataset, verbose=0, callbacks=pruned.training_callbacks())
    pruned.fit(dataset, epochs=3, verbose=0, callbacks=pruned.training_callbacks())
    assert summary(pruned).sparsity == pytest.approx(0.7, abs=0.02)


class Outer(tf_keras.Model):
    """Trains the model that it holds, as a Distiller does."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            logits = self.student(x, training=True)
            loss = tf.reduce_mean(
                tf_keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
            )
        weights = self.student.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"steps_per_execution": 2}, marks=pytest.mark.slow),
        {"run_eagerly": True},
    ],
)
def test_a_student_inside_another_model_is_pruned(options):
    pruned = prune(mlp(), 0.75)
    outer = Outer(pruned)
    outer.compile("adam", **options)
    x, y = examples_for(pruned)
    callbacks = pruned.training_callbacks()
    outer.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=callbacks)
    assert summary(pruned).sparsity == pytest.approx(0.75, abs=0.02)
    assert int(pruned.get_layer("prune_low_magnitude_hidden").pruning_step) == 8


def test_stripping_is_exact_and_brings_the_names_back():
    student = cnn()
    pruned = train(prune(student, 0.75), epochs=1)
    stripped = strip(pruned)
    assert [layer.name for layer in stripped.layers[1:]] == [layer.name for layer in student.layers]
    x, _ = examples_for(pruned)
    np.testing.assert_array_equal(outputs(pruned, x), outputs(to_tf_keras(stripped), x))
    np.testing.assert_allclose(outputs(pruned, x), outputs(stripped, x), atol=1e-5)


def test_stripping_applies_masks_to_weights_that_the_last_step_has_moved():
    pruned = prune(dense(), 0.5)
    wrapper = pruned.layers[-1]
    _, mask, _ = wrapper.pruning_vars[0]
    mask.assign(np.eye(16, 8))
    np.testing.assert_array_equal(strip(pruned).layers[-1].kernel != 0, np.eye(16, 8) != 0)


@pytest.mark.slow
def test_a_pruned_student_saves_and_loads(tmp_path):
    pruned = train(prune(mlp(), 0.75))
    x, _ = examples_for(pruned)
    with tfmot.sparsity.keras.prune_scope():
        for name in ("student.keras", "student.h5", "student"):
            pruned.save(tmp_path / name)
            loaded = tf_keras.models.load_model(tmp_path / name)
            np.testing.assert_allclose(outputs(loaded, x), outputs(pruned, x), atol=1e-5)


def test_block_sparsity_zeroes_whole_blocks():
    student = dense(units=8, inputs=16)
    pruned = prune(student, 0.5, pattern=Blocks((4, 2)))
    pruned.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    pruned.fit(x, x[:, :8], batch_size=8, verbose=0, callbacks=pruned.training_callbacks())
    zero = strip(pruned).layers[-1].kernel.numpy().reshape(4, 4, 4, 2) == 0
    per_block = zero.transpose(0, 2, 1, 3).reshape(16, 8).mean(axis=1)
    assert sorted(per_block) == [0.0] * 8 + [1.0] * 8


def test_blocks_of_convolutions_lie_at_each_position_of_the_kernel():
    student = keras.Sequential(
        [keras.Input((4, 4, 8)), layers.Conv2D(4, 3, name="conv"), layers.Flatten()]
    )
    pruned = prune(
        student, 0.5, schedule=PolynomialSchedule(end_step=2), pattern=Blocks((4, 1), "MAX")
    )
    pruned.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(16, 4, 4, 8)).astype("float32")
    pruned.fit(x, np.zeros((16, 16)), batch_size=8, verbose=0)
    zeros = strip(pruned).get_layer("conv").kernel.numpy().reshape(9, 2, 4, 4) == 0
    assert set(zeros.mean(axis=2).ravel()) == {0.0, 1.0}
    assert zeros.mean() == 0.5


def test_tf_mot_itself_refuses_blocks_of_convolutions():
    layer = tfmot.sparsity.keras.prune_low_magnitude(
        tf_keras.layers.Conv2D(4, 3), block_size=(4, 1)
    )
    with pytest.raises(ValueError, match="2-dimensional weights"):
        layer.build((None, 4, 4, 8))


def test_a_depthwise_kernel_is_pruned_where_it_is_named():
    pruned = train(prune(cnn(), {layers.DepthwiseConv2D: 0.5, "hidden": 0.75}))
    measured = summary(strip(pruned)).sparsities
    assert measured["depthwise"] == pytest.approx(0.5, abs=1 / 36)
    assert measured["hidden"] == 0.75
    assert measured["conv"] == measured["logits"] == 0.0


def test_schedules_of_tf_mot_are_taken():
    # Every 100th step, in TF-MOT: never in this training.
    pruned = train(prune(mlp(), schedule=PolynomialDecay(0.0, 0.6, 0, 8)))
    assert summary(pruned).sparsity == pytest.approx(0.6, abs=0.01)


def test_two_of_four_weights_in_a_row_are_zero():
    pruned = prune(dense(units=8, inputs=16), pattern=MByN(2, 4))
    pruned.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    pruned.fit(x, x[:, :8], batch_size=8, verbose=0, callbacks=pruned.training_callbacks())
    kernel = strip(pruned).layers[-1].kernel.numpy()
    assert summary(pruned).sparsity == 0.5
    assert ((kernel.T.reshape(8, 4, 4) == 0).sum(-1) == 2).all()


def test_masks_of_padding_pass_through_the_wrappers():
    words = keras.Input((6,), dtype="int32")
    embedded = layers.Embedding(5, 8, mask_zero=True)(words)
    hidden = layers.Dense(8)(embedded)
    student = keras.Model(words, layers.GlobalAveragePooling1D()(hidden))
    x = np.array([[1, 2, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]])
    pruned = prune(student, 0.5)
    np.testing.assert_allclose(outputs(pruned, x), outputs(student, x), 1e-5)


def test_skipped_frozen_and_depthwise_layers_stay_dense():
    pruned = train(prune(cnn(frozen=True), 0.75, skip=["logits"]), epochs=1)
    measured = summary(pruned).sparsities
    assert measured["conv"] == measured["logits"] == 0.0
    assert measured["hidden"] == 0.75
    assert strip(pruned).get_layer("conv").trainable is False
    assert (strip(pruned).get_layer("depthwise").kernel.numpy() != 0).all()


def test_a_training_that_is_too_short_says_so():
    with pytest.warns(
        UserWarning, match=r"the layers \['hidden', 'logits'\] are less.*, 8 steps.*\(step 50\)"
    ):
        train(prune(mlp(), 0.75, schedule=PolynomialSchedule(end_step=50)))


def equal_weights():
    return keras.Sequential(
        [keras.Input((16,)), layers.Dense(8, kernel_initializer="ones", name="equal")]
    )


def test_weights_that_are_all_equal_are_pruned():
    pruned = prune(equal_weights(), 0.5)
    pruned.compile(tf_keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    x = np.ones((16, 16), "float32")
    pruned.fit(x, x[:, :8], verbose=0, callbacks=pruned.training_callbacks())
    assert summary(pruned).sparsity == 0.5


def test_tf_mot_itself_never_prunes_equal_weights():
    model = tfmot.sparsity.keras.prune_low_magnitude(
        to_tf_keras(equal_weights()),
        tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=1),
    )
    model.compile(tf_keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    x = np.ones((16, 16), "float32")
    callback = tfmot.sparsity.keras.UpdatePruningStep()
    model.fit(x, x[:, :8], verbose=0, callbacks=[callback])
    assert summary(model).sparsity == 0.0


def test_nested_students_are_flattened_and_pruned():
    base = keras.Sequential([keras.Input((16,)), layers.Dense(8, name="inner")], name="base")
    student = keras.Sequential([keras.Input((16,)), base, layers.Dense(4, name="outer")])
    pruned = prune(student, 0.5)
    pruned.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    pruned.fit(x, x[:, :4], verbose=0, callbacks=pruned.training_callbacks())
    assert summary(strip(pruned)).sparsities == {"inner": 0.5, "outer": 0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 0}, "sparsity=0.*above 0"),
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"sparsity": -0.5}, "sparsity=-0.5"),
        ({"schedule": PolynomialSchedule(initial_sparsity=0.9)}, "initial_sparsity=0.9"),
        ({"skip": ["convv"]}, r"skip=\['convv'\].*'conv'"),
        ({"skip": ["conv", "separable", "hidden", "logits"]}, "no chosen layer can be pruned"),
        (
            {"schedule": PolynomialDecay(0, 0.5, 0, 9), "sparsity": 0.5},
            "PolynomialDecay object.*with sparsity=0.5.*leave `sparsity` out",
        ),
        (
            {"schedule": PolynomialDecay(0, 0.8, 0, 9), "pattern": MByN(2, 4)},
            "with sparsity=0.8.*the sparsity of the pattern, 0.5",
        ),
        ({"pattern": MByN(2, 4), "sparsity": 0.8}, "the sparsity of the pattern, 0.5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        prune(cnn(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"pattern": MByN(2, 4), "layers": "conv"},
            r"MByN.*\['conv'\].*too small.*skip=\['conv'\]",
        ),
        ({"pattern": Blocks((1000, 1000))}, r"Blocks.*\['hidden', 'logits'\].*too small"),
    ],
)
def test_a_pattern_larger_than_a_kernel_is_refused_where_it_is_asked_for(arguments, message):
    student = cnn() if "layers" in arguments else mlp()
    with pytest.raises(ValueError, match=message):
        prune(student, **arguments)


def test_layers_too_small_for_a_pattern_stay_dense_where_none_are_named():
    pruned = prune(cnn(), schedule=PolynomialSchedule(end_step=1), pattern=MByN(2, 4))
    assert "conv" in {layer.name for layer in pruned.layers}
    assert {"prune_low_magnitude_separable", "prune_low_magnitude_hidden"} <= {
        layer.name for layer in pruned.layers
    }


def test_a_training_that_failed_is_not_hidden_by_zeros():
    student = mlp()
    pruned = prune(student, 0.5, schedule=ConstantSchedule(end_step=1))
    pruned.compile("sgd", "mse", run_eagerly=True)
    x, _ = examples_for(student)
    pruned.fit(x * np.nan, x[:, :4], verbose=0, callbacks=pruned.training_callbacks())
    kernel = strip(pruned).get_layer("hidden").kernel.numpy()
    assert np.isnan(kernel).mean() == pytest.approx(0.5, abs=0.05)


def test_a_frozen_student_is_said_to_be_frozen():
    student = mlp()
    student.trainable = False
    with pytest.raises(ValueError, match=r"without trainable weights.*trainable = True"):
        prune(student)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": 0.5}, r"schedule=0.5.*PolynomialSchedule.*PruningSchedule"),
        ({"schedule": "constant"}, r"schedule='constant'.*pass schedule=PolynomialSchedule\("),
        ({"pattern": (4, 1)}, r"pattern=\(4, 1\).*Blocks or MByN.*pattern=Blocks\(\(4, 1\)\)"),
    ],
)
def test_schedules_and_patterns_are_objects(arguments, message):
    with pytest.raises(TypeError, match=message):
        prune(cnn(), **arguments)


def test_a_selection_must_be_names_types_or_a_function():
    with pytest.raises(TypeError, match=r"skip=3.*names or types of layers"):
        prune(cnn(), skip=3)


def test_sparsity_must_be_a_number():
    with pytest.raises(TypeError, match=r"sparsity='0.8'"):
        prune(cnn(), "0.8")


@pytest.mark.parametrize(
    ("compress", "state"), [(prune, "pruned"), (quantize_aware, "quantization-aware")]
)
def test_a_student_that_is_compressed_already(compress, state):
    with pytest.raises(ValueError, match=rf"{state} already.*a plain student.*`strip`"):
        prune(compress(dense()))


def test_a_student_in_mixed_precision_is_pruned_in_it():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = mlp()
    finally:
        keras.config.set_dtype_policy("float32")
    pruned = train(prune(student, 0.5))
    assert summary(pruned).sparsity == pytest.approx(0.5, abs=0.02)
    assert strip(pruned).get_layer("hidden").compute_dtype == "float16"


def test_a_step_without_fit_needs_the_steps():
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    x, y = np.random.default_rng(0).normal(size=(16, 8)), np.zeros((16, 2))
    open_ended = prune(student, 0.5)
    open_ended.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(
        ValueError, match=r"whose schedule has no end yet.*To fix it: train with `fit`"
    ):
        open_ended.train_on_batch(x, y)
    given = prune(student, 0.5, schedule=PolynomialSchedule(end_step=2))
    given.compile("sgd", "mse", run_eagerly=True)
    for _ in range(3):
        given.train_on_batch(x, y)
    assert summary(given).sparsity == pytest.approx(0.5)


def test_weights_saved_before_they_were_masked_count_as_masked():
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    pruned = prune(student, 0.5, schedule=PolynomialSchedule(end_step=1))
    pruned.compile("sgd", "mse", run_eagerly=True)
    pruned.train_on_batch(np.ones((4, 8)), np.ones((4, 4)))
    (wrapper,) = [layer for layer in pruned.layers if hasattr(layer, "pruning_vars")]
    wrapper.layer.kernel.assign(np.ones((8, 4)))
    assert summary(pruned).sparsity == 0.5
    assert summary(strip(pruned)).sparsity == 0.5
