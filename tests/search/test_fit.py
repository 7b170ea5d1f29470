"""The whole search: one that is killed and resumes, and what it gives."""

import json
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd
from keras_kd import devices, tflite
from keras_kd._state_files import using
from keras_kd.data import load_sample
from keras_kd.search import NothingFits
from keras_kd.search.teaching import Examples

PROGRAM = Path(__file__).with_name("_program.py")
SECONDS = 1500


@pytest.fixture(scope="module")
def data():
    """Digits of 14x14 pixels."""
    sample = load_sample()
    small = sample.x_train.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4))
    return {
        "x": small[:1000],
        "y": sample.y_train[:1000],
        "x_val": small[1000:1400],
        "y_val": sample.y_train[1000:1400],
    }


@pytest.fixture(scope="module")
def teacher(data):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((14, 14, 1), name="image"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ],
        name="teacher",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data["x"], data["y"], epochs=6, verbose=0)
    return model


def fit(teacher, data, **options):
    defaults = {"validation_data": (data["x_val"], data["y_val"]), "verbose": 0}
    return keras_kd.fit_to_device(teacher, (data["x"], data["y"]), **{**defaults, **options})


@pytest.fixture(scope="module")
def killed(teacher, data, tmp_path_factory):
    """The directory of a search that was killed after its first training, and its manifest."""
    pytest.importorskip("tflite_micro")
    folder = tmp_path_factory.mktemp("search")
    teacher.save(folder / "teacher.keras")
    np.savez(folder / "data.npz", **data)
    directory = folder / "run"
    command = [sys.executable, str(PROGRAM), folder / "teacher.keras", folder / "data.npz"]
    process = subprocess.Popen(
        [*map(str, command), str(directory)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        manifest = read(directory)
        if any(each["rungs"] for each in manifest.get("candidates", {}).values()):
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    return directory, read(directory)


def read(directory):
    path = directory / "search.json"
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.fixture(scope="module")
def run(killed, teacher, data):
    """The result of the search that goes on, and what it printed."""
    arguments = runpy.run_path(str(PROGRAM))["arguments"](data)
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda text="", **_: lines.append(str(text)))
        result = fit(teacher, data, directory=killed[0], **{"verbose": 1, **arguments})
    return result, lines


@pytest.mark.slow
def test_a_killed_search_resumes(killed, run):
    directory, before = killed
    after = read(directory)
    assert any(each["rungs"] for each in before["candidates"].values())
    for name, entry in before["candidates"].items():
        assert after["candidates"][name]["cost"] == entry["cost"]
        finished = after["candidates"][name]["rungs"][: len(entry["rungs"])]
        # The times, too: it was not trained again.
        assert finished == entry["rungs"]
    assert after["seconds"] > before["seconds"]


@pytest.mark.slow
def test_a_finished_search_trains_nothing(killed, run, teacher, data, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr("keras_kd.search.teaching.School.teach", refuse)
    arguments = runpy.run_path(str(PROGRAM))["arguments"](data)
    again = fit(teacher, data, directory=killed[0], **arguments)
    assert again.winner == run[0].winner
    assert again.model.content == run[0].model.content


@pytest.mark.slow
def test_a_search_whose_time_is_over_resumes_with_what_it_has(killed, run, teacher, data):
    arguments = runpy.run_path(str(PROGRAM))["arguments"](data)
    again = fit(teacher, data, directory=killed[0], max_minutes=1e-4, **arguments)
    assert again.winner == run[0].winner
    assert {each.name for each in again.candidates} == {each.name for each in run[0].candidates}


@pytest.mark.slow
def test_the_fit_before_training_is_the_fit_after_it(run):
    finished = [each for each in run[0].candidates if each.file_cost is not None]
    assert finished
    for each in finished:
        assert each.cost == each.file_cost


@pytest.mark.slow
def test_the_winner_fits_and_is_good(run, teacher, data):
    result, _ = run
    device = result.device
    assert result.winner.fits
    assert result.winner.file_cost.flash_bytes <= device.flash_bytes
    measured = tflite.microcontroller.run(result.model, data["x_val"][:1])
    assert measured.arena_bytes == result.winner.file_cost.arena_bytes <= device.ram_bytes
    assert result.model.size == result.winner.file_cost.bytes
    chosen = result.model.predict(data["x_val"]).argmax(-1)
    assert (chosen == data["y_val"]).mean() == pytest.approx(result.winner.file_value)
    assert result.model.verification.examples == 100
    assert result.model.verification.agreement > 0.9
    assert result.winner.file_value > 0.75
    float_ = result.student.predict(data["x_val"], verbose=0).argmax(-1)
    assert (float_ == chosen).mean() > 0.95
    assert result.reached == (result.winner.file_value >= 0.99 * result.teacher_value)


@pytest.mark.slow
def test_what_does_not_fit_is_never_trained(run):
    result, _ = run
    whole = result["width 1.00"]
    assert not whole.fits
    assert whole.misses["flash"] > 1
    for each in result.candidates:
        assert each.fits or (each.epochs == 0 and each.value is None)
    # The finalist once more, with new weights.
    assert sum(each.epochs > 0 for each in result.candidates) == 3 + 1


@pytest.mark.slow
def test_progress_says_what_is_done_and_the_best_so_far(run):
    _, lines = run
    text = "\n".join(lines)
    assert "Fit to device (microcontroller): 58.6 KB flash, 8.0 KB RAM" in text
    assert "trained 3 of 3 for" in text
    assert "; best " in text
    assert " in int8, fits; " in text


@pytest.mark.slow
def test_the_result_is_printed_on_a_page(run):
    result, _ = run
    text = str(result)
    for each in result.candidates:
        assert each.name in text
    assert "flash x1." in text
    assert result.code in text
    assert "One step larger: " in text
    assert "Front of accuracy over flash: " in text
    data = json.loads(json.dumps(result.to_dict()))
    assert data["winner"] == result.winner.name
    assert len(data["candidates"]) == len(result.candidates)
    assert "<table>" in result._repr_html_()
    rows = result.to_dataframe().set_index("name")
    assert list(rows.index) == [each.name for each in result.candidates]
    assert rows.loc[result.winner.name, "bytes"] == result.model.size
    assert rows["flash_exceeded"].max() > 1


@pytest.mark.slow
def test_the_code_makes_the_winner_again(run, teacher, data, tmp_path, monkeypatch):
    result, _ = run
    monkeypatch.chdir(tmp_path)
    names = {"teacher": teacher, "x_train": data["x"], "y_train": data["y"]}
    exec(result.code, names)
    assert names["model"].size == result.model.size
    accuracy = (names["model"].predict(data["x_val"]).argmax(-1) == data["y_val"]).mean()
    # Sums over several threads round differently from run to run.
    assert accuracy == pytest.approx(result.winner.file_value, abs=0.03)


@pytest.mark.slow
def test_the_firmware_has_an_arena_that_fits(run, tmp_path):
    result, _ = run
    files = {path.name for path in result.save(tmp_path / "firmware", "digits")}
    assert {"digits.tflite", "digits.keras", "digits.py", "digits.cc", "search.json"} <= files
    source = (tmp_path / "firmware" / "digits_data.h").read_text()
    assert "#" in source
    written = keras.models.load_model(tmp_path / "firmware" / "digits.keras")
    assert written.count_params() == result.winner.cost.parameters


@pytest.mark.slow
def test_the_report_holds_every_candidate(run, tmp_path):
    pytest.importorskip("matplotlib")
    result, _ = run
    page = result.report(tmp_path / "report.html").read_text()
    for each in result.candidates:
        assert each.name in page
    assert "fewer_blocks" in page
    assert page.count("<svg") >= 2


@pytest.mark.slow
def test_where_nothing_fits_the_nearest_is_named(teacher, data):
    pytest.importorskip("tflite_micro")
    device = devices.Device(flash="50 KB", ram="32 KB")
    with pytest.raises(NothingFits, match=r"the nearest, width 0\.04 shrunk, takes") as caught:
        fit(teacher, data, device=device, trials=1)
    message = str(caught.value)
    assert "bytes more flash (TFLM and the kernels of its operators alone take 52.9 KB)" in message
    [more] = re.findall(r"choose ([\d,]+) bytes more", message)
    enough = 50 * 1024 + int(more.replace(",", ""))
    assert not caught.value.nearest.cost.misses(devices.Device(flash=enough, ram="32 KB"))
    assert caught.value.nearest.cost.misses(devices.Device(flash=enough - 1, ram="32 KB"))
    assert caught.value.nearest.misses["flash"] < caught.value.candidates[0].misses["flash"] + 1
    assert all(each.epochs == 0 for each in caught.value.candidates)


@pytest.mark.slow
def test_a_family_for_a_phone_is_pruned_for_its_download(teacher, data, tmp_path):
    pytest.importorskip("keras_tuner")

    def build(hp):
        return keras.Sequential(
            [
                keras.Input((14, 14, 1), name="image"),
                layers.Flatten(),
                layers.Dense(hp.Choice("units", [12, 2000]), activation="relu"),
                layers.Dense(10, activation="softmax"),
            ]
        )

    device = devices.Device(
        flash="8 KB", latency=1000.0, target="android", compressed=True, name="phone"
    )
    result = fit(
        teacher,
        data,
        device=device,
        student=build,
        trials=1,
        epochs=4,
        batch_size=32,
        learning_rate=1e-2,
        goal=0.5,
    )
    assert result.winner.settings == {"units": 12}
    assert result.reached
    assert result.winner.file_cost.latency > 0
    assert result.winner.file_cost.flash_bytes == result.model.compressed_size <= 8192
    kernel = result.student.layers[2].get_weights()[0]
    assert (kernel == 0).mean() == pytest.approx(0.7, abs=0.02)
    files = {path.name for path in result.save(tmp_path / "phone")}
    assert files == {"model.keras", "model.py", "model.tflite", "search.json"}


def refused(teacher, data, kind, message, **options):
    defaults = {"device": devices.Device(flash="64 KB")}
    with pytest.raises(kind, match=message):
        fit(teacher, data, **{**defaults, **options})


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"device": "toaster"}, ValueError, "device='toaster'.*cortex-m4-256k"),
        ({"device": 64}, TypeError, "Device"),
        ({"trials": 0}, ValueError, "trials=0"),
        ({"finalists": 0}, ValueError, "finalists=0"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"keep": 1.5}, ValueError, "keep=1.5"),
        ({"keep": 0.9, "goal": 0.9}, ValueError, "one of them"),
        ({"goal": float("nan")}, ValueError, "goal=nan"),
        ({"goal": 97}, ValueError, "goal=97.*0.97 means 97 %"),
        ({"max_minutes": 0}, ValueError, "max_minutes=0"),
        ({"metric": "speed"}, ValueError, "metric='speed'.*'accuracy'"),
        ({"student": 3}, TypeError, "keras_tuner.HyperParameters"),
        ({"validation_data": None}, TypeError, "validation_data of type NoneType"),
        ({"sparsity": 2}, ValueError, "sparsity=2"),
    ],
)
def test_arguments_out_of_range_are_refused(teacher, data, options, kind, message):
    refused(teacher, data, kind, rf"Received .*{message}", **options)


