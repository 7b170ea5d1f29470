"""What is saved, what is not, and that training goes on where it ended."""

import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_kd
from keras_kd.losses import LogitsMSE, SoftTargets


@pytest.fixture
def distiller(dense_model, hard_loss):
    """Compiled, with a teacher far larger than the student."""
    distiller = keras_kd.Distiller(
        dense_model(units=3000, seed=1, batch_normalization=True),
        dense_model(seed=2, batch_normalization=True),
        [SoftTargets(3.0), LogitsMSE()],
        [1.0, 0.5],
        student_loss_weight=0.3,
        name="lessons",
    )
    distiller.compile(
        keras.optimizers.Adam(0.05), hard_loss, metrics=["accuracy"], run_eagerly=True
    )
    return distiller


def fit(distiller, examples):
    distiller.fit(*examples, epochs=2, batch_size=8, shuffle=False, verbose=0)


def assert_equal_weights(one, other):
    for weights, others in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, others)


def test_a_loaded_distiller_evaluates_and_trains_on_as_if_never_saved(
    distiller, examples, tmp_path
):
    fit(distiller, examples)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert type(loaded) is keras_kd.Distiller
    assert loaded.name == "lessons"
    assert loaded.student_loss_weight == 0.3
    assert loaded.distillation_loss_weights == [1.0, 0.5]
    assert [loss.get_config() for loss in loaded.distillation_losses] == [
        loss.get_config() for loss in distiller.distillation_losses
    ]
    assert_equal_weights(loaded.teacher.model, distiller.teacher.model)
    assert not loaded.teacher.model.trainable
    expected = distiller.evaluate(*examples, verbose=0, return_dict=True)
    assert loaded.evaluate(*examples, verbose=0, return_dict=True) == pytest.approx(expected)
    # Adam's moments decide the next steps: they must have been saved too.
    assert int(loaded.optimizer.iterations) == int(distiller.optimizer.iterations) == 6
    for model in (distiller, loaded):
        fit(model, examples)
    assert_equal_weights(loaded.student, distiller.student)


def test_a_distiller_saved_without_its_teacher_is_small_and_takes_one_later(
    dense_model, student, examples, hard_loss, tmp_path
):
    teacher = dense_model(units=3000, seed=1)
    distiller = keras_kd.Distiller(teacher, student, save_teacher=False)
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    expected = distiller.evaluate(*examples, verbose=0)
    path = tmp_path / "distiller.keras"
    distiller.save(path)
    assert path.stat().st_size < 40_000
    loaded = keras.saving.load_model(path)
    assert loaded.teacher is None
    assert loaded.predict(examples[0], verbose=0).shape == (20, 3)
    with pytest.raises(
        ValueError, match=r"saved without its teacher.*set it first: distiller.teacher ="
    ):
        loaded.evaluate(*examples, verbose=0)
    loaded.teacher = teacher
    assert loaded.evaluate(*examples, verbose=0) == pytest.approx(expected)


def test_a_file_with_the_teacher_holds_it_once(distiller, tmp_path):
    distiller.save(tmp_path / "distiller.keras")
    with zipfile.ZipFile(tmp_path / "distiller.keras") as file:
        assert "assets/teacher.weights.h5" in file.namelist()
    teacher_bytes = 4 * distiller.teacher.model.count_params()
    assert teacher_bytes < (tmp_path / "distiller.keras").stat().st_size < 1.5 * teacher_bytes


def arrays(path):
    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None
        )
        return sum(item.size for item in found)


def test_weights_files_and_backups_hold_no_teacher(distiller, examples, tmp_path):
    fit(distiller, examples)
    distiller.save_weights(tmp_path / "all.weights.h5")
    own = distiller.student.count_params() + len(distiller.optimizer.variables) * 20
    assert arrays(tmp_path / "all.weights.h5") < distiller.student.count_params() + 3 * own
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    distiller.fit(*examples, epochs=3, verbose=0, callbacks=[backup])
    saved = [path for path in (tmp_path / "backup").rglob("*") if path.is_file()]
    assert saved
    assert sum(path.stat().st_size for path in saved) < 100_000


def test_weights_are_loaded_into_a_distiller_just_built(distiller, dense_model, examples, tmp_path):
    fit(distiller, examples)
    distiller.save_weights(tmp_path / "all.weights.h5")
    fresh = keras_kd.Distiller(dense_model(seed=9), dense_model(seed=8, batch_normalization=True))
    fresh.load_weights(tmp_path / "all.weights.h5")
    assert_equal_weights(fresh.student, distiller.student)


def test_a_configuration_rebuilds_the_distiller(distiller, examples):
    copy = keras_kd.Distiller.from_config(distiller.get_config())
    assert copy.student is not distiller.student
    assert copy.get_config()["distillation_loss_weights"] == [1.0, 0.5]
    assert copy.predict(examples[0], verbose=0).shape == (20, 3)


def test_the_students_file_does_not_mention_keras_kd(distiller, tmp_path):
    distiller.student.save(tmp_path / "student.keras")
    with zipfile.ZipFile(tmp_path / "student.keras") as file:
        assert b"keras_kd" not in file.read("config.json")


