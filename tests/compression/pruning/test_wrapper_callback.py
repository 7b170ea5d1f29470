import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_kd.compression import ConstantSchedule, PolynomialSchedule, prune, summary

from _models import labelled, mlp, train


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
