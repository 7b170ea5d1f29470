"""The code of docs/sound.md, run from top to bottom on the bundled clips."""

import re
import shutil
import subprocess
from pathlib import Path

import keras
import pytest

from keras_kd.tflite import microcontroller

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sound.md"


def model(name, units):
    layers = [
        keras.Input((49, 32), name="features"),
        keras.layers.AveragePooling1D(7),
        keras.layers.Flatten(),
        keras.layers.Dense(units, activation="relu"),
        keras.layers.Dense(3, activation="softmax", name="scores"),
    ]
    return keras.Sequential(layers, name=name)


def blocks(language):
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(not microcontroller.is_installed(), reason="tflite-micro is not installed")
def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spoken_digits").symlink_to(ROOT / "examples" / "spoken_digits")
    names = {"teacher": model("teacher", 16), "student": model("student", 8)}
    assert len(blocks("python")) == 5
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["x_test"].shape == (9, 49, 32)
    [program] = blocks("c")
    (tmp_path / "listen.c").write_text(program)
    if shutil.which("gcc"):
        command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-Iwords", "-c", "listen.c"]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
