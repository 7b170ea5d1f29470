"""The code of docs/distiller.md, run from top to bottom."""

import re
from pathlib import Path

import keras
import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "distiller.md"


def model(name, units):
    layers = [
        keras.Input((5,)),
        keras.layers.Dense(units, activation="relu", name="features"),
        keras.layers.Dense(3, name="outputs"),
    ]
    return keras.Sequential(layers, name=name)


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    names = {
        "keras": keras,
        "x": random.normal(size=(32, 5)).astype("float32"),
        "y": random.integers(0, 3, 32),
        "teacher": model("teacher", 8),
        "student": model("student", 4),
        "first_teacher": model("first", 8),
        "second_teacher": model("second", 6),
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
