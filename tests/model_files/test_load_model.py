import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_kd._model_files import load_model

CODE = """
import keras

class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.hdf5", "exported"])
def test_loads_what_was_saved(name, model, tmp_path):
    path = tmp_path / name
    if path.suffix:
        model.save(path)
    else:
        model.export(path, verbose=False)
    loaded = load_model(path)
    assert not loaded.compiled
    assert loaded.inputs[0].name == "point"
    x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-6)


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a model saved by Keras 3"):
        load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["model.pb", "model.tflite", "model", "directory"])
def test_other_kinds_of_files(name, tmp_path):
    path = tmp_path / name
    path.mkdir() if name == "directory" else path.touch()
    with pytest.raises(ValueError, match=r"Received the (file|directory) .*SavedModel directory"):
        load_model(path)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_cut_off(name, share, model, tmp_path):
    path = tmp_path / name
    model.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="which is refused"):
        load_model(path)


@pytest.mark.parametrize("name", ["code.keras", "code.h5"])
def test_code_is_refused_and_not_run(name, tmp_path):
    proof = str(tmp_path / "proof")
    code = keras.layers.Lambda(lambda x: (open(proof, "a").close(), x)[1])
    model = keras.Sequential([keras.Input((2,)), code])
    model.predict(np.zeros((1, 2)), verbose=0)
    model.save(tmp_path / name)
    (tmp_path / "proof").unlink()
    with pytest.raises(ValueError, match=r"which is refused .*replace Lambda layers"):
        load_model(tmp_path / name)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("name", ["own.keras", "own.h5"])
def test_own_layers_are_asked_for_by_name(name, tmp_path, monkeypatch):
    from keras_kd._model_files.custom_objects import import_custom_objects

    (tmp_path / "own_layers.py").write_text(CODE)
    monkeypatch.setitem(sys.modules, "own_layers", None)
    own = import_custom_objects(str(tmp_path / "own_layers.py"))
    model = keras.Sequential([keras.Input((2,)), own["Twice"](), keras.layers.Dense(3)])
    model.save(tmp_path / name)
    monkeypatch.setitem(sys.modules, "own_layers", None)
    with pytest.raises(ValueError, match=r"--custom-objects .* only code that you trust"):
        load_model(tmp_path / name)
    loaded = load_model(tmp_path / name, own)
    assert isinstance(loaded.layers[0], own["Twice"])


@pytest.mark.slow
def test_a_distiller_is_no_student(tmp_path):
    """In a process where the Distiller's class is not known, as in the command."""
    from keras_kd import Distiller

    parts = [keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]) for _ in range(2)]
    Distiller(*parts).save(tmp_path / "distiller.keras")
    process = subprocess.run(
        [sys.executable, "-m", "keras_kd", "convert", str(tmp_path / "distiller.keras")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "distiller.student.save" in process.stderr
