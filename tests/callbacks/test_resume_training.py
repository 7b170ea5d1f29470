"""A training that was killed and started again ends as one that was not, to the last bit."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

import keras_kd
from keras_kd import compression, losses, schedules, teachers
from keras_kd.callbacks import ResumeTraining

X = np.random.default_rng(0).normal(size=(22, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 22)
# 4 steps an epoch, the last with 4 examples.
BATCH, STEPS, EPOCHS = 6, 4, 3


class Kill(keras.callbacks.Callback):
    """Ends the process, as far as a test can, after a number of steps of this run."""

    def __init__(self, after=0):
        super().__init__()
        self.after = after
        # Nothing that a checkpoint keeps.
        self.steps = itertools.count(1)

    def on_train_batch_end(self, batch, logs=None):
        if next(self.steps) == self.after:
            raise KeyboardInterrupt


class Batches(keras.callbacks.Callback):
    """Which batches were done, in a list that is a state like that of any callback."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(batch)


def new_student(name="student"):
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, activation="relu", name="hidden"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(3, name="logits"),
        ],
        name=name,
    )


def new_teacher():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="features"), layers.Dense(3)], name="teacher"
    )


def compiled(model, **options):
    model.compile(
        keras.optimizers.Adam(0.03),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **{"run_eagerly": True, **options},
    )
    return model


def distiller(student=None, teacher=None, losses_=None, **options):
    weight = schedules.warm_up(10, 0.5)
    return compiled(
        keras_kd.Distiller(
            teacher or new_teacher(), student or new_student(), losses_, student_loss_weight=weight
        ),
        **options,
    )


def run(make, directory, kill=0, *, save_freq=3, data=None, callbacks=(), **options):
    """All that a training ends with; None if it was killed."""
    keras.utils.set_random_seed(1)
    model = make()
    resume = ResumeTraining(directory, save_freq)
    arguments = {"x": X, "y": Y, "batch_size": BATCH} if data is None else {"x": data()}
    arguments |= {"validation_data": (X[:8], Y[:8]), "epochs": EPOCHS, "verbose": 0, **options}
    batches = Batches()
    try:
        history = resume.fit(model, callbacks=[Kill(kill), batches, *callbacks], **arguments)
    except KeyboardInterrupt:
        return None
    optimizer = model.optimizer.variables
    averages = getattr(getattr(model, "teacher", None), "learning_models", [])
    return {
        "weights": model.get_weights(),
        "optimizer": [np.asarray(v) for v in (optimizer() if callable(optimizer) else optimizer)],
        "averages": [weight for average in averages for weight in average.get_weights()],
        "history": history.history,
        "epochs": history.epoch,
        "batches": batches.seen,
        "random": [random.random(), float(np.random.random())],
        "dropout": np.asarray(keras.random.uniform((2,))),
    }


def assert_same(one, other):
    for name in one:
        assert repr(one[name]) == repr(other[name]), name
        if name in ("weights", "optimizer", "averages"):
            for first, second in zip(one[name], other[name], strict=True):
                np.testing.assert_array_equal(first, second)


def assert_resumes(make, path, kills, **options):
    """Kill after each number of steps, and compare with a run of the same that is not killed."""
    # Callbacks of Keras keep what they know: new ones in each run.
    callbacks = options.pop("callbacks", list)
    whole = run(make, path / "whole", callbacks=callbacks(), **options)
    for number, kill in enumerate(kills):
        directory = path / str(number)
        for each in kill if isinstance(kill, tuple) else (kill,):
            assert run(make, directory, each, callbacks=callbacks(), **options) is None
        assert_same(whole, run(make, directory, callbacks=callbacks(), **options))
    return whole


def stopping():
    return [
        keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, factor=0.5, min_delta=1.0),
    ]


@pytest.mark.slow
def test_a_distillation_goes_on_after_kills(tmp_path):
    whole = assert_resumes(distiller, tmp_path, [1, 4, 8, (6, 2, 3)], callbacks=stopping)
    assert whole["batches"] == [*range(STEPS)] * EPOCHS
    assert "learning_rate" in whole["history"]
    assert whole["history"]["learning_rate"][-1] < whole["history"]["learning_rate"][0]


def test_compiled_steps_go_on(tmp_path):
    assert_resumes(lambda: distiller(run_eagerly=False), tmp_path, [7], epochs=2)


def test_a_finished_training_returns_its_result_at_once(tmp_path):
    whole = run(distiller, tmp_path, callbacks=stopping(), epochs=1)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2
    again = run(distiller, tmp_path, kill=1, callbacks=stopping(), epochs=1)
    assert_same(whole, again)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_more_epochs_continue_a_finished_training(tmp_path):
    run(distiller, tmp_path / "some", epochs=1)
    assert_same(
        run(distiller, tmp_path / "some", epochs=2), run(distiller, tmp_path / "all", epochs=2)
    )
    with pytest.raises(ValueError, match=r"epochs=1 for a training of which 2 epochs are done.*"):
        run(distiller, tmp_path / "some", epochs=1)


