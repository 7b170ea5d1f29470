import json
import re

import keras
import numpy as np
import pytest


@pytest.fixture(scope="module")
def study():
    import hinton_mnist

    return hinton_mnist


@pytest.fixture(scope="module")
def settings(study, tmp_path_factory, keep_digits):
    work_dir = tmp_path_factory.mktemp("hinton")
    keep_digits(work_dir)
    return study.Settings(
        None,
        work_dir,
        images=600,
        teacher_units=24,
        student_units=16,
        teachers=2,
        teacher_epochs=1,
        student_epochs=1,
        trial_epochs=1,
        sweep_epochs=1,
        temperatures=(2.0, 6.0),
        sweep_temperatures=(4.0,),
        sweep_widths=(8,),
        seeds=1,
    )


@pytest.fixture(scope="module")
def results(study, settings, finished):
    return finished(study.jobs(settings), settings, settings.described())


def test_students_of_a_seed_begin_with_the_same_weights(study):
    first, second, other = (study.network(8, seed, is_regularized=False) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.get_weights()[0], second.get_weights()[0])
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])


def test_the_teacher_is_regularized_and_the_student_is_not(study):
    def parts(is_regularized):
        layers = study.network(8, 0, is_regularized=is_regularized).layers
        return (
            sum(isinstance(layer, keras.layers.Dropout) for layer in layers),
            sum(getattr(layer, "kernel_constraint", None) is not None for layer in layers),
        )

    assert parts(True) == (2, 2)
    assert parts(False) == (0, 0)


def test_the_paper_s_networks_have_the_paper_s_sizes(study):
    assert study.network(1200, 0, is_regularized=True).count_params() == 2_395_210
    assert study.network(800, 0, is_regularized=False).count_params() == 1_276_810


def test_validation_images_are_the_last_ones(study):
    x, y, x_validation, y_validation = study.split(np.arange(60), np.arange(60) % 10)
    np.testing.assert_array_equal(x, np.arange(50))
    np.testing.assert_array_equal(x_validation, np.arange(50, 60))
    assert (len(y), len(y_validation)) == (50, 10)


def test_the_temperature_is_the_one_with_the_fewest_validation_errors(study):
    trials = {
        "trial-T2": {"errors": 5, "temperature": 2.0},
        "trial-T9": {"errors": 4, "temperature": 9.0},
        "trial-T4": {"errors": 4, "temperature": 4.0},
        "alone-0": {"errors": 1},
    }
    assert study.chosen_temperature(trials) == 4.0


@pytest.mark.slow
def test_the_recorded_errors_are_those_of_the_kept_models(study, settings, results):
    *_, x_test, y_test = settings.load()
    for name in ("alone-0", "distilled-0", "teacher-1", "sweep-8-T4"):
        model = keras.models.load_model(settings.work_dir / f"{name}.keras")
        chosen = np.argmax(model.predict(x_test.reshape(-1, 784) / 255, verbose=0), axis=-1)
        assert results[name]["errors"] == np.sum(chosen != y_test)


@pytest.mark.slow
def test_classes_that_are_missing_in_the_transfer_set(study, settings, results):
    _, y, _, y_test = settings.load()
    without = results["without-threes"]
    assert without["images"] == np.sum(y != 3)
    assert without["of_class_3"] == np.sum(y_test == 3)
    assert results["sevens-and-eights"]["images"] == np.sum((y == 7) | (y == 8))


@pytest.mark.slow
def test_the_page_holds_what_was_measured(study, settings, results, tmp_path):
    study.main(["--page-only", "--work-dir", str(settings.work_dir), "--pages", str(tmp_path)])
    text = (tmp_path / "hinton_mnist.md").read_text()
    for title, name in (("student alone, 784-16-16-10", "alone-0"), ("distilled", "distilled-0")):
        assert re.search(rf"{title} \| 1 \| {results[name]['errors']} \|", text)
    assert f"| 8 | {results['sweep-8-alone']['errors']} |" in text
    assert "goal of this study is at most 74 errors and at most 0.56: not reached" in text
    assert (tmp_path / "hinton_mnist_sweep.svg").read_text().lstrip().startswith("<?xml")
    kept = json.loads((tmp_path / "hinton_mnist.json").read_text())
    assert kept["jobs"]["alone-0"]["errors"] == results["alone-0"]["errors"]


@pytest.mark.slow
def test_a_page_of_half_the_jobs_leaves_the_rest_out(study, settings, results, tmp_path):
    import dataclasses

    import _study

    half = dataclasses.replace(settings, work_dir=tmp_path / "half")
    some = {name: results[name] for name in ("teacher-0", "alone-0")}
    half.work_dir.mkdir()
    content = {"settings": settings.described(), "jobs": some}
    _study.write_json(half.work_dir / "results.json", content)
    text = study.page(half, tmp_path).read_text()
    assert "the same student, distilled |" not in text
    assert "## " in text
    assert "No threes" not in text
