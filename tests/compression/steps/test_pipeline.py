"""Pipelines on a small student: what each step wins stays, and what was done is not done again."""

import dataclasses
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from _disk import files_of_at_most, without_permission
from keras import layers

import keras_kd
from keras_kd.compression import Step, pipeline, strip, summary
from keras_kd.compression.steps.checkpoint import Checkpoint
from keras_kd.compression.steps.result import Stage

from _models import cross_entropy

STEPS = [
    Step("factorize", epochs=1, rank=8),
    Step("prune", epochs=3, sparsity=0.5),
    Step("cluster", epochs=1, num_clusters=8),
    Step("quantize_aware", epochs=1, learning_rate=1e-3),
]


def data(count=128):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 16)).astype("float32")
    return x, np.argmax(x[:, :4], axis=-1)


def model(units, name):
    keras.utils.set_random_seed(units)
    return keras.Sequential(
        [
            keras.Input((16,), name="numbers"),
            layers.Dense(units, activation="relu", name="hidden"),
            layers.Dense(4, name="logits"),
        ],
        name=name,
    )


@pytest.fixture(scope="module")
def teacher():
    teacher = model(64, "teacher")
    teacher.compile(keras.optimizers.Adam(0.01), cross_entropy())
    teacher.fit(*data(), epochs=10, verbose=0)
    return teacher


@pytest.fixture
def distiller(teacher):
    distiller = keras_kd.Distiller(teacher, model(32, "student"))
    distiller.compile(keras.optimizers.Adam(0.005), cross_entropy(), metrics=["accuracy"])
    return distiller


def run(distiller, steps=STEPS, **options):
    x, y = data()
    options = {"validation_data": (x, y), "batch_size": 16, "verbose": 0, **options}
    return pipeline(steps, distiller, x, y, **options)


def kernels(student):
    return [layer.kernel.numpy() for layer in strip(student).layers if hasattr(layer, "kernel")]


@pytest.fixture(scope="module")
def finished(teacher, tmp_path_factory):
    """A whole pipeline: result, directory, and the weights with which it began."""
    distiller = keras_kd.Distiller(teacher, model(32, "student"))
    distiller.compile(keras.optimizers.Adam(0.005), cross_entropy(), metrics=["accuracy"])
    before = distiller.student.get_weights()
    directory = tmp_path_factory.mktemp("pipeline")
    return run(distiller, directory=directory), directory, distiller, before


@pytest.mark.slow
def test_what_each_step_wins_is_there_at_the_end(finished):
    result, *_ = finished
    assert isinstance(result.student, tf_keras.Model)
    assert summary(result.student).sparsity == pytest.approx(0.5, abs=0.03)
    for kernel in kernels(result.student):
        assert np.unique(kernel).size <= 8
    start, factorized, pruned, clustered, quantized = result.stages
    assert factorized.parameters < start.parameters
    assert pruned.sparsity == clustered.sparsity == quantized.sparsity
    assert start.distinct_values is None
    assert clustered.distinct_values <= 8
    assert quantized.distinct_values <= 8
    assert quantized.compressed_bytes < 0.5 * start.compressed_bytes
    assert quantized.metrics["accuracy"] > start.metrics["accuracy"]


def test_the_table_has_a_row_for_each_step(finished):
    lines = str(finished[0]).splitlines()
    assert lines[0].split()[:4] == ["step", "epochs", "parameters", "sparsity"]
    assert "accuracy" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["start", *(step.kind for step in STEPS)]


