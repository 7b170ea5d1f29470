import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_kd import metrics, tflite
from keras_kd._model_files import load_model
from keras_kd.data import load_sample
from keras_kd.quickstart import variants
from keras_kd.quickstart.training import FINAL_SPARSITY

# A whole run is a tenth of the fast suite's time; test_training.py has its trainings there.
pytestmark = pytest.mark.slow

# A process of its own, since a run makes TensorFlow deterministic for the rest of its process.
PROGRAM = """
import sys
from pathlib import Path
from keras_kd.quickstart import Settings, run
run(Settings(output=Path(sys.argv[1]), seed=int(sys.argv[2]), epochs=1,
             training_images=256, test_images=100))
"""


def run(output, seed=1):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(output), str(seed)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of the results and what was printed."""
    output = tmp_path_factory.mktemp("quickstart") / "results"
    return output, run(output)


@pytest.fixture(scope="module")
def results(finished):
    return json.loads((finished[0] / "results.json").read_text(encoding="utf-8"))


def test_there_is_everything_and_nothing_half_done(finished):
    output, _ = finished
    models = {f"{variant.file_name}.tflite" for variant in variants.ALL}
    models |= {f"{variant.file_name}.keras" for variant in variants.ALL if not variant.calibrated}
    assert {path.name for path in (output / "models").iterdir()} == models
    assert {"report.html", "results.json", "models"} <= {path.name for path in output.iterdir()}
    assert [path.name for path in output.parent.iterdir()] == ["results"]


def test_says_what_it_does_and_where_the_results_are(finished):
    output, printed = finished
    for stage in ("train the teacher", "distill and prune", "convert to .tflite"):
        assert f"{stage}: " in printed
    assert str(output / "report.html") in printed
    assert all(variant.name in printed for variant in variants.ALL)


def test_each_row_has_all_that_was_promised(results):
    assert [row["name"] for row in results["rows"]] == [variant.name for variant in variants.ALL]
    for row in results["rows"]:
        for measure in ("accuracy", "f1", "ece", "agreement"):
            assert row["quality"][measure]["value"] is not None, (row["name"], measure)
        for field in ("parameters", "sparsity", "bytes"):
            assert row[field] is not None, (row["name"], field)
        assert row["compressed_bytes"] < row["bytes"]
        assert row["latency_microseconds"] > 0
        assert (row["arena_bytes"] is not None) == tflite.microcontroller.is_installed()
    assert results["settings"]["seed"] == 1
    assert set(results["machine"]["packages"]) >= {"tensorflow", "keras"}


def test_compression_did_what_its_name_says(results):
    rows = {row["name"]: row for row in results["rows"]}
    for name in (variants.PRUNED, variants.SMALLEST):
        assert rows[name]["sparsity"] == pytest.approx(FINAL_SPARSITY, abs=0.01)
    assert rows[variants.DISTILLED_INT8]["bytes"] < 0.6 * rows[variants.DISTILLED]["bytes"]
    sizes = {name: row["compressed_bytes"] for name, row in rows.items()}
    assert min(sizes, key=sizes.get) == variants.SMALLEST


@pytest.mark.parametrize("variant", variants.ALL, ids=lambda variant: variant.file_name)
def test_the_files_reproduce_the_table(finished, results, variant):
    dataset = load_sample().first(test=100)
    row = next(row for row in results["rows"] if row["name"] == variant.name)
    model = tflite.TFLiteModel.load(finished[0] / "models" / f"{variant.file_name}.tflite")
    found = metrics.accuracy(model.predict(dataset.x_test), dataset.y_test)
    assert found == row["quality"]["accuracy"]["value"]
    assert model.size == row["bytes"]


def test_the_keras_files_match_their_tflite(finished):
    models = finished[0] / "models"
    images = load_sample().x_test[:20]
    keras_model = load_model(models / "distilled_pruned.keras")
    file = tflite.TFLiteModel.load(models / "distilled_pruned.tflite")
    expected = keras_model.predict(images, verbose=0)
    np.testing.assert_allclose(file.predict(images), expected, atol=1e-5)


@pytest.mark.skipif(not tflite.microcontroller.is_installed(), reason="needs tflite-micro")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_c_source_compiles(finished, tmp_path):
    (source,) = (finished[0] / "c").glob("*.cc")
    command = ["gcc", "-std=c++11", "-Wall", "-Werror", "-c", str(source), "-o", "student.o"]
    subprocess.run(command, check=True, cwd=tmp_path)


def test_the_report_shows_the_plots(finished):
    html = (finished[0] / "report.html").read_text(encoding="utf-8")
    for title in (
        "Accuracy over size",
        "Accuracy over latency",
        "Distilled against alone",
        "Teacher against student",
        "Accuracy against “distilled”",
        "What is taken for what",
        "Confidence and accuracy",
        "Where they disagree",
    ):
        assert f"<h2>{title}</h2>" in html
    assert html.count("<svg") == 8
    assert all(variant.name in html for variant in variants.ALL)


def without_times(results):
    return [{**row, "latency_microseconds": None} for row in results["rows"]]


def test_the_same_seed_gives_the_same_table_and_another_one_does_not(results, tmp_path):
    run(tmp_path / "again", seed=1)
    run(tmp_path / "other", seed=2)
    again, other = (
        json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8"))
        for name in ("again", "other")
    )
    assert without_times(again) == without_times(results)
    assert without_times(other) != without_times(results)


# The command itself, on few images. With a limit for the size of files while it writes the page.
COMMAND = """
import functools, resource, sys
sys.argv[0] = "keras-kd"
from keras_kd import quickstart
from keras_kd.cli import main
if len(sys.argv) > 2:
    page = quickstart.run.__globals__["page"]
    def limited(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
        return page(*arguments)
    quickstart.run.__globals__["page"] = limited
quickstart.Settings = functools.partial(
    quickstart.Settings, training_images=256, test_images=100
)
sys.exit(main(["quickstart", "--epochs", "1", "--seed", "1", "--output", sys.argv[1]]))
"""
STAGES = [
    "train the teacher",
    "train the student alone",
    "distill",
    "distill and prune",
    "distill, quantization-aware",
    "distill the pruned one, quantization-aware",
    "convert to .tflite",
    "run on the test images",
]


def start(output, *limit):
    return subprocess.Popen(
        [sys.executable, "-u", "-c", COMMAND, str(output), *limit],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def wait_for(process, stage):
    """Wait until a stage is done: how long it took is said then, and nothing else of it."""
    for line in process.stdout:
        if re.fullmatch(rf"{re.escape(stage)}: \d+ s\n", line):
            return
    raise AssertionError(process.stderr.read())


# Of a training of one epoch with 256 images in batches of 64.
FINISHED = "training-0000000004.npz"


def wait_until(process, is_so):
    while process.poll() is None:
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError(process.stderr.read())


def test_ctrl_c_in_each_stage_and_a_full_disk_keep_what_is_finished(finished, results, tmp_path):
    output = tmp_path / "results"
    kept = {}
    for number, stage in enumerate([None, *STAGES]):
        process = start(output)
        # What follows this stage is interrupted: the next one, or writing the results.
        if stage is None:
            wait_until(process, lambda: any(output.rglob("training-*.npz")))
        else:
            wait_for(process, stage)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=900)
        assert process.returncode == 130
        assert said.splitlines()[-1:] == ["keras-kd: interrupted"], said
        assert "Traceback" not in said
        assert [path.name for path in output.iterdir()] == ["unfinished"]
        found = {path: path.stat().st_mtime_ns for path in output.rglob(FINISHED)}
        assert len(found) == min(number, 6)
        # Nothing is trained twice.
        assert kept.items() <= found.items()
        kept = found
    process = start(output, "5000")
    _, said = process.communicate(timeout=900)
    assert process.returncode == 2
    assert f"'File too large' while writing '{output}'. Expected a disk" in said.splitlines()[-1]
    assert [path.name for path in output.iterdir()] == ["unfinished"]
    process = start(output)
    printed, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert "Report:" in printed
    again = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert without_times(again) == without_times(results)
    for path in (finished[0] / "models").glob("*.tflite"):
        assert (output / "models" / path.name).read_bytes() == path.read_bytes()
    names = {path.name for path in finished[0].iterdir()}
    assert {path.name for path in output.iterdir()} == names


def test_a_second_run_with_the_same_output_is_refused(tmp_path):
    first = start(tmp_path / "results")
    wait_for(first, STAGES[0])
    first.send_signal(signal.SIGSTOP)
    second = start(tmp_path / "results")
    _, said = second.communicate(timeout=900)
    assert second.returncode == 2
    # TensorFlow may have said something when it was imported.
    *before, line = said.splitlines()
    assert line.startswith("keras-kd: error: Received the directory ")
    assert "in which a quickstart is running" in line
    assert not any("keras-kd" in each or "Traceback" in each for each in before), said
    first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=900)
    assert first.returncode == 130