@pytest.mark.slow
def test_a_training_that_stopped_early_stays_stopped(tmp_path):
    def callbacks():
        return [keras.callbacks.EarlyStopping("val_loss", min_delta=9.0, patience=0)]

    whole = assert_resumes(distiller, tmp_path, [3], callbacks=callbacks, epochs=5)
    assert len(whole["epochs"]) == 2
    assert_same(whole, run(distiller, tmp_path / "whole", callbacks=callbacks(), epochs=5))


@pytest.mark.slow
def test_an_epoch_is_enough(tmp_path):
    assert_resumes(distiller, tmp_path, [2, 6, 11], save_freq="epoch")


def test_a_model_without_a_teacher_goes_on(tmp_path):
    assert_resumes(lambda: compiled(new_student()), tmp_path, [6], epochs=2)


def hint():
    return distiller(losses_=[losses.SoftTargets(4.0), losses.Hint("features", "hidden")])


def averaged():
    return distiller(teacher=teachers.MovingAverage(0.9))


@pytest.mark.slow
@pytest.mark.parametrize("make", [hint, averaged])
def test_adapters_and_averages_go_on(make, tmp_path):
    assert_resumes(make, tmp_path, [6])


def noise(example, seed):
    import tensorflow as tf

    return example + tf.random.stateless_normal(tf.shape(example), seed)


@pytest.mark.parametrize("augment", [pytest.param(None, marks=pytest.mark.slow), noise])
def test_a_stored_teacher_goes_on_in_the_order_and_with_the_versions_of_its_run(augment, tmp_path):
    keras.utils.set_random_seed(1)
    path, versions = tmp_path / "teacher.store", {} if augment is None else {"versions": 2}
    teachers.StoredTeacher.create(new_teacher(), (X, Y), path, augment=augment, **versions)

    def stored():
        return teachers.StoredTeacher(path, augment=augment)

    assert_resumes(
        lambda: distiller(teacher=stored()),
        tmp_path,
        [6, (2, 7)],
        data=lambda: stored().join((X, Y), BATCH, seed=3),
    )


@pytest.mark.slow
def test_averages_of_the_optimizer_go_on(tmp_path):
    def callbacks():
        return [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]

    def make():
        model = compiled(new_student())
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.5),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            run_eagerly=True,
        )
        return model

    assert_resumes(make, tmp_path, [2, 6], callbacks=callbacks)


def seed_tf_keras():
    """Its own seeds, which a process that begins has not got."""
    tf_keras.utils.set_random_seed(1)


def pruned():
    seed_tf_keras()
    schedule = compression.PolynomialSchedule(begin_step=2, end_step=9, frequency=2)
    return distiller(compression.prune(new_student(), 0.5, schedule=schedule))


def quantized():
    seed_tf_keras()
    return distiller(compression.quantize_aware(new_student(), X))


def averaged_in_tf_keras():
    seed_tf_keras()
    return distiller(compression.to_tf_keras(new_student()), teachers.MovingAverage(0.9))


@pytest.mark.slow
@pytest.mark.parametrize("make", [pruned, quantized, averaged_in_tf_keras])
def test_students_of_tf_keras_go_on(make, tmp_path):
    assert_resumes(make, tmp_path, [8], callbacks=stopping)


def test_a_training_without_a_seed_goes_on_from_the_state_of_its_run(tmp_path, monkeypatch):
    """The second run begins with other weights, seeds and orders, which do not count."""
    teacher = new_teacher()
    monkeypatch.setattr(keras.utils, "set_random_seed", lambda seed: None)

    def training(name, kill=0):
        return run(lambda: distiller(teacher=teacher), tmp_path / name, kill, epochs=2)

    assert training("one", 6) is None
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    ends = [training(name) for name in ("one", "other")]
    assert_same(*ends)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped(tmp_path):
    whole = run(distiller, tmp_path / "whole")
    assert run(distiller, tmp_path / "one", 8) is None
    older, newest = sorted((tmp_path / "one").iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), newest.read_bytes()[:-40], b""):
        newest.write_bytes(damaged)
        with pytest.warns(UserWarning, match=f"Received the damaged checkpoint .*{newest.name}"):
            assert_same(whole, run(distiller, tmp_path / "one"))
        for path in (tmp_path / "one").iterdir():
            path.unlink()
        assert run(distiller, tmp_path / "one", 8) is None
    for path in (older, newest):
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="damaged checkpoint"),
        pytest.raises(ValueError, match=r"cannot be read.*delete the directory to begin anew"),
    ):
        run(distiller, tmp_path / "one")


