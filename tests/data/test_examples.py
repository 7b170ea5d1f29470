import numpy as np
import pytest

from keras_kd.data import load_examples


def test_an_array(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6).reshape(3, 2))
    np.testing.assert_array_equal(load_examples(tmp_path / "x.npy"), [[0, 1], [2, 3], [4, 5]])


def test_one_array_or_several_in_an_archive(tmp_path):
    np.savez(tmp_path / "one.npz", a=np.ones(3))
    np.testing.assert_array_equal(load_examples(tmp_path / "one.npz"), np.ones(3))
    np.savez_compressed(tmp_path / "two.npz", a=np.ones(3), b=np.zeros(3))
    assert sorted(load_examples(tmp_path / "two.npz")) == ["a", "b"]


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected numbers saved with numpy"):
        load_examples(tmp_path / "x.npy")


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "proof"), "w"))

    np.save(tmp_path / "x.npy", np.array([Touch()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="which NumPy cannot read"):
        load_examples(tmp_path / "x.npy")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"PK\x03\x04"])
def test_damaged(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="which NumPy cannot read"):
        load_examples(tmp_path / "x.npz")


def test_a_giant_declared_size_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(10, "uint8"))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b"(10,)", b"(9999999999999,)", 1))
    with pytest.raises(ValueError, match="which NumPy cannot read"):
        load_examples(tmp_path / "x.npy")


def test_an_archive_without_arrays(tmp_path):
    np.savez(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="which NumPy cannot read"):
        load_examples(tmp_path / "x.npz")


@pytest.mark.parametrize("array", [np.array(3.0), np.array(["a"]), np.array([1j])])
def test_something_else_than_numbers_per_example(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match="Expected numbers, shaped"):
        load_examples(tmp_path / "x.npy")
