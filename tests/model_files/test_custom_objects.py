import sys

import keras
import pytest

from keras_kd._model_files import load_model
from keras_kd._model_files.custom_objects import import_custom_objects

CODE = """
import keras
from keras.layers import Dense

class Own(keras.layers.Layer):
    pass

def activation(x):
    return x

_hidden = Own
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A name of a file and module in the working directory, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    yield "own_objects_of_a_test"
    sys.modules.pop("own_objects_of_a_test", None)


@pytest.mark.parametrize("suffix", [".py", ""])
def test_what_a_file_or_module_defines(suffix, own, tmp_path):
    (tmp_path / f"{own}.py").write_text(CODE)
    path = list(sys.path)
    assert sorted(import_custom_objects(own + suffix)) == ["Own", "activation"]
    assert sys.path == path


def test_missing(own):
    with pytest.raises(FileNotFoundError, match="own layers"):
        import_custom_objects(f"{own}.py")
    with pytest.raises(ImportError, match="cannot be imported \\(ModuleNotFoundError"):
        import_custom_objects(own)


def test_code_that_fails(own, tmp_path):
    (tmp_path / f"{own}.py").write_text("1 / 0")
    with pytest.raises(ImportError, match="ZeroDivisionError: division by zero"):
        import_custom_objects(f"{own}.py")
    assert own not in sys.modules


def test_nothing_in_it(own, tmp_path):
    (tmp_path / f"{own}.py").write_text("from keras.layers import Dense")
    with pytest.raises(ValueError, match="defines no class or function"):
        import_custom_objects(f"{own}.py")


def test_a_package_that_registers_its_classes(own, tmp_path):
    """As KerasHub does; its classes are defined further inside."""
    inside = (
        "@keras.saving.register_keras_serializable('own')\nclass Inside(keras.layers.Layer): ..."
    )
    (tmp_path / "inside_of_a_test.py").write_text(f"import keras\n{inside}")
    (tmp_path / f"{own}.py").write_text("import inside_of_a_test")
    try:
        assert import_custom_objects(own) == {}
        kind = keras.saving.get_registered_object("own>Inside")
        keras.Sequential([keras.Input((2,)), kind()]).save(tmp_path / "model.keras")
        assert isinstance(load_model(tmp_path / "model.keras").layers[0], kind)
    finally:
        keras.saving.get_custom_objects().pop("own>Inside")
        sys.modules.pop("inside_of_a_test")
