"""The package as a whole: what importing it does, in processes of their own."""

import os
import subprocess
import sys

import pytest

import keras_kd

REGISTERED = "'keras_kd>Distiller' in keras.saving.get_custom_objects()"
HEAVY = ("tensorflow", "keras", "tf_keras", "ai_edge_litert", "matplotlib")


def printed(script):
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_importing_it_imports_nothing_heavy():
    script = f"import sys, keras_kd; print([name for name in {HEAVY} if name in sys.modules])"
    assert printed(script) == "[]"


@pytest.mark.parametrize(
    "imports",
    ["import keras_kd, keras", "import keras, keras_kd", "import keras_kd, keras; keras_kd.losses"],
)
def test_keras_finds_what_is_registered_whatever_is_imported_first(imports):
    assert printed(f"{imports}; print({REGISTERED})") == "True"


@pytest.mark.parametrize("room", ["compression", "evaluation", "losses"])
def test_a_room_can_be_imported_first(room):
    script = f"import keras, keras_kd.{room}" if room == "losses" else f"import keras_kd.{room}"
    assert printed(f"{script}, keras; keras_kd.tflite; print({REGISTERED})") == "True"


def test_public_names():
    assert dir(keras_kd) == keras_kd.__all__
    assert all(getattr(keras_kd, name) is not None for name in keras_kd.__all__)
    with pytest.raises(AttributeError, match="module 'keras_kd' has no attribute 'nonsense'"):
        _ = keras_kd.nonsense
