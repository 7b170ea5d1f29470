import os

import pytest

from keras_kd._files import check_output, filling, replacing


def test_replaces_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    with replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "file.txt").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_directory_is_not_replaced(tmp_path):
    with (
        pytest.raises(IsADirectoryError, match=r"is a directory\. Expected the path of a file"),
        replacing(tmp_path),
    ):
        pass


def test_a_free_name_and_a_directory_are_fine_and_nothing_is_made(tmp_path):
    (tmp_path / "there").mkdir()
    check_output(tmp_path / "free")
    check_output(tmp_path / "there")
    assert os.listdir(tmp_path) == ["there"]
    assert not os.listdir(tmp_path / "there")


def test_a_file_is_no_place_for_results(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_output(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_output(tmp_path / "file" / "results")


def test_the_directory_around_must_be_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="mkdir -p"):
        check_output(tmp_path / "missing" / "results")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="nothing can be written"):
        check_output(tmp_path / "results")


def test_files_move_when_the_body_is_done_and_others_stay(tmp_path):
    output = tmp_path / "results"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    (output / "report.html").write_text("old")
    with filling(output) as directory:
        (directory / "models").mkdir()
        (directory / "models" / "a.tflite").write_text("model")
        (directory / "report.html").write_text("new")
        assert (output / "report.html").read_text() == "old"
    assert (output / "report.html").read_text() == "new"
    assert (output / "models" / "a.tflite").read_text() == "model"
    assert (output / "mine.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["results"]
    assert sorted(os.listdir(output)) == ["mine.txt", "models", "report.html"]


def test_a_failure_writes_nothing(tmp_path):
    def fail():
        with filling(tmp_path / "results") as directory:
            (directory / "report.html").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not any(tmp_path.iterdir())