def test_the_distiller_given_stays_as_it_was(finished):
    _, _, distiller, before = finished
    for one, other in zip(before, distiller.student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(distiller.optimizer.iterations) == 0


def test_a_finished_pipeline_is_taken_from_its_directory(finished, distiller, capsys):
    result, directory, *_ = finished
    again = run(distiller, directory=directory, verbose=1)
    assert "Steps 1 to 4 of 4: taken from" in capsys.readouterr().out
    assert again.stages == result.stages
    x, _ = data()
    np.testing.assert_array_equal(
        result.student.predict(x, verbose=0), again.student.predict(x, verbose=0)
    )


def test_steps_before_the_first_that_differs_are_kept(finished, distiller, tmp_path):
    result, directory, *_ = finished
    copy = shutil.copytree(directory, tmp_path / "copy")
    again = run(distiller, [*STEPS[:2], Step("quantize_aware", epochs=1)], directory=copy)
    assert again.stages[:3] == result.stages[:3]
    assert [stage.name for stage in again.stages[3:]] == ["quantize_aware"]
    assert json.loads((copy / "pipeline.json").read_text())["steps"][2]["kind"] == "quantize_aware"


class Stop(keras.callbacks.Callback):
    """Ends the process, as far as a test can, in an epoch of this run, or before a training."""

    def __init__(self, epoch=0, training=0):
        super().__init__()
        # Nothing that a checkpoint keeps.
        self.epochs, self.trainings = itertools.count(1), itertools.count(1)
        self.after, self.before = epoch, training

    def set_model(self, model):
        super().set_model(model)
        if next(self.trainings) == self.before:
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):
        if next(self.epochs) == self.after:
            raise KeyboardInterrupt


def pruned_and_quantized(directory, stop=0, *, before=0, given=None, steps=None):
    """What a program ends with that makes its data and models and runs two steps; None if stopped.

    Each step has three epochs of four batches.
    """
    tf_keras.utils.set_random_seed(3)
    keras.utils.set_random_seed(3)
    student = keras.Sequential(
        [keras.Input((16,)), layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(4)]
    )
    distiller = keras_kd.Distiller(model(4, "teacher"), student)
    distiller.compile(keras.optimizers.Adam(0.01), cross_entropy(), run_eagerly=True)
    x, y = data(64)
    steps = steps or [
        Step("prune", epochs=3, sparsity=0.5),
        Step("quantize_aware", epochs=3, learning_rate=1e-3),
    ]
    given = given(x, y) if given else {"x": x, "y": y, "batch_size": 16}
    arguments = {"directory": directory, "validation_data": (x, y), "verbose": 0, **given}
    stopping = Stop(stop, before)
    try:
        result = pipeline(steps, distiller, callbacks=[stopping], **arguments)
    except KeyboardInterrupt:
        return None
    return {
        "stages": [dataclasses.replace(stage, seconds=0.0) for stage in result.stages],
        "weights": result.student.get_weights(),
        "random": float(np.random.random()),
        # Not compared: how much of it this run has done.
        "epochs": next(stopping.epochs) - 1,
    }


def assert_same_end(whole, resumed):
    assert resumed["stages"] == whole["stages"]
    assert resumed["random"] == whole["random"]
    for one, other in zip(whole["weights"], resumed["weights"], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return pruned_and_quantized(tmp_path_factory.mktemp("uninterrupted"))


def test_an_interrupted_step_goes_on_at_its_last_epoch_with_the_same_result(
    uninterrupted, tmp_path
):
    # In the third epoch of the first step, then, with that one done, in the third of the second.
    assert pruned_and_quantized(tmp_path, 3) is None
    assert pruned_and_quantized(tmp_path, 4) is None
    resumed = pruned_and_quantized(tmp_path)
    assert resumed["epochs"] == 1
    assert_same_end(uninterrupted, resumed)
    assert not (tmp_path / "training").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [
        # Students of tf_keras, and of Keras 3, whose layers have their own seeds.
        None,
        [Step("factorize", epochs=1, rank=3), Step("remove_filters", epochs=1, share=0.25)],
    ],
    ids=["tf_keras", "keras"],
)
def test_an_interruption_between_two_steps_changes_nothing(uninterrupted, tmp_path, steps):
    whole = pruned_and_quantized(tmp_path / "whole", steps=steps) if steps else uninterrupted
    assert pruned_and_quantized(tmp_path / "run", before=2, steps=steps) is None
    assert any((tmp_path / "run").glob("1_*.keras"))
    resumed = pruned_and_quantized(tmp_path / "run", steps=steps)
    assert 2 * resumed["epochs"] == whole["epochs"]
    assert_same_end(whole, resumed)


@pytest.mark.slow
def test_a_step_with_other_arguments_does_not_go_on_with_the_training_of_the_old_one(tmp_path):
    def steps(clusters):
        return [Step("cluster", epochs=2, num_clusters=clusters)]

    whole = pruned_and_quantized(tmp_path / "whole", steps=steps(4))
    assert pruned_and_quantized(tmp_path / "run", 2, steps=steps(8)) is None
    assert_same_end(whole, pruned_and_quantized(tmp_path / "run", steps=steps(4)))


