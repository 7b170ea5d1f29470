import json
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_kd.teachers import StoredTeacher


@pytest.fixture(scope="session")
def logits(models):
    """What the model of the commands says of the examples before its softmax."""
    teacher = keras.models.load_model(models / "model.keras")
    before = keras.Model(teacher.inputs, teacher.layers[-1].output)
    probabilities = before.predict(np.load(models / "examples.npy"), verbose=0)
    return np.log(probabilities)


def centred(logits):
    return logits - logits.mean(axis=-1, keepdims=True)


def all_of(path, name="logits"):
    stored = StoredTeacher(path)
    return stored.read(np.arange(stored.examples))[name]


@pytest.mark.parametrize("data", ["examples.npy", "examples.npz"])
def test_a_model(data, models, folder, logits, run):
    out = run("store", models / "model.keras", "--data", models / data, "--output", "t.store")
    assert "30 examples, complete" in out
    assert "float16  all" in out
    np.testing.assert_allclose(centred(all_of("t.store")), centred(logits), atol=1e-2)


def test_as_json(models, folder, run):
    words = ["store", models / "model.keras", "--data", models / "examples.npy"]
    words += ["--output", "t.store", "--dtype", "float32", "--json"]
    result = json.loads(run(*words))
    assert result["path"] == "t.store"
    assert (result["examples"], result["complete"]) == (30, True)
    assert result["bytes"] == (folder / "t.store").stat().st_size
    assert result["bytes_per_example"] == result["bytes"] / 30
    assert [one["name"] for one in result["outputs"]] == ["logits"]
    assert result["outputs"][0]["bytes"] == 12


def test_layers_and_the_largest_logits(models, folder, run):
    layer = keras.models.load_model(models / "model.keras").layers[0].name
    words = ["store", models / "model.keras", "--data", models / "examples.npy"]
    words += ["--outputs", "logits", layer, "--top-k", 2, "--temperature", 2, 4]
    result = json.loads(run(*words, "--output", "t.store", "--json"))
    first, second = result["outputs"]
    assert (first["top_k"], first["temperatures"]) == (2, [2.0, 4.0])
    assert (second["name"], second["shape"]) == (layer, [4, 4, 4])
    assert all_of("t.store", layer).shape == (30, 4, 4, 4)


def test_bytes_for_a_model_that_scales_them_itself(folder, run):
    layers = [keras.Input((4,)), keras.layers.Rescaling(1 / 255), keras.layers.Dense(3)]
    teacher = keras.Sequential(layers)
    teacher.save("teacher.keras")
    x = np.random.default_rng(0).integers(0, 256, (9, 4), "uint8")
    np.save("x.npy", x)
    run("store", "teacher.keras", "--data", "x.npy", "--output", "t.store", "--dtype", "float32")
    expected = teacher.predict(x.astype("float32"), verbose=0)
    np.testing.assert_allclose(all_of("t.store"), expected, atol=1e-6)
    assert len(list(StoredTeacher("t.store").join((x, x[:, 0]), batch_size=3))) == 3


def test_keys(models, folder, run):
    names = np.array([f"{number}.png" for number in range(30)])
    np.save("names.npy", names)
    words = ["store", models / "model.keras", "--data", models / "examples.npy"]
    run(*words, "--output", "positions.store")
    run(*words, "--output", "t.store", "--keys", "names.npy")
    stored = StoredTeacher("t.store")
    np.testing.assert_array_equal(
        stored.read(names[[4, 2]])["logits"], all_of("positions.store")[[4, 2]]
    )
    x = {"image": np.load(models / "examples.npy"), "key": names}
    assert len(list(stored.join((x, np.zeros(30)), batch_size=10))) == 3


def test_predictions(models, folder, logits, run):
    np.save("logits.npy", logits)
    words = ["store", "--predictions", "logits.npy", "--output", "t.store", "--dtype", "float32"]
    out = run(*words, "--data", models / "examples.npy")
    assert "outputs of the teacher 'logits' for 30 examples, complete" in out
    np.testing.assert_array_equal(all_of("t.store"), logits)


def test_probabilities(models, folder, logits, run):
    words = ["store", "--predictions", models / "probabilities.npy", "--dtype", "float32"]
    run(*words, "--output", "t.store", "--probabilities")
    np.testing.assert_allclose(all_of("t.store"), logits, atol=1e-5)
    run(*words, "--output", "each.store", "--probabilities", "sigmoid")
    powers = np.exp(logits)
    expected = np.log(powers / (1 - powers))
    np.testing.assert_allclose(all_of("each.store"), expected, atol=1e-4)


def test_predictions_of_layers(folder, run):
    np.savez("said.npz", logits=np.eye(4) * 3, block=np.ones((4, 2, 2)))
    result = json.loads(run("store", "--predictions", "said.npz", "--output", "t.store", "--json"))
    assert [one["name"] for one in result["outputs"]] == ["logits", "block"]


def test_inspect(models, folder, run):
    run("store", models / "model.keras", "--data", models / "examples.npy", "--output", "t.store")
    out = run("inspect", "t.store")
    assert "30 examples, complete" in out
    assert out.endswith("every checksum is right\n")
    result = json.loads(run("inspect", "t.store", "--json"))
    assert result["verified"] is True
    assert result["examples"] == 30


# Slow enough to be stopped in its middle on any machine.
SLOW_MODEL = """
import sys, numpy as np, keras
keras.utils.set_random_seed(0)
layers = [keras.Input((64,))] + [keras.layers.Dense(1024) for _ in range(12)]
keras.Sequential([*layers, keras.layers.Dense(10)]).save("slow.keras")
np.save("x.npy", np.random.default_rng(0).random((12_000, 64), "float32"))
"""
STORE = ["store", "slow.keras", "--data", "x.npy", "--output", "t.store", "--batch-size", "16"]


@pytest.mark.slow
def test_control_c_leaves_a_store_that_goes_on(folder, run):
    subprocess.run([sys.executable, "-c", SLOW_MODEL], check=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_kd", *STORE], stderr=subprocess.PIPE, text=True
    )
    store = folder / "t.store"
    while process.poll() is None and not (store.exists() and store.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "keras-kd: interrupted\n"
    before = json.loads(run("inspect", "t.store", "--json"))
    assert 0 < before["examples"] < 12_000
    assert not before["complete"]
    assert "12,000 examples, complete" in run(*STORE)
    run(*STORE[:-3], "whole.store", "--batch-size", "16")
    np.testing.assert_array_equal(all_of("t.store"), all_of("whole.store"))


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
# By this name the package knows that it runs as the command.
sys.argv[0] = "keras-kd"
from keras_kd.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_code_2_and_it_goes_on(folder, run):
    logits = np.random.default_rng(0).normal(0, 3, (4000, 100)).astype("float32")
    np.save("logits.npy", logits)
    words = ["store", "--predictions", "logits.npy", "--output", "t.store", "--dtype", "float32"]
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, *words], check=False, capture_output=True, text=True
    )
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith("keras-kd: error: ")
    assert "free space and run again, which resumes there" in line
    run(*words)
    np.testing.assert_array_equal(all_of("t.store"), logits)
