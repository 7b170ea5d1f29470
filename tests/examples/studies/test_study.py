import dataclasses
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest


@pytest.fixture(scope="module")
def study():
    import _study

    return _study


def doubled(settings, needs, number):
    (settings / f"ran-{number}").touch(exist_ok=False)
    return {"value": 2 * number + sum(need["value"] for need in needs.values())}


def failing(settings, needs):
    raise ValueError("no such thing")


@pytest.fixture(scope="module")
def first_run(study, tmp_path_factory):
    """Three jobs of which one fails, in processes of their own."""
    place = tmp_path_factory.mktemp("jobs")
    jobs = [
        study.Job("second", doubled, ("first",), (2,)),
        study.Job("failing", failing),
        study.Job("first", doubled, (), (1,)),
        study.Job("never", doubled, ("failing",), (3,)),
    ]
    with pytest.raises(RuntimeError, match=r"failing: ValueError\('no such thing'\)") as caught:
        study.run_jobs(jobs, place, {"epochs": 1}, place, 2)
    return place, jobs, caught


@pytest.mark.slow
def test_jobs_run_after_what_they_need_and_failures_cost_only_what_needs_them(study, first_run):
    place, _, caught = first_run
    results = study.read(place)["jobs"]
    assert {name: result["value"] for name, result in results.items()} == {"first": 2, "second": 6}
    # Keras alone takes more than this.
    assert all(result["peak_megabytes"] > 100 for result in results.values())
    assert "never" not in str(caught.value)


@pytest.mark.slow
def test_finished_jobs_do_not_run_again(study, first_run):
    place, jobs, _ = first_run
    # `doubled` raises if it runs a second time.
    results = study.run_jobs([jobs[0], jobs[2]], place, {"epochs": 1}, place, 1)
    assert results["second"]["value"] == 6


def test_results_of_other_settings_are_refused(study, tmp_path):
    study.write_json(tmp_path / "results.json", {"settings": {"epochs": 1}, "jobs": {}})
    message = re.escape("results of other settings: {'epochs': 1}") + ".*another --work-dir"
    with pytest.raises(SystemExit, match=message):
        study.run_jobs([], tmp_path, {"epochs": 2}, tmp_path, 1)


def test_a_second_study_in_a_directory_is_refused(study, tmp_path):
    def jobs(settings):
        arguments = ["--work-dir", str(settings.work_dir)]
        with pytest.raises(BlockingIOError, match="in which a study is running"):
            study.run_study("A study", "study", study.StudySettings, jobs, print, arguments)
        return []

    study.run_study(
        "A study",
        "study",
        study.StudySettings,
        jobs,
        lambda settings, pages: pages,
        ["--work-dir", str(tmp_path)],
    )


def dense(study, epochs=3):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(study.decaying(0.05, epochs, 30, 10), loss, run_eagerly=True)
    return model


def batches(study):
    def make(epoch):
        generator = np.random.default_rng(epoch)
        return generator.normal(size=(30, 4)).astype("float32"), generator.integers(0, 3, 30)

    return study.Epochs(make, 10)


