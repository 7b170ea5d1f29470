import json

import keras
import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def study():
    import cifar_resnet8

    return cifar_resnet8


@pytest.fixture(scope="module")
def settings(study, tmp_path_factory):
    """Coloured squares in place of photographs: ten classes that a few steps tell apart."""
    work_dir = tmp_path_factory.mktemp("cifar")
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (10, 1, 1, 3))
    y = generator.integers(0, 10, 140)
    noise = generator.integers(-20, 21, (140, 32, 32, 3))
    x = np.clip(colours[y] + noise, 0, 255).astype("uint8")
    np.savez(work_dir / "cifar10.npz", x=x[:100], y=y[:100], x_test=x[100:], y_test=y[100:])
    return study.Settings(
        None,
        work_dir,
        images=100,
        width=4,
        teacher_epochs=1,
        student_epochs=1,
        quantization_epochs=1,
        versions=2,
        seeds=1,
        batch_size=16,
    )


@pytest.fixture(scope="module")
def results(study, settings, finished):
    return finished(study.jobs(settings), settings, settings.described())


def test_the_student_is_that_of_mlperf_tiny(study):
    model = study.student(0)
    # The reference has 78,666 with biases before batch normalization, which these lack.
    normalized = [
        layer.filters
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and not layer.use_bias
    ]
    assert normalized == [16, 16, 16, 32, 32, 64, 64]
    assert model.count_params() + sum(normalized) == 78_666


def test_the_teacher_is_far_larger(study):
    assert study.teacher(48, 0).count_params() > 40 * study.student(0).count_params()


def test_images_for_the_store_are_crops_of_the_reflected_image_and_mirrored(study):
    generator = np.random.default_rng(0)
    image = generator.random((32, 32, 3)).astype("float32")
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), "reflect")
    crops = [padded[i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
    possible = {crop.tobytes() for crop in (*crops, *(crop[:, ::-1] for crop in crops))}
    seen = {
        study.augment(tf.constant(image), tf.constant([seed, 7])).numpy().tobytes()
        for seed in range(60)
    }
    assert seen <= possible
    assert len(seen) > 30


def test_the_learning_rate_rises_and_falls_to_zero(study):
    rate = study.cosine(0.4, 10, 1000, 100)
    values = [float(rate(step)) for step in range(101)]
    assert max(values) == pytest.approx(0.4)
    assert np.argmax(values) == 10
    assert values[100] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_files_are_measured_and_kept(study, settings, results):
    for name in ("alone", "distilled"):
        file = results[f"{name}-0-int8"]
        assert file["bytes"] == (settings.work_dir / f"{name}-0.tflite").stat().st_size
        assert file["bytes"] < study.MOST_BYTES
        assert file["latency_microseconds"] > 0
        assert 0 <= file["accuracy"] <= 1


@pytest.mark.slow
def test_the_page_holds_what_was_measured(study, settings, results, tmp_path):
    study.main(["--page-only", "--work-dir", str(settings.work_dir), "--pages", str(tmp_path)])
    text = (tmp_path / "cifar_resnet8.md").read_text()
    assert f"| distilled, float | 1 | {100 * results['distilled-0']['accuracy']:.2f} |" in text
    assert f"| {results['distilled-0-int8']['bytes']:,} |" in text
    assert f"reached {100 * results['teacher']['accuracy']:.2f} %" in text
    assert json.loads((tmp_path / "cifar_resnet8.json").read_text())["jobs"] == results