def test_other_data_for_the_step_that_was_running_raise_an_error(tmp_path):
    assert pruned_and_quantized(tmp_path, 2) is None
    with pytest.raises(ValueError, match=r"another training: data\.arrays\[0\]"):
        pruned_and_quantized(tmp_path, given=lambda x, y: {"x": x + 1.0, "y": y, "batch_size": 16})


@pytest.mark.slow
def test_a_pipeline_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    """kill -9 at random places; each process does at most one epoch again."""
    script = Path(__file__).with_name("killed_pipeline.py")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def start(name):
        words = [sys.executable, str(script), str(tmp_path / name), str(tmp_path / f"{name}.npz")]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)

    whole = start("whole")
    lines, _ = whole.communicate()
    assert whole.returncode == 0
    assert lines.count("epoch") == 9
    generator = np.random.default_rng()
    epochs = kills = 0
    while True:
        process = start("killed")
        lines = list(itertools.islice(process.stdout, int(generator.integers(1, 60))))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        epochs += sum(line.startswith("epoch") for line in [*lines, *rest.splitlines()])
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills > 0
    assert 9 <= epochs <= 9 + kills
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "killed.npz") as killed:
        assert whole.files == killed.files
        for name in whole.files:
            np.testing.assert_array_equal(whole[name], killed[name])


def test_another_student_is_not_mixed_with_what_is_there(teacher, finished):
    other = keras_kd.Distiller(teacher, model(16, "other"))
    other.compile("adam", cross_entropy())
    with pytest.raises(ValueError, match=r"pipeline of another student.*another directory"):
        run(other, directory=finished[1])


@pytest.mark.parametrize("content", ["", "[]", '{"start": 1}', "{not json"])
def test_a_damaged_directory_is_named(distiller, tmp_path, content):
    (tmp_path / "pipeline.json").write_text(content)
    with pytest.raises(ValueError, match=r"pipeline.json.*cannot be read.*delete the directory"):
        run(distiller, directory=tmp_path)


def test_a_damaged_student_is_named(finished, distiller, tmp_path):
    copy = shutil.copytree(finished[1], tmp_path / "copy")
    (copy / "2_prune.keras").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"2_prune.keras.*cannot be read"):
        run(distiller, STEPS[:2], directory=copy)


def test_settings_that_cannot_be_are_found_before_anything_is_trained(distiller, capsys):
    steps = [Step("prune", epochs=100), Step("cluster", num_clusters=0)]
    with pytest.raises(ValueError, match=r"In the step cluster\(num_clusters=0\)"):
        run(distiller, steps, verbose=1)
    assert "Step 1" not in capsys.readouterr().out


def test_impossible_orders_are_refused(distiller):
    with pytest.raises(ValueError, match="'factorize' after 'prune'"):
        run(distiller, [Step("prune"), Step("factorize", rank=2)])


def test_a_distiller_must_be_one_and_compiled(teacher, distiller):
    with pytest.raises(TypeError, match="distiller of type Sequential"):
        run(teacher)
    with pytest.raises(ValueError, match="not compiled"):
        run(keras_kd.Distiller(teacher, distiller.student))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dataset", "dict", "generator"])
def test_data_in_other_forms(distiller, form, tmp_path):
    """With a directory, though a generator cannot resume: its steps are done as wholes."""
    x, y = data(64)
    given = {
        "dataset": lambda: (tf.data.Dataset.from_tensor_slices((x, y)).batch(16), None),
        "dict": lambda: ({"numbers": x}, y),
        "generator": lambda: (((x, y) for _ in range(1)), None),
    }[form]()
    steps = [Step("quantize_aware")]
    result = pipeline(steps, distiller, *given, verbose=0, directory=tmp_path)
    assert result.stages[-1].metrics == {}
    assert result.stages[-1].name == "quantize_aware"