def test_data_that_do_not_fit_are_refused(teacher, data):
    x, y = data["x_val"], data["y_val"]
    cases = [
        ((x, y[:-1]), ValueError, "arrays of .* examples"),
        ((x[:0], y[:0]), ValueError, "arrays of .* examples"),
        ((x[:, :5], y), ValueError, r"validation_data with an array of shape \(400, 5, 14, 1\)"),
        ((x[..., 0], y), ValueError, r"examples of shape \(14, 14, 1\)"),
        ((np.full_like(x, np.nan), y), ValueError, "NaN or infinity"),
        ((x, y.astype(str)), TypeError, "other values than numbers"),
        (x, TypeError, "a pair"),
    ]
    for validation, kind, message in cases:
        refused(teacher, data, kind, message, validation_data=validation)
    smaller = {**data, "x": data["x"][:, :5]}
    refused(teacher, smaller, ValueError, "data with an array of shape")
    one_hot = {**data, "y": np.eye(10)[data["y"]]}
    refused(teacher, one_hot, ValueError, "labels of one form in both")


def test_a_teacher_with_weights_of_nan_is_refused(teacher, data):
    # A ReLU behind them makes zeros of them.
    broken = keras.models.clone_model(teacher)
    broken.set_weights([np.full_like(each, np.nan) for each in teacher.get_weights()])
    refused(broken, data, ValueError, "the teacher 'teacher' with .* NaN or infinite")