@pytest.mark.slow
def test_the_student_loads_where_keras_kd_is_not(distiller, examples, tmp_path):
    fit(distiller, examples)
    distiller.student.save(tmp_path / "student.keras")
    np.save(tmp_path / "x.npy", examples[0])
    script = """
import sys
sys.modules["keras_kd"] = None  # an import of it fails
import keras, numpy
model = keras.saving.load_model("student.keras")
numpy.save("y.npy", model.predict(numpy.load("x.npy"), verbose=0))
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    expected = distiller.student.predict(examples[0], verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5)


def test_a_loss_of_ones_own_and_a_subclassed_model_are_saved(examples, hard_loss, tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class Difference(keras_kd.losses.DistillationLoss):
        def per_example(self, teacher_output, student_output, **context):
            return keras.ops.mean(keras.ops.abs(teacher_output - student_output), axis=-1)

    @keras.saving.register_keras_serializable(package="tests")
    class Subclassed(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.logits = keras.layers.Dense(3)

        def call(self, inputs):
            return self.logits(inputs)

    distiller = keras_kd.Distiller(Subclassed(), Subclassed(), Difference())
    distiller.compile("adam", hard_loss, run_eagerly=True)
    fit(distiller, examples)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    for model in (distiller, loaded):
        fit(model, examples)
    assert_equal_weights(loaded.student, distiller.student)
    assert_equal_weights(loaded.teacher.model, distiller.teacher.model)


def test_a_teacher_of_the_users_own_class_comes_back_as_such(teacher, student, hard_loss, tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class Doubled(keras_kd.teachers.ModelTeacher):
        def __call__(self, inputs, student):
            said = super().__call__(inputs, student)
            return said._replace(outputs=2.0 * said.outputs)

    distiller = keras_kd.Distiller(Doubled(teacher), student)
    distiller.compile("sgd", hard_loss)
    assert isinstance(distiller.teacher, Doubled)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert isinstance(loaded.teacher, Doubled)
    for one, other in zip(loaded.teacher.model.get_weights(), teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["d.h5", "d.hdf5", "d", "d.weights.h5"])
def test_what_would_lose_the_teacher_is_refused_with_what_does_not(distiller, tmp_path, name):
    advised = r"a name that ends in \.keras.*call distiller\.save\('distiller\.keras'\)"
    with pytest.raises(ValueError, match=advised):
        distiller.save(tmp_path / name)
    assert not (tmp_path / name).exists()
    if name != "d":
        with pytest.raises(ValueError, match=advised):
            keras.saving.save_model(distiller, tmp_path / name)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert_equal_weights(loaded.teacher.model, distiller.teacher.model)


def test_a_file_of_before_that_lost_its_teacher_is_no_distiller_but_has_the_weights(
    distiller, dense_model, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(keras_kd._keras, "saves_to_hdf5", lambda: False)
        keras.saving.save_model(distiller, tmp_path / "d.h5")
    with pytest.raises(ValueError, match=r"no weights of its teacher.*distiller\.load_weights"):
        keras.saving.load_model(tmp_path / "d.h5", custom_objects={"Distiller": keras_kd.Distiller})
    fresh = keras_kd.Distiller(
        distiller.teacher, dense_model(seed=8, batch_normalization=True), [SoftTargets()] * 2
    )
    fresh.load_weights(tmp_path / "d.h5")
    assert_equal_weights(fresh.student, distiller.student)


def test_checkpoints_of_the_whole_hold_the_teacher_or_are_refused(distiller, examples, tmp_path):
    wrong = keras.callbacks.ModelCheckpoint(tmp_path / "all.h5")
    with pytest.raises(ValueError, match=r"ends in \.keras"):
        distiller.fit(*examples, verbose=0, callbacks=[wrong])
    right = keras.callbacks.ModelCheckpoint(tmp_path / "all.keras")
    distiller.fit(*examples, verbose=0, callbacks=[right])
    loaded = keras.saving.load_model(tmp_path / "all.keras")
    assert_equal_weights(loaded.teacher.model, distiller.teacher.model)


def test_a_directory_holds_the_teacher(distiller, tmp_path):
    keras.saving.save_model(distiller, tmp_path / "all", zipped=False)
    loaded = keras.saving.load_model(tmp_path / "all")
    assert_equal_weights(loaded.teacher.model, distiller.teacher.model)
    assert_equal_weights(loaded.student, distiller.student)


def test_the_export_is_the_students(distiller, examples, tmp_path):
    distiller.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    said = exported.serve(examples[0])
    np.testing.assert_allclose(said, distiller.predict(examples[0], verbose=0), atol=1e-5)
    bytes_of_variables = sum(
        path.stat().st_size for path in (tmp_path / "exported" / "variables").iterdir()
    )
    assert bytes_of_variables < 20_000


def test_a_distiller_with_a_tf_keras_student_is_saved_by_no_function(
    teacher, student, hard_loss, examples, tmp_path
):
    distiller = keras_kd.Distiller(teacher, keras_kd.compression.to_tf_keras(student))
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    distiller.fit(*examples, verbose=0)
    distiller.predict(examples[0], verbose=0)
    for name in ("d.keras", "d.h5", "d"):
        with pytest.raises(ValueError, match=r"call distiller\.student\.save"):
            distiller.save(tmp_path / name)
    for name in ("d.keras", "d"):
        with pytest.raises(ValueError, match=r"call distiller\.student\.save"):
            tf_keras.models.save_model(distiller, tmp_path / name)
    with pytest.raises(NotImplementedError, match="HDF5"):
        tf_keras.models.save_model(distiller, tmp_path / "d.h5")
    distiller.export(tmp_path / "exported")
    exported = tf.saved_model.load(tmp_path / "exported")
    said = exported.serve(examples[0])
    np.testing.assert_allclose(said, distiller.predict(examples[0], verbose=0), atol=1e-5)