def test_a_teacher_that_is_stored(teacher, tmp_path):
    x, y = data()
    stored = keras_kd.teachers.StoredTeacher.create(teacher, (x, y), tmp_path / "teacher.store")
    distiller = keras_kd.Distiller(stored, model(32, "student"))
    distiller.compile(keras.optimizers.Adam(0.005), cross_entropy(), metrics=["accuracy"])
    joined = stored.join((x, y), batch_size=16)
    steps = [Step("quantize_aware", epochs=1, learning_rate=1e-3)]
    result = pipeline(steps, distiller, joined, validation_data=(x, y), verbose=0)
    assert [stage.name for stage in result.stages] == ["start", "quantize_aware"]


def test_without_epochs_a_step_only_compresses(distiller):
    result = run(distiller, [Step("factorize", epochs=0, rank=4)])
    assert isinstance(result.student, keras.Model)
    assert result.stages[1].epochs == 0
    assert result.stages[1].parameters < result.stages[0].parameters


def test_a_student_that_has_learned_nan_is_refused(distiller):
    step = Step("factorize", rank=4, learning_rate=1e30)
    with pytest.raises(ValueError, match=r"weight '.*NaN or infinite after factorize.*learning"):
        run(distiller, step)


def test_arguments_that_are_not_for_a_pipeline(distiller, tmp_path):
    with pytest.raises(TypeError, match=r"epochs=3 for the whole pipeline.*Step\("):
        run(distiller, epochs=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"file', which is a file"):
        run(distiller, directory=tmp_path / "file")


def test_a_second_pipeline_in_a_directory_is_refused(distiller, tmp_path):
    class Second(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with pytest.raises(BlockingIOError, match="in which a pipeline is running"):
                run(distiller, directory=tmp_path)

    step = Step("factorize", epochs=1, rank=8)
    result = run(distiller, step, directory=tmp_path, callbacks=[Second()])
    assert [stage.name for stage in result.stages] == ["start", "factorize"]


def test_a_disk_that_is_full(tmp_path):
    """Real files that may not grow: the steps that were finished are kept."""
    student = model(64, "student")
    checkpoint = Checkpoint(tmp_path, student, [Step("factorize", epochs=1, rank=4)])
    checkpoint.save(None, None, Stage("start", 0, 10, 0.0, 10, 10, {}, 0.0))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        files_of_at_most(5_000),
        pytest.raises(OSError, match=r"too large' while writing '.*1_factorize.keras'. Expected"),
    ):
        checkpoint.save(student, student, Stage("factorize", 1, 10, 0.0, 10, 10, {}, 0.0))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    again = Checkpoint(tmp_path, student, [Step("factorize", epochs=1, rank=4)])
    assert [stage.name for stage in again.stages] == ["start"]


@pytest.mark.parametrize("name", ["pipeline.json", "1_factorize.keras", "1_factorize.npz"])
def test_a_file_that_may_not_be_read_is_named(tmp_path, name):
    student, steps = model(64, "student"), [Step("factorize", epochs=1, rank=4)]
    checkpoint = Checkpoint(tmp_path, student, steps)
    checkpoint.save(None, None, Stage("start", 0, 10, 0.0, 10, 10, {}, 0.0))
    checkpoint.save(student, student, Stage("factorize", 1, 10, 0.0, 10, 10, {}, 0.0))
    message = f"'{name}', which cannot be read .*Permission denied.*that a pipeline has written"

    def read():
        again = Checkpoint(".", student, steps)
        again.plain(1)
        again.restore(1, student)

    with without_permission(tmp_path / name), pytest.raises(ValueError, match=message):
        read()


def test_files_of_other_steps_are_not_taken_for_those_of_these(tmp_path, monkeypatch):
    """The disk is full between the files of a step; a manifest is there, of other steps."""
    student = model(64, "student")
    start, done = (Stage(name, 1, 10, 0.0, 10, 10, {}, 0.0) for name in ("start", "factorize"))
    one, other = ([Step("factorize", epochs=1, rank=rank)] for rank in (4, 2))
    checkpoint = Checkpoint(tmp_path, student, one)
    checkpoint.save(None, None, start)
    checkpoint.save(student, student, done)
    assert Checkpoint(tmp_path, student, one).finished == 1

    def full(*arguments, **arrays):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"No space left on device' while writing '.*factorize.npz'"):
        Checkpoint(tmp_path, student, other).save(student, student, done)
    for steps in (one, other):
        again = Checkpoint(tmp_path, student, steps)
        assert again.finished == 0
        assert [stage.name for stage in again.stages] == ["start"]
