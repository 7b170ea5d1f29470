import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from keras import layers

import keras_kd
from keras_kd.compression import (
    Blocks,
    ConstantSchedule,
    MByN,
    PolynomialSchedule,
    load,
    prune,
    strip,
    summary,
    to_tf_keras,
)

from _models import cross_entropy, examples_for, labelled, mlp, outputs, train


def siamese():
    left, right = keras.Input((6,)), keras.Input((6,))
    shared = layers.Dense(8, name="shared")
    both = layers.Concatenate()([shared(left), shared(right)])
    return keras.Model([left, right], layers.Dense(3, name="logits")(both))


def recurrent():
    x = keras.Input((5, 4))
    h = layers.LSTM(4, return_sequences=True, name="lstm")(x)
    h = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")(h)
    h = layers.TimeDistributed(layers.Dense(4), name="each")(h)
    return keras.Model(x, layers.Dense(3, name="logits")(layers.SimpleRNN(4, name="rnn")(h)))


def attentive():
    x = keras.Input((5, 4))
    h = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    h = layers.EinsumDense("abc,cd->abd", output_shape=(None, 8), name="einsum")(h)
    h = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(h))
    return keras.Model(x, layers.Dense(3, name="logits")(h))


@keras.saving.register_keras_serializable("test_wrapper")
class Mixed(layers.Layer):
    """A layer that tf_keras does not have, with two inputs and one weight of two to prune."""

    def build(self, first_shape, second_shape):
        self.kernel = self.add_weight(shape=(6, 8), name="kernel")
        self.gate = self.add_weight(shape=(8,), name="gate")

    def call(self, first, second):
        return keras.ops.matmul(first, self.kernel) * self.gate + keras.ops.mean(second)

    def get_prunable_weights(self):
        return [self.kernel]


def custom():
    left, right = keras.Input((6,)), keras.Input((6,))
    mixed = Mixed(name="mixed")(left, right)
    return keras.Model([left, right], layers.Dense(3, name="logits")(mixed))


STUDENTS = {
    "recurrent": (recurrent, {"lstm", "both", "each", "rnn", "logits"}),
    "attentive": (attentive, {"attention", "einsum", "logits"}),
    "custom": (custom, {"mixed", "logits"}),
}


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    "name", ["custom", "attentive", pytest.param("recurrent", marks=pytest.mark.slow)]
)
def test_every_kernel_is_as_sparse_after_training_stripping_and_loading(name, tmp_path):
    build, expected = STUDENTS[name]
    pruned = train(prune(build(), 0.5))
    x, _ = examples_for(pruned)
    stripped = strip(pruned)
    for form in (pruned, stripped):
        measured = summary(form)
        assert set(measured.sparsities) == expected
        for kernel in measured.kernels:
            assert kernel.zeros / kernel.weights == pytest.approx(0.5, abs=1 / kernel.weights)
    np.testing.assert_allclose(outputs(stripped, x), outputs(pruned, x), atol=1e-5)
    for file in ("student.keras", "student.h5"):
        pruned.save(tmp_path / file)
        loaded = load(tmp_path / file)
        np.testing.assert_allclose(outputs(loaded, x), outputs(pruned, x), atol=1e-6)
        assert summary(train(loaded, epochs=1)).sparsities == summary(pruned).sparsities


