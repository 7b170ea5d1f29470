"""Files of interrupted work: whole, or an error that names them."""

import numpy as np
import pytest

from keras_kd._state_files import StateFiles


def test_what_was_written_is_read(tmp_path):
    files = StateFiles(tmp_path / "new", "a test")
    assert files.read_json("state.json") is None
    files.write_json("state.json", {"a": [1, None]})
    files.write_arrays("deeper/arrays.npz", {"a": np.arange(3), "b": np.float32(2.0)})
    assert files.read_json("state.json") == {"a": [1, None]}
    arrays = files.read_arrays("deeper/arrays.npz")
    assert sorted(arrays) == ["a", "b"]
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    assert arrays["b"].dtype == np.float32
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["arrays.npz", "state.json"]


def test_a_failed_write_leaves_the_file_before(tmp_path):
    files = StateFiles(tmp_path, "a test")
    files.write_json("state.json", 1)
    with pytest.raises(TypeError):
        files.write_json("state.json", object())
    assert files.read_json("state.json") == 1


@pytest.mark.parametrize("change", [lambda b: b[:-30], lambda b: b"", lambda b: _flipped(b)])
def test_damaged_arrays_are_an_error(tmp_path, change):
    files = StateFiles(tmp_path, "a test")
    files.write_arrays("a.npz", {"a": np.arange(1000.0)})
    path = tmp_path / "a.npz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.npz', which cannot be read.*that a test has written"):
        files.read_arrays("a.npz")


def _flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_pickles_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        StateFiles(tmp_path, "a test").read_arrays("a.npz")


def test_links_are_not_followed(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").symlink_to(tmp_path / "other.json")
    with pytest.raises(ValueError, match="symbolic link"):
        StateFiles(tmp_path / "run", "a test").read_json("state.json")


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(NotADirectoryError, match="which is a file"):
        StateFiles(tmp_path / "run", "a test")
