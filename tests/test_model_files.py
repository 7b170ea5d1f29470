import zipfile

import keras
import numpy as np
import pytest

from keras_kd._model_files import load_model


@pytest.fixture
def path(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_loads_what_was_saved(path):
    model = load_model(path)
    assert model.output_shape == (None, 3)
    assert not model.compiled


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a model saved by Keras 3"):
        load_model(tmp_path / "model.keras")


def test_other_kinds_of_files(tmp_path):
    (tmp_path / "model.h5").touch()
    with pytest.raises(ValueError, match=r"save it as \.keras"):
        load_model(tmp_path / "model.h5")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_cut_off(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="which Keras refuses"):
        load_model(path)


def test_damaged_inside(path, tmp_path):
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "bad.keras", "w") as target:
        for name in source.namelist():
            content = b"{" if name == "config.json" else source.read(name)
            target.writestr(name, content)
    with pytest.raises(ValueError, match="which Keras refuses"):
        load_model(tmp_path / "bad.keras")


def test_code_is_refused_and_not_run(tmp_path):
    proof = str(tmp_path / "proof")

    def leave_proof(x):
        open(proof, "a").close()
        return x

    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(leave_proof)])
    model.predict(np.zeros((1, 2)), verbose=0)
    model.save(tmp_path / "code.keras")
    (tmp_path / "proof").unlink()
    with pytest.raises(ValueError, match="which Keras refuses"):
        load_model(tmp_path / "code.keras")
    assert not (tmp_path / "proof").exists()