def test_a_model_is_no_family(teacher, data):
    refused(teacher, data, TypeError, "a function of keras_tuner", student=teacher)


def test_a_teacher_with_several_outputs_is_refused(teacher, data):
    both = keras.Model(teacher.inputs, [teacher.outputs[0], teacher.layers[-2].output])
    refused(both, data, ValueError, "with several outputs.*one output")


@pytest.mark.slow
def test_no_time_is_no_student(teacher, data):
    refused(
        teacher,
        data,
        ValueError,
        "max_minutes=.*over before a student that fits was found",
        max_minutes=1e-4,
        device=devices.Device(flash=60_000),
    )


def test_bytes_of_pixels_become_real_numbers(teacher, data):
    pixels = (255 * data["x_val"]).astype("uint8")
    examples = Examples.of("data", (pixels, data["y_val"])).for_inputs_of(teacher)
    assert examples.x.dtype == np.float32
    words = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(9, 2)])
    numbers = Examples.of("data", (np.ones((3, 4), int), np.zeros(3))).for_inputs_of(words)
    assert numbers.x.dtype == int


def test_a_second_search_in_a_directory_is_refused(teacher, data, tmp_path):
    with (
        using(tmp_path, "a search"),
        pytest.raises(BlockingIOError, match="in which a search is running"),
    ):
        fit(teacher, data, device=devices.Device(flash=60_000), directory=tmp_path)
