import numpy as np
import pytest

pytest.importorskip("keras_tuner")


@pytest.fixture(scope="module")
def study():
    import search

    return search


@pytest.fixture(scope="module")
def settings(study, tmp_path_factory, keep_digits):
    work_dir = tmp_path_factory.mktemp("search")
    keep_digits(work_dir)
    return study.Settings(
        None,
        work_dir,
        tasks=("mnist",),
        images=600,
        test_images=100,
        units=6,
        teacher_epochs=1,
        epochs=1,
        trials=2,
        seeds=2,
    )


@pytest.fixture(scope="module")
def results(study, settings, finished):
    return finished(study.jobs(settings), settings, settings.described())


@pytest.mark.slow
def test_the_best_trial_is_the_one_that_validates_best(study, results):
    found = results["mnist-search"]
    scores = [trial["validation_accuracy"] for trial in found["trials"]]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert found["best"] == {name: found["trials"][0][name] for name in study.SEARCHED}


@pytest.mark.slow
def test_what_was_found_can_be_trained_again(study, settings, results):
    again = study.train(settings, "mnist", results["mnist-search"]["best"], study.FIRST_SEED)
    assert again[1] == pytest.approx(results["mnist-compared"]["searched"][0], abs=0.02)


@pytest.mark.slow
def test_the_page_holds_what_was_measured(study, settings, results, tmp_path):
    study.main(["--page-only", "--work-dir", str(settings.work_dir), "--pages", str(tmp_path)])
    text = (tmp_path / "search.md").read_text()
    compared = results["mnist-compared"]
    gain = 100 * np.mean(np.subtract(compared["searched"], compared["default"]))
    repeated = 100 * results["mnist-repeated"]["accuracy"]
    assert f"| {repeated:.2f} |" in text
    assert f"| {gain:+.2f} ± " in text
    assert f"| mnist | 1 | {results['mnist-search']['best']['distillation_loss']} |" in text
