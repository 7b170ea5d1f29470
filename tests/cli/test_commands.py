import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from _disk import files_of_at_most

from keras_kd import cli, metrics, tflite
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


def other_model(folder, models):
    """A model of the same form that has learnt something else."""
    model = keras.saving.load_model(models / "model.keras")
    model.set_weights([np.roll(weight, 1, axis=-1) for weight in model.get_weights()])
    model.save(folder / "other.keras")
    return folder / "other.keras"


def test_verify_ends_with_1_against_another_model(models, folder, capsys):
    words = ["verify", models / "model.tflite", "--against", other_model(folder, models)]
    words = [str(word) for word in (*words, "--data", models / "examples.npy")]
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert "of the choices are the student's" in out
    lines = err.splitlines()
    assert len(lines) == 2
    assert "outputs of this file are not those of the student" in lines[0]
    assert re.search(r"of the clear choices .* at least 99.5 %.*--min-agreement", lines[1])
    assert cli.main([*words, "--min-agreement", "0", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["passed"], result["form"], len(result["failures"])) == (False, "float32", 1)


def test_verify_knows_files_of_other_converters(models, folder, run, capsys):
    model = keras.saving.load_model(models / "model.keras")
    (folder / "other.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    words = ["verify", folder / "other.tflite", "--against", models / "model.keras", "--data"]
    assert "100.00 % of the choices" in run(*words, models / "examples.npy")
    pairs = ["--map", "output_0=output", "--map", "image=image", "--min-agreement", "100"]
    assert "100.00 % of the choices" in run(*words, models / "examples.npz", *pairs)


def test_verify_knows_what_convert_has_added(folder, run):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3, name="scores")]
    ).save(folder / "logits.keras")
    np.save(folder / "x.npy", np.random.default_rng(0).random((40, 4, 4, 1), np.float32))
    run("convert", "logits.keras", "--softmax", "--color-input", "--output", "phone.tflite")
    out = run("verify", "phone.tflite", "--against", "logits.keras", "--data", "x.npy")
    assert "ends in a softmax that the student lacks" in out
    assert "takes color images" in out


def test_inspect_a_model_of_keras(models, run):
    assert "parameters: 235" in run("inspect", models / "model.h5")
    result = json.loads(run("inspect", models / "model.keras", "--json"))
    assert result["parameters"] == 4 * 9 + 4 + 64 * 3 + 3
    assert result["inputs"] == [{"name": "image", "shape": [None, 6, 6, 1], "dtype": "float32"}]


def test_an_input_whose_name_is_no_identifier(folder, run):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    a, b = keras.Input((4,), name="acc-x"), keras.Input((4,), name="acc-y")
    scores = layers.Dense(3, name="scores")(layers.Concatenate()([a, b]))
    keras.Model({"acc-x": a, "acc-y": b}, scores).save(folder / "sensors.keras")
    random = np.random.default_rng(0)
    data = {name: random.random((60, 4), np.float32) for name in ("acc-x", "acc-y")}
    np.savez(folder / "data.npz", **data)
    words = ["--quantization", "int8", "--representative-data", "data.npz"]
    out = run("convert", "sensors.keras", *words, "--verification-data", "data.npz")
    assert "acc_x float32[1, 4]" in out
    words = ["--against", "sensors.keras", "--data", "data.npz", "--min-agreement", "90"]
    assert "60 given examples" in run("verify", "sensors.tflite", *words)
    out = run("store", "sensors.keras", "--data", "data.npz", "--output", "sensors.store")
    assert "60" in out


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


def test_report_on_a_full_disk_leaves_what_was_there(models, folder, capsys):
    """There is room for the numbers, not for the page with its plots."""
    words = ["report", models / "model.tflite", "--data", models / "examples.npy"]
    words = [str(word) for word in [*words, "--labels", models / "labels.npy"]]
    assert cli.main(words) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    with files_of_at_most(len(before[folder / "report" / "results.json"]) + 2_000):
        assert cli.main([*words, "--title", "Another one"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'File too large' while writing 'report'. Expected a disk with room" in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


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
