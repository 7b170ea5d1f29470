import json

import pytest

from keras_kd.cli import report


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
    assert page.count("<svg") == 3
    assert "right, by model.tflite" in page
    written = json.loads((folder / "results" / "results.json").read_text())
    assert [row["name"] for row in written["rows"]] == [
        "model.tflite",
        "copy.tflite",
        "model.keras",
    ]
    assert [row["agreement"] for row in written["rows"]] == [1.0] * 3
    assert written["class_names"] == ["one", "two", "three"]


def test_report_as_json_of_one_file(models, folder, run):
    data = ["--data", models / "examples.npz", "--labels", models / "labels.npy"]
    result = json.loads(run("report", models / "model.tflite", *data, "--json"))
    assert result["files"] == ["report/report.html", "report/results.json"]
    assert result["rows"][0]["name"] == "model"
    assert result["class_names"] == ["0", "1", "2"]


def test_a_report_needs_a_number_of_classes_that_a_page_can_show():
    assert report._numbers(3) == ("0", "1", "2")
    with pytest.raises(ValueError, match=r"2147483647 scores .*at most 100000 classes"):
        report._numbers(2**31 - 1)
