"""The page about evaluation: its code runs, and its numbers are right."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.metrics.intervals import paired_shares

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M)


def classifier():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.AveragePooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def test_all_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample = keras_kd.data.load_sample()
    keras.utils.set_random_seed(0)
    student = classifier()
    space = {
        "teacher": classifier(),
        "student": student,
        "model": keras_kd.tflite.convert(student, "int8", sample.x_train[:50]),
        "x_test": sample.x_test[:60],
        "y_test": sample.y_test[:60],
    }
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec(compile(block, "evaluation.md", "exec"), space)
    assert space["accuracy"].difference is not None
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>Digits</h1>" in html
    assert (tmp_path / "results.json").is_file()


def test_the_example_of_one_in_300():
    low, high = (100 * end for end in paired_shares(1, 0, 300))
    assert f"+0.33 points, with an interval from {low:+.2f} to {high:+.2f}" in PAGE


@pytest.mark.parametrize("task", keras_kd.metrics.TASKS)
def test_every_task_is_explained(task):
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{task}`")]
    measures = {
        "accuracy": "accuracy", "f1": "macro F1", "auc": "AUC",
        "ece": "expected calibration error", "exact": "all labels right", "ndcg": "NDCG@10",
        "mrr": "mean reciprocal rank", "mae": "mean absolute error",
        "rmse": "root mean square error", "r2": "R²", "mse": "mean square error",
    }  # fmt: skip
    for measure in keras_kd.metrics.MEASURES[task]:
        assert measures[measure.name] in row


def test_what_differs_from_scikit_learn():
    absent = np.array([[1, 0], [0, 0]])
    assert keras_kd.metrics.measure(absent, absent)["f1"] == 1.0
