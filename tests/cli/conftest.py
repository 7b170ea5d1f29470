import keras
import numpy as np
import pytest

from keras_kd import cli, tflite


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command that works and return what it prints."""

    def run_command(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run_command


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A directory with a small model in all forms, its .tflite, examples and damaged copies."""
    directory = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1), name="image"),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.save(directory / "model.keras")
    model.save(directory / "model.h5")
    model.export(directory / "exported", verbose=False)
    tflite.convert(model).save(directory / "model.tflite")
    random = np.random.default_rng(0)
    examples = random.random((30, 6, 6, 1), dtype="float32")
    np.save(directory / "examples.npy", examples)
    np.savez(directory / "examples.npz", image=examples)
    np.savez(directory / "misnamed.npz", picture=examples)
    np.save(directory / "labels.npy", model.predict(examples, verbose=0).argmax(axis=1))
    np.save(directory / "probabilities.npy", model.predict(examples, verbose=0))
    np.save(directory / "two.npy", np.arange(2))
    np.save(directory / "wrong_labels.npy", np.full(30, 7))
    np.save(directory / "empty.npy", examples[:0])
    np.save(directory / "narrow.npy", examples[:, :4])
    np.save(directory / "text.npy", np.array(["a", "b"]))
    np.save(directory / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (directory / "labels.txt").write_text("one\ntwo\nthree\n")
    (directory / "two_labels.txt").write_text("one\ntwo\n")
    (directory / "empty_labels.txt").write_text("one\n\nthree\n")
    (directory / "latin.txt").write_bytes("größer\n".encode("latin-1"))
    for name in ("model.keras", "model.h5", "model.tflite", "examples.npy", "examples.npz"):
        content = (directory / name).read_bytes()
        (directory / f"damaged_{name}").write_bytes(content[: len(content) // 2])
    (directory / "empty.tflite").touch()
    code = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)])
    code.save(directory / "code.keras")
    return directory
