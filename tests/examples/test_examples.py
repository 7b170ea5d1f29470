"""Every example runs, on a tiny setting."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import android

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, *options):
    main = runpy.run_path(str(EXAMPLES / name))["main"]
    return main([str(option) for option in options])


def test_distill_digits(capsys):
    accuracies = run("distill_digits.py", "--epochs", 1, "--images", 640)
    assert set(accuracies) == {"teacher", "alone", "distilled"}
    assert accuracies["teacher"] > 0.3
    assert "distilled" in capsys.readouterr().out


@pytest.mark.slow
def test_prune_and_quantize(tmp_path, capsys):
    model = run(
        "prune_and_quantize.py",
        *("--epochs", 1, "--images", 640, "--output", tmp_path / "student.tflite"),
    )
    assert model.size == (tmp_path / "student.tflite").stat().st_size
    assert "80.0% zeros" in capsys.readouterr().out


@pytest.mark.slow
def test_factorize(tmp_path, capsys):
    path = tmp_path / "student.tflite"
    results = run("factorize.py", "--epochs", 1, "--images", 640, "--output", path)
    assert list(results) == ["teacher", "factorized", "distilled"]
    assert results["distilled"][1] == path.stat().st_size < 0.2 * results["teacher"][1]
    assert re.search(r"all parameters +105,866 +12,", capsys.readouterr().out)


@pytest.mark.slow
def test_compress_in_steps(tmp_path, capsys):
    path = tmp_path / "student.tflite"
    result = run("compress_in_steps.py", "--epochs", 1, "--images", 640, "--output", path)
    kinds = ["factorize", "remove_filters", "prune", "cluster", "quantize_aware"]
    assert [stage.name for stage in result.stages] == ["start", *kinds]
    assert result.stages[-1].sparsity > 0.68
    assert f"{path.stat().st_size:,} bytes" in capsys.readouterr().out


@pytest.mark.slow
def test_to_microcontroller(tmp_path):
    pytest.importorskip("tflite_micro")
    agreement = run(
        "to_microcontroller.py", "--epochs", 1, "--images", 640, "--output", tmp_path / "firmware"
    )
    assert agreement > 0.9
    names = {path.name for path in (tmp_path / "firmware").iterdir()}
    assert {"digits_data.h", "digits_data.cc", "digits_ops.h", "main.cc"} < names


@pytest.mark.slow
def test_fit_to_device(tmp_path):
    pytest.importorskip("tflite_micro")
    options = ("--images", 1200, "--teacher-epochs", 1, "--trials", 1, "--epochs", 1)
    result = run("fit_to_device.py", *options, "--output", tmp_path / "firmware")
    assert result.winner.fits
    assert (tmp_path / "firmware" / "digits.tflite").stat().st_size == result.model.size


@pytest.mark.slow
def test_to_android(tmp_path, capsys):
    path = tmp_path / "digits.tflite"
    model = run("to_android.py", "--epochs", 1, "--images", 640, "--output", path)
    assert path.read_bytes() == model.content
    metadata = android.read_metadata(model)
    assert metadata.class_names == tuple("0123456789")
    assert f"int8         {model.size:7,} bytes" in capsys.readouterr().out
    # The app in the documentation uses what is in this file.
    page = (EXAMPLES.parent / "docs" / "android.md").read_text()
    code = "".join(re.findall(r"```(?:kotlin|java)\n(.*?)```", page, re.DOTALL))
    expected = {
        r'"(\w+\.tflite)"': path.name,
        r'createInputBuffer\("(\w+)"': model.inputs[0].name,
        r'createOutputBuffer\("(\w+)"': model.outputs[0].name,
        r'(?:mapOf|Map\.of)\("(\w+)"(?: to|,) image\)': model.inputs[0].name,
        r'(?:mapOf|Map\.of)\("(\w+)"(?: to|,) scores\)': model.outputs[0].name,
        r"SIZE = (\d+)": str(model.inputs[0].shape[1]),
        r"MEAN = (\d+)f": f"{metadata.mean[0]:g}",
        r"STD = (\d+)f": f"{metadata.std[0]:g}",
    }
    for pattern, name in expected.items():
        found = re.findall(pattern, code)
        # In Kotlin and in Java; both libraries name the file.
        assert found == [name] * (4 if "tflite" in pattern else 2), pattern


@pytest.mark.slow
def test_tabular_munge(capsys):
    pytest.importorskip("sklearn")
    means = run("tabular_munge.py", "--seeds", 1, "--trees", 10)
    assert set(means) == {"forest", "labels", "real rows", "munged rows"}
    assert all(accuracy > 0.7 for accuracy, _ in means.values())
    assert "munged rows" in capsys.readouterr().out


@pytest.mark.slow
def test_text_classifier(capsys):
    accuracies = run("text_classifier.py", "--epochs", 1, "--files", 5, "--seeds", 1)
    assert set(accuracies) == {"teacher", "alone", "distilled"}
    assert len(accuracies["distilled"]) == 1
    assert "distilled" in capsys.readouterr().out


@pytest.mark.slow
def test_recommender(capsys):
    kept = run("recommender.py", "--epochs", 1, "--choices", 3)
    assert set(kept) == {"alone", "SoftTargets", "DIST"}
    assert all(0 <= ndcg <= 1 and -1 <= tau <= 1 for ndcg, tau in kept.values())
    assert "Kendall" in capsys.readouterr().out


def test_the_measures_of_the_recommender():
    example = runpy.run_path(str(EXAMPLES / "recommender.py"))
    scores = np.random.default_rng(0).normal(size=(3, example["ITEMS"]))
    assert example["ndcg"](scores, 2 * scores + 1) == pytest.approx(1.0)
    assert example["ndcg"](scores, -scores) == 0.0
    assert example["kendall_tau"](scores, np.exp(scores)) == pytest.approx(1.0)
    assert example["kendall_tau"](scores, -scores) == pytest.approx(-1.0)


@pytest.mark.slow
def test_features_on_images(capsys):
    accuracies = run("features_on_images.py", "--epochs", 4, "--images", 320, "--seeds", 1)
    assert set(accuracies) == {"teacher", "alone", "soft_targets", "two_stages"}
    assert "two_stages" in capsys.readouterr().out


@pytest.mark.slow
def test_multi_worker(capsys):
    results = run("multi_worker.py", "--epochs", 1, "--images", 640)
    assert results["accuracy of two"] == pytest.approx(results["accuracy of one"], abs=1e-6)
    assert results["difference of weights"] < 1e-5
    assert "difference of weights" in capsys.readouterr().out


@pytest.mark.slow
def test_ensemble(capsys):
    accuracies = run("ensemble.py", "--epochs", 1, "--images", 320, "--seeds", 1)
    assert len(accuracies["each teacher"]) == 3
    assert "by all" in capsys.readouterr().out


@pytest.mark.slow
def test_born_again(capsys):
    accuracies = run("born_again.py", "--epochs", 1, "--images", 320, "--generations", 2)
    assert len(accuracies) == 3
    assert "all together" in capsys.readouterr().out


@pytest.mark.slow
def test_keyword_spotter(tmp_path, capsys):
    """On the clips that come with it."""
    pytest.importorskip("tflite_micro")
    folder = tmp_path / "firmware"
    results = run("keyword_spotter.py", "--epochs", 2, "--test", "s5", "--output", folder)
    assert list(results) == ["teacher", "alone", "student", "int8 file"]
    assert "27 clips to learn from, 9 of other speakers, (49, 32)" in capsys.readouterr().out
    names = {path.name for path in folder.iterdir()}
    assert {"digits.h", "digits_data.cc", "digits_front_end.h", "digits_front_end.cc"} < names
    assert not any("store" in name for name in names)


@pytest.mark.slow
def test_motion(capsys):
    pytest.importorskip("tflite_micro")
    results = run("motion.py", "--epochs", 3, "--windows", 300)
    assert list(results) == ["teacher", "alone", "student", "int8 file"]
    # One of six is right by chance.
    assert results["teacher"] > 0.3
    assert results["int8 file"] == pytest.approx(results["student"], abs=0.05)
    assert "bytes of arena" in capsys.readouterr().out


def test_motions_are_what_physics_says():
    example = runpy.run_path(str(EXAMPLES / "motion.py"))
    random = np.random.default_rng(0)
    windows = {
        kind: np.stack([example["window"](kind, random) for _ in range(50)])
        for kind in example["KINDS"]
    }
    magnitudes = {kind: np.linalg.norm(x, axis=2) for kind, x in windows.items()}
    for x in windows.values():
        assert x.shape == (50, example["LENGTH"], 3)
        assert np.abs(x).max() <= 4
    # At rest a sensor measures gravity alone; runners accelerate more; who falls has no weight.
    np.testing.assert_allclose(magnitudes["still"].mean(axis=1), 1, atol=0.1)
    spread = {kind: x.std(axis=1).mean() for kind, x in magnitudes.items()}
    assert spread["still"] < spread["cycling"] < spread["walking"] < spread["running"]
    fallen = magnitudes["fall"]
    smoothed = np.apply_along_axis(np.convolve, 1, fallen, np.ones(9) / 9, "valid")
    assert (smoothed.min(axis=1) < 0.4).all()
    # Directions are those in which devices are worn: any.
    assert np.abs(windows["still"].mean(axis=(0, 1))).max() < 0.4


@pytest.mark.slow
def test_anomaly(capsys):
    pytest.importorskip("tflite_micro")
    results = run("anomaly.py", "--epochs", 10, "--clips", 300)
    assert list(results) == ["teacher", "alone", "student", "int8 file"]
    assert results["teacher"] > 0.6
    assert results["int8 file"] == pytest.approx(results["student"], abs=0.05)
    assert "AUC" in capsys.readouterr().out


def test_every_example_is_tested_and_short():
    tests = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in tests
        assert len(path.read_text().splitlines()) <= 100


@pytest.mark.slow
def test_text_on_device(tmp_path):
    pytest.importorskip("ai_edge_quantizer")
    path = tmp_path / "student.tflite"
    results = run("text_on_device.py", "--epochs", 1, "--files", 3, "--output", path)
    assert list(results) == ["mean of words", "GRU", "transformer"]
    for files in results.values():
        sizes = {form: size for form, (size, _) in files.items()}
        assert sizes["int4"] < sizes["dynamic_int8"] < sizes["float16"] < sizes["float32"]
        assert files["float16"][1] == pytest.approx(files["float32"][1], abs=0.02)
    metadata = android.read_metadata(tflite.TFLiteModel.load(path))
    assert metadata.class_names == ("absl", "h5py", "keras", "numpy", "rich")
    assert metadata.vocabulary[:2] == ("<PAD>", "<UNKNOWN>")
