from pathlib import Path

import pytest

from keras_kd.cli.destination import Destination


@pytest.mark.parametrize("target", ["android", "microcontroller", "web"])
def test_beside_the_model(target, tmp_path):
    destination = Destination.of(tmp_path / "student.keras", None, target)
    assert destination.path == tmp_path / "student.tflite"
    assert destination.is_file


def test_a_directory_that_is_there(tmp_path):
    destination = Destination.of(Path("exported"), tmp_path, "web")
    assert (destination.path, destination.file_name) == (tmp_path, "exported.tflite")
    assert not destination.is_file
    assert not destination.is_project


def test_only_a_project_makes_its_directory(tmp_path):
    output = tmp_path / "firmware"
    assert Destination.of(Path("a.keras"), output, "microcontroller").is_project
    with pytest.raises(ValueError, match="mkdir -p"):
        Destination.of(Path("a.keras"), output, "android")


@pytest.mark.parametrize("name", ["a.keras", "data.npy", "student.txt"])
@pytest.mark.parametrize("target", ["android", "microcontroller"])
def test_slips(name, target, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"ends in \.tflite"):
        Destination.of(Path("a.keras"), tmp_path / name, target)
