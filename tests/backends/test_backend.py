"""What works on each backend of Keras beside the losses, and what says that it does not."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_kd

sys.path.insert(0, str(Path(__file__).parent))
from _cases import BATCH, X, Y, cross_entropy, drawn, image_model, teaching

BACKEND = keras.backend.backend()
elsewhere = pytest.mark.skipif(BACKEND == "tensorflow", reason="of JAX and PyTorch")
# `make test-backends` runs them on each backend.
if BACKEND == "tensorflow":
    pytestmark = pytest.mark.slow
losses, teachers = keras_kd.losses, keras_kd.teachers


def weights_of(model):
    return np.concatenate([keras.ops.convert_to_numpy(one).ravel() for one in model.weights])


def trained(distiller, data, **options):
    distiller.fit(data, verbose=0, **options)
    return weights_of(distiller.student)


@pytest.fixture(scope="module")
def online():
    """Two epochs with the teacher itself."""
    distiller = teaching(image_model(1), image_model(2))
    distiller.fit(X, Y, batch_size=BATCH, shuffle=False, epochs=2, verbose=0)
    return weights_of(distiller.student)


@elsewhere
def test_tensorflow_does_nothing():
    code = (
        "import sys, keras_kd; keras_kd.Distiller; keras_kd.losses; keras_kd.data.mix; "
        "keras_kd.metrics.Agreement; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


class TestStoredTeachers:
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_a_store_teaches_what_its_teacher_does(self, tmp_path, online, dtype):
        stored = teachers.StoredTeacher.create(
            image_model(1), (X, Y), tmp_path / "store", dtype=dtype
        )
        data = stored.join((X, Y), BATCH, shuffle=False)
        # Keras takes the batches of a PyDataset in another order unless it is told not to.
        result = trained(teaching(stored, image_model(2)), data, epochs=2, shuffle=False)
        exact = dtype == "float32"
        np.testing.assert_allclose(result, online, rtol=0, atol=1e-5 if exact else 2e-3)

    def test_keys_and_shuffling(self, tmp_path):
        keyed = {"image": X, "key": np.arange(len(X)) + 7}
        stored = teachers.StoredTeacher.create(
            image_model(1), (keyed, Y), tmp_path / "store", key="key"
        )
        batches = stored.join((keyed, Y), BATCH, seed=3)
        seen = [np.asarray(batch[1]) for batch in batches]
        assert sorted(np.concatenate(seen)) == sorted(Y)
        assert not np.array_equal(np.concatenate(seen), Y)
        teaching(stored, image_model(2)).fit(batches, epochs=2, verbose=0)

    def test_of_probabilities_the_logits_are_stored(self, tmp_path):
        stored = teachers.StoredTeacher.create(
            image_model(1, activation="softmax"), (X, Y), tmp_path / "store", dtype="float32"
        )
        joined = next(iter(stored.join((X, Y), len(X), shuffle=False)))[0]["teacher_outputs"]
        found = next(np.asarray(one) for name, one in joined.items() if "logits" in name)
        logits = image_model(1).predict(X, verbose=0)
        np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)

    def test_features_and_the_largest_logits(self, tmp_path):
        stored = teachers.StoredTeacher.create(
            image_model(1), (X, Y), tmp_path / "store", ["logits", "vector"], top_k=2
        )
        kinds = [losses.SoftTargets(temperature=4.0), losses.Hint("vector", "vector")]
        distiller = teaching(stored, image_model(2), kinds)
        assert np.isfinite(trained(distiller, stored.join((X, Y), BATCH), epochs=1)).all()

    def test_augmented_examples_come_again(self, tmp_path):
        if BACKEND == "tensorflow":
            pytest.skip("tests/teachers/stored/test_augmentation.py has functions of TensorFlow")

        def shifted(image, seed):
            return image + np.random.default_rng(seed).normal(size=2).astype("float32")

        stored = teachers.StoredTeacher.create(
            image_model(1), (X, Y), tmp_path / "store", dtype="float32",
            augment=shifted, versions=2,
        )  # fmt: skip
        batches = stored.join((X, Y), BATCH, shuffle=False)
        batches.on_epoch_begin()
        x = batches[0][0]
        logits = image_model(1).predict(x["student_inputs"], verbose=0)
        name = next(name for name in x["teacher_outputs"] if "logits" in name)
        np.testing.assert_allclose(x["teacher_outputs"][name], logits, rtol=1e-4, atol=1e-5)
        assert np.abs(x["student_inputs"] - X[:BATCH]).max() > 0.1

    def test_other_examples_are_refused(self, tmp_path):
        stored = teachers.StoredTeacher.create(image_model(1), (X, Y), tmp_path / "store")
        distiller = teaching(stored, image_model(2))
        with pytest.raises(ValueError, match="differ from those stored for the teacher"):
            distiller.fit(stored.join((X[::-1].copy(), Y), BATCH), verbose=0)

    def test_validation_by_labels_alone(self, tmp_path):
        stored = teachers.StoredTeacher.create(image_model(1), (X, Y), tmp_path / "store")
        distiller = teaching(stored, image_model(2))
        history = distiller.fit(stored.join((X, Y), BATCH), validation_data=(X, Y), verbose=0)
        assert "val_student_loss" in history.history
        assert "val_distillation_loss" not in history.history


def test_a_distiller_is_saved_with_its_teacher(tmp_path):
    distiller = teaching(image_model(1), image_model(2), losses.Hint("map", "map"))
    distiller.fit(X, Y, batch_size=BATCH, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    again = keras.models.load_model(tmp_path / "distiller.keras")
    expected = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    assert again.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)
    assert len(distiller.weights) == len(again.weights)
    assert not {id(one) for one in distiller.teacher.model.weights} & {
        id(one) for one in distiller.weights
    }


def test_the_teacher_stays_as_it_was_and_works_after_training():
    teacher = image_model(1, normalized=True)
    before, outputs = weights_of(teacher), teacher.predict(X, verbose=0)
    teaching(teacher, image_model(2)).fit(X, Y, batch_size=BATCH, verbose=0)
    np.testing.assert_array_equal(weights_of(teacher), before)
    np.testing.assert_array_equal(teacher.predict(X, verbose=0), outputs)


def test_a_teacher_of_nan_is_refused_and_training_goes_on_with_another():
    broken = image_model(1)
    broken.set_weights([np.full(one.shape, np.nan) for one in broken.get_weights()])
    distiller = teaching(broken, image_model(2))
    with pytest.raises(ValueError, match="NaN or infinite outputs from the teacher"):
        distiller.fit(X, Y, batch_size=BATCH, verbose=0)
    before = weights_of(distiller.student)
    assert np.isfinite(before).all()
    distiller.teacher = image_model(3)
    distiller.fit(X, Y, batch_size=BATCH, verbose=0)
    assert np.isfinite(weights_of(distiller.student)).all()


def test_probabilities_of_unknown_origin_are_warned_of():
    inputs = keras.Input((4, 4, 2))
    powers = keras.ops.exp(keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
    model = keras.Model(inputs, powers / keras.ops.sum(powers, axis=-1, keepdims=True))
    drawn(model.weights, 1)
    distiller = teaching(model, image_model(2))
    with pytest.warns(UserWarning, match="that are probabilities, made by something other"):
        distiller.fit(X, Y, batch_size=BATCH, verbose=0)


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_usual_models_are_not_warned_of(activation):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        distiller = teaching(
            image_model(1, activation=activation),
            image_model(2, activation=activation),
            loss=cross_entropy(activation is None),
        )
        distiller.fit(X, Y, batch_size=BATCH, verbose=0)
        distiller.evaluate(X, Y, verbose=0)


def test_teachers_that_fail_say_so_in_one_line():
    teacher = teachers.NumpyFunction(lambda x: np.zeros((len(x), 3)), (5,), name="short")
    with pytest.raises(ValueError, match=r"outputs of shapes .* from the teacher 'short'") as error:
        teaching(teacher, image_model(2)).fit(X, Y, batch_size=BATCH, verbose=0)
    assert "\n" not in str(error.value)


def test_eager_steps_end_alike(online):
    distiller = keras_kd.Distiller(image_model(1), image_model(2))
    distiller.compile(keras.optimizers.SGD(0.05, momentum=0.9), cross_entropy(), run_eagerly=True)
    distiller.fit(X, Y, batch_size=BATCH, shuffle=False, epochs=2, verbose=0)
    np.testing.assert_allclose(weights_of(distiller.student), online, rtol=0, atol=1e-5)


def test_labeled_and_unlabeled_examples_mixed():
    batches = keras_kd.data.mix((X[:10], Y[:10]), X[10:], batch_size=8, seed=0)
    for x, y in batches:
        assert np.asarray(x).shape == (8, 4, 4, 2)
        assert list(np.asarray(y)[4:]) == [-1] * 4
        assert min(np.asarray(y)[:4]) >= 0
    distiller = teaching(image_model(1), image_model(2), missing_label=-1)
    distiller.fit(batches, epochs=2, verbose=0)


@elsewhere
@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("compression.prune", "compression"),
        ("tflite.convert", "tflite.convert"),
        ("tflite.verify", "tflite.verify"),
        ("fit_to_device", "search"),
    ],
)
def test_what_needs_tensorflow_says_how_to_go_on(name, named):
    def use():
        value = keras_kd
        for part in name.split("."):
            value = getattr(value, part)
        value(None, None, None)

    fix = rf"for keras_kd\.{named}\. Expected .* keras-kd convert student\.keras"
    with pytest.raises(ImportError, match=fix):
        use()


@elsewhere
def test_its_student_is_converted_by_the_command_line(tmp_path):
    program = os.environ.get("KERAS_KD")
    if program is None:
        pytest.skip("KERAS_KD names no keras-kd with TensorFlow; `make test-backends` does")
    distiller = teaching(image_model(1), image_model(2))
    distiller.fit(X, Y, batch_size=BATCH, verbose=0)
    student, file = tmp_path / "student.keras", tmp_path / "student.tflite"
    distiller.student.save(student)
    # The command is run as in the shell of this test, in which KERAS_BACKEND names another backend.
    done = subprocess.run(
        [program, "convert", student, "--output", file], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, numpy as np; from keras_kd.tflite import TFLiteModel; "
        "x = np.load(sys.argv[1]); "
        "np.save(sys.argv[3], TFLiteModel.load(sys.argv[2]).predict(x))"
    )
    python = Path(program).parent / "python"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    subprocess.run(
        [python, "-c", code, tmp_path / "x.npy", file, tmp_path / "y.npy"],
        check=True, env=environment, capture_output=True,
    )  # fmt: skip
    expected = distiller.student.predict(X, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution trains on several devices on JAX")
def test_two_devices_learn_what_one_learns():
    """In a process of its own: the number of devices is known before JAX begins."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import keras, jax, numpy as np\n"
        "assert len(jax.devices()) == 2\n"
        "from _cases import *\n"
        "def run(loss):\n"
        "    distiller = teaching(image_model(1), image_model(2), loss)\n"
        "    x, y, w = X[:32], Y[:32], WEIGHTS[:32]\n"
        "    distiller.fit(x, y, sample_weight=w, batch_size=8, shuffle=False, verbose=0)\n"
        "    return np.concatenate([np.asarray(w).ravel() for w in distiller.student.weights])\n"
        "def all_of():\n"
        "    kinds = None, losses.Relational(), losses.Hint('map', 'map')\n"
        "    return [run(loss) for loss in kinds]\n"
        "one = all_of()\n"
        "keras.distribution.set_distribution(keras.distribution.DataParallel())\n"
        "for first, second in zip(one, all_of()):\n"
        "    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)\n"
        "print('alike')\n"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", code, Path(__file__).parent],
        capture_output=True, text=True, env={**os.environ, **flags},
    )  # fmt: skip
    assert done.stdout.strip().endswith("alike"), done.stderr[-2000:]