@pytest.mark.parametrize(
    "layer",
    [
        tf_keras.layers.Bidirectional(tf_keras.layers.LSTM(2)),
        tf_keras.layers.TimeDistributed(tf_keras.layers.Dense(2)),
        tf_keras.layers.EinsumDense("abc,cd->abd", output_shape=(None, 8)),
        tf_keras.layers.Conv1DTranspose(2, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_tf_mot_itself_refuses_these_layers(layer):
    with pytest.raises(ValueError, match="initialize `Prune` with a supported layer"):
        tfmot.sparsity.keras.prune_low_magnitude(layer)


def test_tf_mot_itself_cannot_build_attention():
    x = tf_keras.Input((5, 4))
    layer = tf_keras.layers.MultiHeadAttention(2, 4)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        tfmot.sparsity.keras.prune_low_magnitude(layer)(x, x)


def steps_of(model):
    return {int(layer.pruning_step) for layer in model.layers if hasattr(layer, "pruning_step")}


def test_a_layer_that_is_called_twice_counts_a_step_once():
    pruned = train(prune(siamese(), 0.5, schedule=PolynomialSchedule(end_step=8)))
    assert steps_of(pruned) == {8}
    assert summary(pruned).sparsities == {"shared": 0.5, "logits": 0.5}


def test_tf_mot_itself_counts_calls():
    model = tfmot.sparsity.keras.prune_low_magnitude(to_tf_keras(siamese()))
    model.compile("sgd", cross_entropy(tf_keras), run_eagerly=True)
    x, y = examples_for(model)
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    model.fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)
    assert model.get_layer("prune_low_magnitude_shared").pruning_step == 8
    assert model.get_layer("prune_low_magnitude_logits").pruning_step == 4


class ZerosSeen(tf_keras.callbacks.Callback):
    """The share of zeros in the kernels themselves after each step."""

    def on_train_begin(self, logs=None):
        self.shares = []

    def on_train_batch_end(self, batch, logs=None):
        kernel = self.model.get_layer("prune_low_magnitude_hidden").layer.kernel.numpy()
        self.shares.append(np.mean(kernel == 0))


def test_no_callback_sees_weights_that_are_not_masked_yet():
    seen = ZerosSeen()
    train(prune(mlp(6, 8, 3), 0.5, schedule=ConstantSchedule(end_step=1)), callbacks=[seen])
    assert seen.shares == [0.5] * 8


def test_with_tf_mot_itself_masked_weights_come_back_after_each_step():
    seen = ZerosSeen()
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0, frequency=1)
    model = tfmot.sparsity.keras.prune_low_magnitude(to_tf_keras(mlp(6, 8, 3)), schedule)
    model.training_callbacks = lambda: [tfmot.sparsity.keras.UpdatePruningStep()]
    train(model, callbacks=[seen])
    assert max(seen.shares) < 0.5


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"steps_per_execution": 4}, None),
        ({"jit_compile": True}, MByN(2, 4)),
        pytest.param({"steps_per_execution": 4}, MByN(2, 4), marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, None, marks=pytest.mark.slow),
        pytest.param({}, None, marks=pytest.mark.slow),
        pytest.param({}, MByN(2, 4), marks=pytest.mark.slow),
    ],
)
def test_ways_of_running_a_step(options, pattern):
    pruned = train(
        prune(mlp(6, 8, 3), None if pattern else 0.5, pattern=pattern),
        run_eagerly=False,
        compiled=options,
    )
    assert steps_of(pruned) == {8}
    assert summary(pruned).sparsities["hidden"] == pytest.approx(1 / 3 if pattern else 0.5)


def test_in_mixed_precision_masks_are_in_full_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = mlp(6, 8, 3)
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.Adam())
    pruned = train(prune(student, 0.5), optimizer=optimizer)
    assert summary(pruned).sparsity == pytest.approx(0.5)
    assert {mask.dtype.name for _, mask, _ in pruned.layers[1].pruning_vars} == {"float32"}


def test_a_constraint_of_the_layer_itself_holds_too():
    student = keras.Sequential(
        [keras.Input((6,)), layers.Dense(3, kernel_constraint="non_neg", name="logits")]
    )
    # Six of the eighteen weights.
    pruned = train(
        prune(student, 1 / 3, schedule=PolynomialSchedule(end_step=3)),
        optimizer=tf_keras.optimizers.SGD(1.0),
    )
    kernel = strip(pruned).layers[-1].kernel.numpy()
    assert (kernel >= 0).all()
    assert np.sum(kernel == 0) >= 6


@pytest.mark.parametrize(
    ("pattern", "config"),
    [
        (MByN(1, 4), {"name": "MByN", "zeros": 1, "of": 4}),
        (Blocks((2, 1), "MAX"), {"name": "Blocks", "size": (2, 1), "pooling": "MAX"}),
    ],
)
def test_patterns_and_schedules_survive_the_config(pattern, config):
    pruned = prune(
        mlp(6, 8, 3),
        schedule=PolynomialSchedule(begin_step=2, end_step=9, frequency=3, power=1),
        pattern=pattern,
    )
    copy = type(pruned).from_config(pruned.get_config())
    wrapper = copy.get_layer("prune_low_magnitude_hidden")
    assert wrapper.pattern.get_config() == config
    expected = pruned.layers[1].pruning_schedule.get_config()
    assert wrapper.pruning_schedule.get_config() == expected
    assert expected["config"]["plan"]["end_step"] == 9


def test_tf_mot_itself_loses_m_by_n():
    wrapper = tfmot.sparsity.keras.prune_low_magnitude(
        tf_keras.layers.Dense(4), sparsity_m_by_n=(2, 4)
    )
    assert type(wrapper).from_config(wrapper.get_config()).sparsity_m_by_n is None