def wider():
    return distiller(
        keras.Sequential([keras.Input((6,)), layers.Dense(9), layers.Dense(3)], name="student")
    )


def other_rate():
    model = distiller()
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        run_eagerly=True,
    )
    return model


def other_teacher():
    teacher = new_teacher()
    teacher.set_weights([weight + 1.0 for weight in teacher.get_weights()])
    return distiller(teacher=teacher)


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    ("make", "options", "difference"),
    [
        (wider, {}, r"model\.config\.layers"),
        (other_rate, {}, r"optimizer\.learning_rate: 0\.02.* there, 0\.009.* here"),
        (other_teacher, {}, r"teacher\.weights"),
        (distiller, {"x": X + 1.0}, r"data\.arrays\[0\]"),
        (distiller, {"batch_size": 5}, r"data\.batch_size: 6 there, 5 here"),
        (distiller, {"class_weight": {0: 1.0, 1: 2.0, 2: 1.0}}, "class_weight: null there"),
        (
            lambda: distiller(losses_=losses.SoftTargets(2.0)),
            {},
            r"distillation_losses\[0\]\.temperature: 4\.0 there, 2\.0 here",
        ),
    ],
)
def test_another_training_is_refused_with_the_difference(make, options, difference, tmp_path):
    assert run(distiller, tmp_path, 5) is None
    files = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(
        ValueError, match=rf"which holds another training: .*{difference}.*To fix it: "
    ):
        run(make, tmp_path, **options)
    assert files == sorted(path.name for path in tmp_path.iterdir())


def test_names_that_keras_counts_do_not_matter(tmp_path):
    def make():
        return distiller(keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(3)]))

    assert run(make, tmp_path, 4, epochs=2) is None
    assert run(make, tmp_path, epochs=2) is not None


@pytest.mark.slow
def test_validation_split_is_that_of_keras(tmp_path):
    options = {"validation_data": None, "validation_split": 0.3, "epochs": 2}
    whole = assert_resumes(distiller, tmp_path, [4], **options)
    model = distiller()
    model.set_weights(whole["weights"])
    end = int(len(X) * 0.7)
    expected = model.evaluate(X[end:], Y[end:], BATCH, verbose=0, return_dict=True)
    assert whole["history"]["val_student_loss"][-1] == expected["student_loss"]


def test_what_cannot_go_on_is_refused(tmp_path):
    model = compiled(new_student())
    resume = ResumeTraining(tmp_path / "state")
    with pytest.raises(ValueError, match=r"in model\.fit of Sequential.*resume\.fit\(model"):
        model.fit(X, Y, verbose=0, callbacks=[resume])
    with pytest.raises(ValueError, match=r"initial_epoch=1.*leave out initial_epoch"):
        resume.fit(model, X, Y, epochs=2, initial_epoch=1)
    with pytest.raises(ValueError, match=r"BackupAndRestore, ResumeTraining.*leave out"):
        resume.fit(model, X, Y, callbacks=[keras.callbacks.BackupAndRestore(tmp_path)])
    with pytest.raises(TypeError, match=r"data of type generator.*read from any position"):
        resume.fit(model, ((X, Y) for _ in range(2)))
    with pytest.raises(ValueError, match=r"which is not compiled|compiled model"):
        resume.fit(new_student(), X, Y)
    several = compiled(new_student(), steps_per_execution=2)
    with pytest.raises(ValueError, match=r"steps_per_execution=2.*in compile"):
        resume.fit(several, X, Y)
    with pytest.raises(ValueError, match=r"save_freq=0"):
        ResumeTraining(tmp_path, 0)
    with pytest.raises(TypeError, match=r"save_freq='step'"):
        ResumeTraining(tmp_path, "step")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"which is a file"):
        ResumeTraining(tmp_path / "file")
    assert not (tmp_path / "state").exists()


def test_the_teacher_is_not_in_the_checkpoint(tmp_path):
    teacher = keras.Sequential([keras.Input((6,)), layers.Dense(20_000), layers.Dense(3)])
    run(lambda: distiller(teacher=teacher), tmp_path, epochs=1)
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 100_000


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    script = Path(__file__).with_name("killed_training.py")
    command = [sys.executable, str(script), str(tmp_path / "state"), str(tmp_path / "result.npz")]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [*command[:2], str(tmp_path / "whole"), str(tmp_path / "whole.npz")],
        check=True,
        env=environment,
    )
    generator = np.random.default_rng()
    for _ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        # The process says after which steps it is.
        for _ in range(int(generator.integers(1, 12))):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "result.npz") as result:
        assert whole.files == result.files
        for name in whole.files:
            np.testing.assert_array_equal(whole[name], result[name])