def test_an_interrupted_training_ends_as_one_that_was_not(study, tmp_path):
    whole, resumed = dense(study), dense(study)
    study.fit(whole, batches(study), 3, tmp_path / "whole.keras")

    def stop(epoch):
        if epoch == 2:
            raise ValueError("stopped")
        return made(epoch)

    data = batches(study)
    made, data.make = data.make, stop
    # TensorFlow reads the data, and has an error of its own for that.
    with pytest.raises(Exception, match="stopped"):
        study.fit(dense(study), data, 3, tmp_path / "stopped.keras")
    data, epochs = batches(study), []
    made, data.make = data.make, lambda epoch: epochs.append(epoch) or made(epoch)
    study.fit(resumed, data, 3, tmp_path / "stopped.keras")
    # The arrays of epochs that are done are not made again; data are read ahead of the training.
    assert epochs[0] == 2
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_kept_model_needs_no_checkpoint(study, tmp_path):
    model = dense(study)
    study.fit(model, batches(study), 1, tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.training"]
    study.keep(model, tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_epochs_leave_out_what_fills_no_batch(study):
    data = study.Epochs(lambda epoch: (np.full(25, epoch), np.arange(25)), 10)
    for epoch in range(2):
        assert len(data) == 2
        assert data[1][0][0] == epoch
        np.testing.assert_array_equal(data[1][1], np.arange(10, 20))
        data.on_epoch_end()


def test_the_mean_and_its_standard_error(study):
    mean, error = study.mean_and_error([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    # The sample variance is 7/3, of the mean a third of that.
    assert error == pytest.approx((7 / 9) ** 0.5)
    assert study.mean_and_error([5.0]) == (5.0, None)


def test_a_page_says_where_and_how_its_figures_were_made(study, tmp_path):
    results = {
        "settings": {"epochs": 7},
        "jobs": {
            "one": {"cpu_seconds": 3600.0},
            "two": {"cpu_seconds": 1800.0, "peak_megabytes": 1234},
        },
    }
    page = study.write_page(tmp_path, "some", ["# Some"], results, "python some.py")
    text = page.read_text()
    assert text.startswith("# Some\n")
    assert "python some.py" in text
    assert "1.5 hours of CPU time in 2 jobs" in text
    assert "at most 1,234 MiB of memory" in text
    assert "epochs 7" in text
    kept = json.loads((tmp_path / "some.json").read_text())
    assert kept["jobs"] == results["jobs"]
    assert f"{kept['machine']['cores']} cores" in text


def test_a_table_in_markdown(study):
    assert study.table(["", "errors"], [["alone", 3]]) == (
        "|  | errors |\n| --- | ---: |\n| alone | 3 |"
    )


@pytest.mark.parametrize("channels", [(), (3,)])
def test_images_move_as_wholes_by_up_to_so_many_pixels(study, channels):
    images = np.zeros((200, 28, 20, *channels), "uint8")
    images[:, 10, 15] = (np.arange(200) + 1).reshape(-1, *[1] * len(channels))
    moved = study.moved(images, 2, np.random.default_rng(0), "constant")
    assert moved.shape == images.shape
    one = moved.reshape(200, 28, 20, -1)
    assert np.all(one == one[..., :1])
    places = np.argwhere(one[..., 0])
    np.testing.assert_array_equal(places[:, 0], np.arange(200))
    np.testing.assert_array_equal(one[..., 0][tuple(places.T)], np.arange(200) + 1)
    assert {tuple(place) for place in places[:, 1:] - (10, 15)} == {
        (down, right) for down in range(-2, 3) for right in range(-2, 3)
    }


def test_what_leaves_an_image_does_not_come_back_but_as_a_reflection(study):
    images = np.ones((50, 28, 28), "uint8")
    black = study.moved(images, 2, np.random.default_rng(1), "constant").sum(axis=(1, 2))
    assert (black.min(), black.max()) == (26 * 26, 28 * 28)
    assert study.moved(images, 2, np.random.default_rng(1), "reflect").min() == 1


def test_bytes_become_real_numbers_in_the_batch(study):
    data = study.Epochs(lambda epoch: (np.full((4, 2), 51, "uint8"), np.arange(4)), 2)
    inputs, labels = data[1]
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, 0.2)
    np.testing.assert_array_equal(labels, [2, 3])


@pytest.fixture(scope="module")
def settings(study):
    @dataclasses.dataclass(frozen=True)
    class Settings(study.StudySettings):
        student_epochs: int = 3
        tasks: tuple[str, ...] = ("digits", "clothes")
        temperatures: tuple[float, ...] = (1.0, 4.0)

    return Settings


def test_each_setting_is_an_option(study, settings, tmp_path, capsys):
    made = []
    options = ["--student-epochs", "5", "--tasks", "clothes", "--temperatures", "2", "8.5"]
    where = ["--work-dir", str(tmp_path), "--data-dir", "data"]

    def page(settings, pages):
        made.append(settings)
        return pages / "some.md"

    study.run_study("A study.", "some", settings, None, page, [*where, *options, "--page-only"])
    assert made == [settings(Path("data"), tmp_path, 5, ("clothes",), (2.0, 8.5))]
    assert capsys.readouterr().out.endswith("some.md\n")
    assert made[0].described() == {
        "student_epochs": 5,
        "tasks": ["clothes"],
        "temperatures": [2.0, 8.5],
    }
    line = study.command("some", settings, made[0].described())
    assert line.startswith("python examples/studies/some.py --data-dir ")
    assert line.endswith(" " + " ".join(options).replace("2 8.5", "2.0 8.5"))


def test_a_page_of_the_defaults_needs_no_options(study, settings, tmp_path):
    kept = settings(None, tmp_path).described()
    assert "student" not in study.command("some", settings, kept)


def test_a_study_of_other_data_says_where_they_are(study, tmp_path, capsys):
    class Settings(study.StudySettings):
        DATA = "recordings"
        DATA_HELP = "of WAV files"

    line = study.command("some", Settings, Settings(None, tmp_path).described())
    assert line == "python examples/studies/some.py --data-dir recordings"
    with pytest.raises(SystemExit, match="0"):
        study.run_study("A study", "some", Settings, None, None, ["--help"])
    assert re.search(r"--data-dir DIR +of WAV files\n", capsys.readouterr().out)


def test_an_unknown_task_is_refused(study, settings, capsys):
    with pytest.raises(SystemExit, match="2"):
        study.run_study("A study.", "some", settings, None, None, ["--tasks", "letters"])
    assert "choose from" in capsys.readouterr().err