def test_weights_and_masks_are_saved_and_loaded_while_training(tmp_path):
    with pytest.warns(UserWarning, match="less sparse than requested"):
        pruned = train(prune(mlp(6, 8, 3), 0.5, schedule=PolynomialSchedule(end_step=16)))
    again = prune(mlp(6, 8, 3), 0.5, schedule=PolynomialSchedule(end_step=16))
    for path in (tmp_path / "weights.weights.h5", tmp_path / "weights.h5", tmp_path / "weights"):
        pruned.save_weights(path)
        again.load_weights(path)
        for one, other in zip(pruned.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert steps_of(again) == {8}
    assert 0 < summary(again).sparsity < 0.5
    assert summary(train(again)).sparsity == 0.5


@pytest.mark.slow
def test_a_recurrent_student_learns_features_under_a_distiller():
    teacher, student = recurrent(), recurrent()
    pruned = prune(student, 0.5)
    losses = [
        keras_kd.losses.SoftTargets(2.0),
        keras_kd.losses.Hint("lstm", "lstm"),
    ]
    distiller = keras_kd.Distiller(teacher, pruned, losses)
    optimizer = keras.optimizers.Adam(0.02)
    distiller.compile(optimizer, cross_entropy())
    x, y = examples_for(pruned)
    history = distiller.fit(x, y, batch_size=16, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert summary(strip(pruned)).sparsity == pytest.approx(0.5, abs=0.02)
    assert steps_of(pruned) == {12}


class Shares(tf_keras.callbacks.Callback):
    """The sparsity after each epoch."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(summary(self.model).sparsity)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (PolynomialSchedule(begin_epoch=1, end_epoch=3, power=1), [0, 0.25, 0.5, 0.5]),
        (ConstantSchedule(begin_epoch=1, end_epoch=2), [0, 0.5, 0.5, 0.5]),
        (ConstantSchedule(begin_step=5), [0, 0.5, 0.5, 0.5]),
    ],
)
def test_the_schedule_in_epochs_and_steps(schedule, expected):
    shares = Shares()
    train(prune(mlp(), 0.5, schedule=schedule), callbacks=[shares], epochs=4)
    assert shares.seen == pytest.approx(expected, abs=0.02)


def endless(count):
    x, y = labelled(8, (16,), 4)
    return tf.data.Dataset.from_generator(
        lambda: ((x, y) for _ in range(count)),
        output_signature=(tf.TensorSpec((None, 16)), tf.TensorSpec((None,), tf.int64)),
    )


def test_data_of_unknown_length_prune_from_the_second_epoch_on():
    shares = Shares()
    pruned = prune(mlp(), 0.5)
    with pytest.raises(ValueError, match=r"unknown length for a single epoch.*steps_per_epoch"):
        train(pruned, endless(4), epochs=1, batch_size=None)
    train(pruned, endless(4), batch_size=None, callbacks=[shares], epochs=3)
    assert shares.seen[0] == 0
    assert shares.seen[2] == pytest.approx(0.5)
    assert pruned.layers[1].pruning_schedule.timetable.end_step == 9
    assert pruned.layers[1].pruning_step == 12


def test_an_end_in_the_past_is_refused():
    pruned = prune(mlp(), 0.5, schedule=PolynomialSchedule(end_epoch=1))
    with pytest.raises(ValueError, match=r"end_epoch.*begins after the first epoch"):
        train(pruned, endless(4), batch_size=None, epochs=3)


class Stop(RuntimeError):
    pass


class Interrupt(tf_keras.callbacks.Callback):
    """Ends the process, as far as a test can."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise Stop


def test_a_training_that_was_interrupted_goes_on_with_the_same_masks(tmp_path):
    whole = train(prune(mlp(), 0.5), epochs=4)

    def backup():
        return tf_keras.callbacks.BackupAndRestore(tmp_path)

    with pytest.raises(Stop):
        train(prune(mlp(), 0.5), callbacks=[backup(), Interrupt()], epochs=4)
    resumed = train(prune(mlp(), 0.5), callbacks=[backup()], epochs=4)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    timetables = [pruned.layers[1].pruning_schedule.timetable for pruned in (whole, resumed)]
    assert timetables[0] == timetables[1]


def test_a_callback_that_brings_earlier_weights_back_is_warned_of():
    stopping = tf_keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=2, restore_best_weights=True
    )
    pruned = prune(mlp(), 0.5, schedule=PolynomialSchedule(begin_epoch=1))
    with pytest.warns(UserWarning, match=r"\['hidden', 'logits'\] are less.*EarlyStopping"):
        train(pruned, callbacks=[stopping], epochs=4)


def test_a_training_that_is_too_short_says_so():
    pruned = prune(mlp(), 0.5, schedule=PolynomialSchedule(end_step=50))
    with pytest.warns(UserWarning, match=r"\['hidden', 'logits'\].*, 8 steps.*\(step 50\)"):
        train(pruned, epochs=2)
