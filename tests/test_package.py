"""The package as a whole: what importing it does, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_kd

REGISTERED = "'keras_kd>Distiller' in keras.saving.get_custom_objects()"
SCRIPTS = Path(sys.executable).parent


def run(*command):
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TF_USE_LEGACY_KERAS", "TF_CPP_MIN_LOG_LEVEL")
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    "imports",
    [
        "import keras_kd, keras",
        *(
            pytest.param(imports, marks=pytest.mark.slow)
            for imports in ("import keras, keras_kd", "import keras_kd.tflite, keras")
        ),
    ],
)
def test_keras_finds_what_is_registered_whatever_is_imported_first(imports):
    done = run(sys.executable, "-c", f"{imports}; print({REGISTERED})")
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "keras_kd"], [str(SCRIPTS / "keras-kd")]]
)
def test_the_command_answers_without_loading_keras(command):
    if not Path(command[0]).exists():
        pytest.skip("keras_kd is not installed beside this Python")
    done = run(*command, "--version")
    assert done.stdout.strip() == f"keras-kd {keras_kd.__version__}"
    # TensorFlow writes to the terminal as soon as it is loaded.
    assert done.stderr == ""


def test_public_names():
    assert set(keras_kd.__all__) <= set(dir(keras_kd))
    assert all(getattr(keras_kd, name) is not None for name in keras_kd.__all__)
    with pytest.raises(AttributeError, match="module 'keras_kd' has no attribute 'nonsense'"):
        _ = keras_kd.nonsense
