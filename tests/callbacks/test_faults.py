"""Two trainings in a directory, a full disk, and checkpoints that cannot be read."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
import pytest
from _disk import files_of_at_most, without_permission
from keras import layers

from keras_kd.callbacks import ResumeTraining

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = X[:, :2]
FIRST = "training-0000000000.npz"


class At(keras.callbacks.Callback):
    """Does something after a number of steps of this process."""

    def __init__(self, step, action):
        super().__init__()
        self.left = (step, action)

    def on_train_batch_end(self, batch, logs=None):
        step, action = self.left
        self.left = (step - 1, action)
        if step == 1:
            action()


def train(directory, step=0, action=None):
    """Six steps, each followed by a checkpoint; the weights they end with.

    After the given step of this process, before its checkpoint, `action` is called.
    """
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.3), layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
    resume = ResumeTraining(directory, save_freq=1)
    resume.fit(model, X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[At(step, action)])
    return model.get_weights()


def contents(directory):
    files = [path for path in directory.iterdir() if path.name != "in_use"]
    return {path.name: path.read_bytes() for path in files}


def stop():
    raise KeyboardInterrupt


@pytest.fixture
def stopped(tmp_path):
    """The directory of a training that ended after four steps, of which three are saved."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", 4, stop)
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"))


def assert_ends_as(whole, directory):
    for expected, found in zip(whole, train(directory), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_second_training_is_refused_while_the_first_one_runs(tmp_path, whole):
    def second():
        with pytest.raises(BlockingIOError, match=r"run', in which a training is running\. Exp"):
            train(tmp_path / "run")

    train(tmp_path / "run", 4, second)
    assert_ends_as(whole, tmp_path / "run")


def test_a_full_disk_keeps_the_checkpoints_and_the_training_goes_on(tmp_path, whole):
    """Real files that may not grow, from the third step on."""
    directory = tmp_path / "run"
    before = {}
    with ExitStack() as stack:

        def fill():
            before.update(contents(directory))
            stack.enter_context(files_of_at_most(2_000))

        with pytest.raises(
            OSError, match=r"too large' while writing '.*training-0000000003.*room.*and run again"
        ):
            train(directory, 3, fill)
    assert FIRST not in before
    assert contents(directory) == before
    assert_ends_as(whole, directory)


def test_a_checkpoint_that_is_a_broken_link_is_skipped(stopped, whole):
    last = max(stopped.glob("training-*"))
    last.unlink()
    last.symlink_to("nowhere")
    with pytest.warns(UserWarning, match=f"damaged checkpoint '.*{last.name}'"):
        assert_ends_as(whole, stopped)


def test_a_checkpoint_that_may_not_be_read_is_skipped(stopped, whole):
    last = max(stopped.glob("training-*"))
    with (
        without_permission(last),
        pytest.warns(UserWarning, match=f"damaged checkpoint '{last.name}'"),
    ):
        assert_ends_as(whole, ".")


def test_checkpoints_of_which_none_may_be_read_are_named(stopped):
    last, one = sorted(stopped.glob("training-*"))
    last.unlink()
    with (
        without_permission(one),
        pytest.warns(UserWarning, match="damaged checkpoint"),
        pytest.raises(ValueError, match=f"'{one.name}', which cannot be read .*Permission denied"),
    ):
        train(".")


def test_a_directory_in_the_place_of_a_checkpoint_is_named(stopped, whole):
    last = max(stopped.glob("training-*"))
    last.unlink()
    last.mkdir()
    with (
        pytest.warns(UserWarning, match=f"damaged checkpoint '.*{last.name}'"),
        pytest.raises(IsADirectoryError, match=f"{last.name}', which is a directory"),
    ):
        train(stopped)
    last.rmdir()
    assert_ends_as(whole, stopped)


@pytest.mark.slow
def test_a_second_process_is_refused_and_the_first_one_ends_well(tmp_path):
    script = Path(__file__).with_name("killed_training.py")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def start(result):
        command = [sys.executable, str(script), str(tmp_path / "run"), str(tmp_path / result)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    first = start("first.npz")
    assert first.stdout.readline() == "0\n"
    first.send_signal(signal.SIGSTOP)
    second = start("second.npz")
    _, said = second.communicate()
    assert second.returncode == 1
    assert "BlockingIOError: Received the directory" in said.splitlines()[-1]
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert first.returncode == 0
    assert (tmp_path / "first.npz").exists()
    assert not (tmp_path / "second.npz").exists()
