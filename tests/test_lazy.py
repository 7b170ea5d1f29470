import pickle
import subprocess
import sys
from types import FunctionType, ModuleType

import keras
import pytest

import keras_kd
from keras_kd import data, tflite
from keras_kd._lazy import lazy_names


def test_names_come_from_their_modules():
    get, names = lazy_names("keras_kd.data", {"mix": "mixing", "images": "images"})
    assert get("mix").__code__.co_filename.endswith("mixing.py")
    assert get("images").__name__ == "keras_kd.data.images"
    assert {"mix", "images", "__doc__"} <= set(names())
    with pytest.raises(AttributeError, match=r"'keras_kd\.data' has no attribute 'nothing'"):
        get("nothing")


@pytest.mark.parametrize("package", [data, tflite, tflite.android])
def test_every_public_name_is_there(package):
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in package.__all__)


def test_nothing_is_imported_before_it_is_used():
    program = (
        "import sys; sys.argv = ['keras-kd']; "
        "from keras_kd import data, tflite; from keras_kd.tflite import android, model; "
        "data.load_examples, android.read_class_names, tflite.TFLiteModel, tflite.inspect; "
        "sys.exit('keras' in sys.modules or 'ai_edge_litert.interpreter' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def public_modules():
    """`keras_kd`, and the modules that it and its packages export."""
    found = [keras_kd]
    for module in found:
        values = [getattr(module, name) for name in exported(module)]
        found += [one for one in values if isinstance(one, ModuleType) and one not in found]
    return found


def exported(module):
    return [name for name in module.__all__ if not name.startswith("__")]


PUBLIC = [
    (module, name)
    for module in public_modules()
    for name in exported(module)
    if isinstance(getattr(module, name), type | FunctionType)
]


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=lambda one: getattr(one, "__name__", one))
def test_public_objects_name_their_public_path(module, name):
    value = getattr(module, name)
    homes = {one.__name__ for one, public in PUBLIC if getattr(one, public) is value}
    assert value.__module__ in homes
    assert value.__qualname__ == name
    assert value.__doc__
    assert pickle.loads(pickle.dumps(value)) is value


def test_files_of_keras_name_the_public_path():
    loss = keras_kd.losses.SoftTargets(temperature=2.0)
    config = keras.saving.serialize_keras_object(loss)
    assert config["module"] == "keras_kd.losses"
    # Files of versions in which losses named the module that defines them.
    for module in ("keras_kd.losses", "keras_kd.losses.logits.soft_targets"):
        again = keras.saving.deserialize_keras_object({**config, "module": module})
        assert (type(again), again.get_config()) == (type(loss), loss.get_config())
