import subprocess
import sys

import pytest

from keras_kd import data, tflite
from keras_kd._lazy import lazy_names


def test_names_come_from_their_modules():
    get, names = lazy_names("keras_kd.data", {"from_bytes": "splits", "images": "images"})
    assert get("from_bytes").__module__ == "keras_kd.data.splits"
    assert get("images").__name__ == "keras_kd.data.images"
    assert {"from_bytes", "images", "__doc__"} <= set(names())
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
        "data.load_examples, android.read_labels, tflite.TFLiteModel, tflite.inspect; "
        "sys.exit('keras' in sys.modules or 'ai_edge_litert.interpreter' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
