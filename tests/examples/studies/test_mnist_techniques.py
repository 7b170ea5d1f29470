import json
import re

import keras
import numpy as np
import pytest


@pytest.fixture(scope="module")
def study():
    import mnist_techniques

    return mnist_techniques


@pytest.fixture(scope="module")
def settings(study, tmp_path_factory, keep_digits):
    work_dir = tmp_path_factory.mktemp("techniques")
    keep_digits(work_dir)
    return study.Settings(
        None,
        work_dir,
        images=600,
        test_images=100,
        families=("mlp",),
        sizes=("simple", "medium"),
        epochs=1,
        fine_tuning_epochs=1,
        seeds=1,
    )


@pytest.fixture(scope="module")
def results(study, settings, finished):
    """All techniques of the smaller model; the larger one teaches, and is measured as it is."""
    jobs = [
        job
        for job in study.jobs(settings)
        if not job.name.startswith("mlp-medium-0:") or job.name.endswith(":baseline")
    ]
    return finished(jobs, settings, settings.described())


def test_each_family_has_three_sizes_of_more_and_more_weights(study):
    for family in study.FAMILIES:
        counts = [study.build(family, size, 0).count_params() for size in study.SIZES]
        assert counts == sorted(set(counts))
        assert counts[-1] > 4 * counts[0]


def test_models_of_a_seed_begin_with_the_same_weights(study):
    first, second = (study.build("resnet", "simple", 5).get_weights() for _ in range(2))
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_pruning_in_one_step_takes_the_smallest_weights_of_each_kernel(study):
    model = study.build("cnn", "simple", 0)
    before = [np.abs(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    copy = study.zeroed(model, 0.8)
    after = [np.abs(layer.kernel) for layer in copy.layers if hasattr(layer, "kernel")]
    assert len(after) == 3
    for kernel, pruned in zip(before, after, strict=True):
        assert np.mean(pruned == 0) == pytest.approx(0.8, abs=1 / kernel.size)
        assert kernel[pruned == 0].max() <= pruned[pruned > 0].min()
        np.testing.assert_array_equal(pruned[pruned > 0], kernel[pruned > 0])
        assert np.all(kernel > 0)


def test_every_job_needs_jobs_that_come_before_it(study, settings):
    import dataclasses

    whole = dataclasses.replace(settings, families=study.FAMILIES, sizes=study.SIZES, seeds=2)
    listed = study.jobs(whole)
    known = set()
    for job in listed:
        assert job.name not in known
        assert known.issuperset(job.needs)
        known.add(job.name)
    files = [job for job in listed if ":" in job.name]
    # The largest model of a family has no larger one to learn from.
    assert len(files) == 2 * (9 * len(study.TECHNIQUES) - 3)


def test_the_teacher_is_the_best_on_validation_images(study):
    results = {
        "mlp-simple-0": {"validation_accuracy": 0.90},
        "cnn-deep-0": {"validation_accuracy": 0.99},
        "cnn-medium-0": {"validation_accuracy": 0.99},
    }
    assert study.best(results) == "cnn-deep-0"


def test_differences_are_between_the_same_model_and_seed(study):
    def row(accuracy):
        return {"accuracy": accuracy}

    results = {
        "mlp-simple-0:baseline": row(0.5),
        "mlp-simple-1:baseline": row(0.6),
        "mlp-simple-1:pruned": row(0.1),
        "mlp-simple-0:pruned": row(0.4),
        "mlp-deep-0:baseline": row(0.9),
    }
    found = study.differences(results, ["mlp-simple", "mlp-deep"], "pruned", "baseline")
    assert found == pytest.approx([-0.1, -0.5])


def test_training_validation_and_test_images_are_apart(study, settings):
    data = settings.load()
    sizes = {purpose: len(x) for purpose, (x, _) in data.items()}
    assert sizes == {"training": 500, "validation": 100, "test": 100}
    images = np.concatenate([x.reshape(len(x), -1) for x, _ in data.values()])
    assert len(np.unique(images, axis=0)) == 700
    assert images.max() == 1.0


@pytest.mark.slow
def test_all_techniques_are_measured_on_files(study, settings, results):
    measured = {name: result for name, result in results.items() if ":" in name}
    assert len(measured) == len(study.TECHNIQUES) + 1
    for result in measured.values():
        assert 0 <= result["accuracy"] <= 1
        assert result["latency_microseconds"] > 0
        assert result["divergence"] >= 0
    baseline, dynamic, int8, pruned, both = (
        results[f"mlp-simple-0:{technique}"]
        for technique in ("baseline", "dynamic", "int8", "pruned", "distilled-int8")
    )
    assert dynamic["bytes"] < 0.3 * baseline["bytes"]
    assert int8["bytes"] < 0.35 * baseline["bytes"]
    assert both["bytes"] < 0.35 * baseline["bytes"]
    assert pruned["compressed_bytes"] < 0.5 * baseline["compressed_bytes"]


@pytest.mark.slow
def test_the_teacher_s_own_file_agrees_with_the_teacher(results):
    teacher = results["teacher"]["teacher"]
    assert teacher in ("mlp-simple-0", "mlp-medium-0")
    assert results[f"{teacher}:baseline"]["agreement"] == 1.0
    assert results[f"{teacher}:baseline"]["divergence"] == pytest.approx(0, abs=1e-4)


@pytest.mark.slow
def test_accuracy_is_that_of_the_kept_model(settings, results):
    model = keras.models.load_model(settings.path("mlp-simple-0-distilled"))
    x, y = settings.load()["test"]
    accuracy = np.mean(model.predict(x, verbose=0).argmax(-1) == y)
    assert results["mlp-simple-0:distilled"]["accuracy"] == pytest.approx(accuracy)


@pytest.mark.slow
def test_the_page_holds_what_was_measured(study, settings, results, tmp_path):
    study.main(["--page-only", "--work-dir", str(settings.work_dir), "--pages", str(tmp_path)])
    text = (tmp_path / "mnist_techniques.md").read_text()
    size = results["mlp-simple-0:int8"]["bytes"]
    assert re.search(rf"\| int8 after training \|.*\| {size:,} \|", text)
    change = 100 * (
        results["mlp-simple-0:dynamic"]["accuracy"] - results["mlp-simple-0:baseline"]["accuracy"]
    )
    assert f"| dynamic quantization against the baseline | 1 | {change:+.2f} |" in text
    plots = [f"mnist_techniques_{key}.svg" for key in ("size", "distillation", "teacher")]
    for plot in [*plots, "mnist_techniques_compression.svg"]:
        assert f"]({plot})" in text
        assert (tmp_path / plot).stat().st_size > 1000
    assert "--families mlp --sizes simple medium" in text
    assert json.loads((tmp_path / "mnist_techniques.json").read_text())["jobs"] == results
