import zipfile

import keras
import pytest


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((2,), name="point"), keras.layers.Dense(3, name="scores")]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    return model


@pytest.fixture
def rewritten(tmp_path):
    """A copy of a zip archive with members replaced, added, or left out where None is given."""

    def rewrite(source, members, compression=zipfile.ZIP_STORED):
        path = tmp_path / f"rewritten{source.suffix}"
        with zipfile.ZipFile(source) as old:
            contents = {name: old.read(name) for name in old.namelist()} | members
        with zipfile.ZipFile(path, "w", compression) as new:
            for name, content in contents.items():
                if content is not None:
                    new.writestr(name, content)
        return path

    return rewrite
