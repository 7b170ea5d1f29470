import json

import keras
import numpy as np
import pytest

from keras_kd import metrics, tflite
from keras_kd.cli import report
from keras_kd.cli.arguments import Parser


def test_inspect_as_json(models, run):
    result = json.loads(run("inspect", models / "model.tflite", "--json"))
    assert result["size"] == (models / "model.tflite").stat().st_size
    assert result["operators"]["CONV_2D"] == 1


@pytest.mark.parametrize("data", ["examples.npy", "examples.npz"])
def test_verify(data, models, run):
    words = ["verify", models / "model.tflite", "--against", models / "model.keras"]
    words += ["--data", models / data, "--labels", models / "labels.npy"]
    assert "accuracy: 100.00 %, the student's 100.00 %" in run(*words)
    result = json.loads(run(*words, "--json"))
    assert result["agreement"] == result["accuracy"] == 1.0
    assert result["examples"] == 30


def test_benchmark_puts_files_side_by_side(models, folder, run):
    copy = folder / "copy.tflite"
    copy.write_bytes((models / "model.tflite").read_bytes())
    words = ["benchmark", models / "model.tflite", copy, "--runs", 5, "--threads", 1]
    header, *rows, empty, unit = run(*words).splitlines()
    assert header.split()[:4] == ["file", "kernels", "threads", "median"]
    assert [row.split()[1:3] for row in rows] == [["xnnpack", "1"], ["builtin", "1"]] * 2
    assert [row.split()[6] for row in rows[:2]] == ["1.00", "1.00"]
    assert not empty
    assert "microseconds" in unit
    result = json.loads(run(*words, "--kernels", "builtin", "--json"))
    assert [entry["file"] for entry in result["files"]] == [str(word) for word in words[1:3]]
    assert all(entry["peak_memory_bytes"] > 1_000_000 for entry in result["files"])


def test_report(models, folder, run):
    (folder / "copy.tflite").write_bytes((models / "model.tflite").read_bytes())
    files = [models / "model.tflite", folder / "copy.tflite", models / "model.keras"]
    data = ["--data", models / "examples.npy", "--labels", models / "labels.npy"]
    names = ["--class-names", models / "labels.txt", "--teacher", models / "model.keras"]
    out = run("report", *files, *data, *names, "--output", "results")
    assert "100.00" in out
    page = (folder / "results" / "report.html").read_text(encoding="utf-8")
    assert "model.tflite" in page
    assert page.count("<svg") == 6
    assert "accuracy of model.tflite, the best" in page
    written = json.loads((folder / "results" / "results.json").read_text())
    assert [row["name"] for row in written["rows"]] == [
        "model.tflite",
        "copy.tflite",
        "model.keras",
    ]
    assert [row["quality"]["agreement"]["value"] for row in written["rows"]] == [1.0] * 3
    assert (written["baseline"], written["teacher"]) == ("model.tflite", "model.keras")
    assert written["class_names"] == ["one", "two", "three"]


def test_report_as_json_of_one_file(models, folder, run):
    data = ["--data", models / "examples.npz", "--labels", models / "labels.npy"]
    result = json.loads(run("report", models / "model.tflite", *data, "--json"))
    assert result["files"] == ["report/report.html", "report/results.json"]
    assert result["rows"][0]["name"] == "model"
    assert result["class_names"] == ["0", "1", "2"]


def test_report_with_a_baseline_and_a_title(models, folder, run):
    files = [models / "model.tflite", models / "model.keras"]
    data = ["--data", models / "examples.npy", "--labels", models / "labels.npy"]
    out = run("report", *files, *data, "--baseline", files[1], "--title", "For us", "--json")
    result = json.loads(out)
    assert result["baseline"] == "model.keras"
    assert result["rows"][0]["quality"]["accuracy"]["difference"]["value"] == 0.0
    assert "<h1>For us</h1>" in (folder / "report" / "report.html").read_text(encoding="utf-8")


def test_report_on_several_labels_and_on_targets(models, folder, run):
    """Labels and targets in the shape of the outputs, without a word about argmax."""
    outputs = np.load(models / "probabilities.npy")
    np.save(folder / "targets.npy", outputs + 0.5)
    data = ["--data", models / "examples.npy", "--labels"]
    words = ["report", models / "model.tflite", *data]
    result = json.loads(run(*words, "targets.npy", "--json"))
    assert result["tasks"] == {"": "regression"}
    assert result["rows"][0]["quality"]["mae"]["value"] == pytest.approx(0.5, abs=1e-5)
    np.save(folder / "tags.npy", (outputs > 0.5) | (np.arange(3) < 2))
    result = json.loads(run(*words, "tags.npy", "--json"))
    assert result["tasks"] == {"": "multilabel"}
    verified = ["verify", models / "model.tflite", "--against", models / "model.keras", *data]
    assert "MAE: 0.5, the student's 0.5" in run(*verified, "targets.npy")


def test_report_without_labels_on_several_inputs(folder, run):
    first, second = keras.Input((3,), name="acc-x"), keras.Input((3,), name="acc-y")
    model = keras.Model([first, second], keras.layers.Dense(2)(first + second))
    model.save("model.keras")
    tflite.convert(model).save("model.tflite")
    np.savez("x.npz", **{name: np.ones((5, 3), "float32") for name in ("acc-x", "acc-y")})
    words = ["report", "model.tflite", "model.keras", "--data", "x.npz"]
    result = json.loads(run(*words, "--teacher", "model.keras", "--json"))
    assert result["tasks"] == {"": "regression"}
    assert result["rows"][0]["quality"]["distance"]["value"] == pytest.approx(0.0, abs=1e-5)


def test_report_offers_every_task():
    commands = Parser().add_subparsers()
    report.add(commands)
    (task,) = [each for each in commands.choices["report"]._actions if each.dest == "task"]
    assert task.choices == metrics.TASKS
