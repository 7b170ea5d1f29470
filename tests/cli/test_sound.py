"""Models with layers of this package, as files from anywhere."""

import subprocess
import sys

import keras
import pytest

from keras_kd import sound, tflite


@pytest.mark.slow
def test_a_model_that_begins_with_features_of_sound(tmp_path):
    """In a process of its own, in which nothing has imported the layer."""
    path, output = tmp_path / "listener.keras", tmp_path / "listener.tflite"
    front_end = sound.LogMel(8000, mels=8)
    keras.Sequential([keras.Input((400,), name="clip"), front_end]).save(path)
    command = [sys.executable, "-m", "keras_kd", "convert", path, "--output", output]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert tflite.TFLiteModel.load(output).operators["LOG"] == 1
