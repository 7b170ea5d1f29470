"""Every example runs, on a tiny setting."""

import runpy
from pathlib import Path

import pytest

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
def test_to_microcontroller(tmp_path):
    pytest.importorskip("tflite_micro")
    agreement = run(
        "to_microcontroller.py", "--epochs", 1, "--images", 640, "--output", tmp_path / "firmware"
    )
    assert agreement > 0.9
    names = {path.name for path in (tmp_path / "firmware").iterdir()}
    assert names == {"digits_data.h", "digits_data.cc"}


def test_every_example_is_tested_and_short():
    tests = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in tests
        assert len(path.read_text().splitlines()) <= 100
