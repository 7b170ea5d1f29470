import gc
import io
import zipfile

import numpy as np
import pytest

from keras_kd.data import load_examples
from keras_kd.data.examples import load_keys, load_labels, map_examples


def test_an_array(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6).reshape(3, 2))
    np.testing.assert_array_equal(load_examples(tmp_path / "x.npy"), [[0, 1], [2, 3], [4, 5]])


def test_names_in_an_archive_are_those_of_inputs(tmp_path):
    np.savez(tmp_path / "unnamed.npz", np.ones(3))
    np.testing.assert_array_equal(load_examples(tmp_path / "unnamed.npz"), np.ones(3))
    np.savez(tmp_path / "one.npz", a=np.ones(3))
    assert list(load_examples(tmp_path / "one.npz")) == ["a"]
    np.savez_compressed(tmp_path / "two.npz", a=np.ones(3), b=np.zeros(3))
    assert sorted(load_examples(tmp_path / "two.npz")) == ["a", "b"]


def test_a_mapped_array_stays_on_the_disk(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(3, 2))
    np.save(tmp_path / "x.npy", array)
    mapped = map_examples(tmp_path / "x.npy")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, array)
    np.savez(tmp_path / "x.npz", a=array)
    np.testing.assert_array_equal(map_examples(tmp_path / "x.npz")["a"], array)
    np.save(tmp_path / "none.npy", array[:0])
    assert map_examples(tmp_path / "none.npy").shape == (0, 2)


LOADERS = pytest.mark.parametrize("load", [load_examples, map_examples, load_keys])


@LOADERS
def test_missing(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="Expected numbers saved with numpy"):
        load(tmp_path / "x.npy")


@LOADERS
def test_a_pickle_is_refused_and_not_run(tmp_path, load):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "proof"), "w"))

    np.save(tmp_path / "x.npy", np.array([Touch()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="which NumPy cannot read"):
        load(tmp_path / "x.npy")
    assert not (tmp_path / "proof").exists()


@LOADERS
@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"PK\x03\x04"])
def test_damaged(tmp_path, content, load):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="which NumPy cannot read"):
        load(tmp_path / "x.npz")


@LOADERS
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("shape", [(10**13,), (0, -5), (-10,), (2**70,), (11,), (2**40, 0, 2**40)])
def test_what_the_header_says_is_checked_first(tmp_path, suffix, shape, load):
    content = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, header)
    content.write(bytes(10))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content.getvalue())
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content.getvalue())
    with pytest.raises(ValueError, match="which NumPy cannot read"):
        load(path)


def test_an_archive_that_declares_far_more_than_is_stored(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(80_000_000, "uint8"))
    with pytest.raises(ValueError, match=r"'x.npy' declares 800\d+ bytes"):
        load_examples(tmp_path / "x.npz")


def test_a_cut_off_archive_leaves_no_file_open(tmp_path, recwarn):
    np.savez(tmp_path / "x.npz", a=np.ones(300), b=np.zeros(300))
    content = (tmp_path / "x.npz").read_bytes()
    for share in (0.2, 0.5, 0.99):
        (tmp_path / "x.npz").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="which NumPy cannot read"):
            load_examples(tmp_path / "x.npz")
    gc.collect()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]


def test_an_archive_without_arrays(tmp_path):
    np.savez(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="which NumPy cannot read"):
        load_examples(tmp_path / "x.npz")


@pytest.mark.parametrize("array", [np.array(3.0), np.array(["a"]), np.array([1j])])
def test_something_else_than_numbers_per_example(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match="Expected numbers, shaped"):
        load_examples(tmp_path / "x.npy")


def test_labels(tmp_path):
    labels = {"kind": np.array([2, 0, 1], "uint8"), "pose": np.zeros((3, 2))}
    np.save(tmp_path / "y.npy", labels["kind"])
    assert load_labels(tmp_path / "y.npy").tolist() == [2, 0, 1]
    np.savez(tmp_path / "y.npz", y=labels["pose"])
    assert load_labels(tmp_path / "y.npz").shape == (3, 2)
    np.savez(tmp_path / "y.npz", **labels)
    assert {name: array.shape for name, array in load_labels(tmp_path / "y.npz").items()} == {
        "kind": (3,),
        "pose": (3, 2),
    }


@pytest.mark.parametrize("keys", [[7, -1, 2**40], ["cat/1.png", "größer"], [b"a", b"bc"]])
def test_keys(tmp_path, keys):
    np.save(tmp_path / "keys.npy", np.array(keys))
    assert load_keys(tmp_path / "keys.npy").tolist() == keys


@pytest.mark.parametrize("array", [np.ones(3), np.array(3), np.ones((3, 2), int), np.ones(2, bool)])
def test_what_is_no_key(tmp_path, array):
    np.save(tmp_path / "keys.npy", array)
    with pytest.raises(ValueError, match="one key for each example, whole numbers or texts"):
        load_keys(tmp_path / "keys.npy")


def test_two_arrays_are_no_keys(tmp_path):
    np.savez(tmp_path / "keys.npz", a=np.arange(3), b=np.arange(3))
    with pytest.raises(ValueError, match="Received 2 arrays as keys"):
        load_keys(tmp_path / "keys.npz")


def test_arrays_are_added_up(tmp_path):
    arrays = {f"x{i}": np.zeros(8_000_000, "uint8") for i in range(9)}
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=r"the sum of its 9 members declares 72\d+ bytes.*uncompr"):
        load_examples(tmp_path / "x.npz")
    # As the message says.
    np.savez(tmp_path / "x.npz", **arrays)
    assert len(load_examples(tmp_path / "x.npz")) == 9


def test_masks_that_are_mostly_zero(tmp_path):
    masks = np.zeros((200, 500, 500), "uint8")
    masks[:, 100:120, 50:300] = 1
    np.savez_compressed(tmp_path / "masks.npz", masks)
    assert load_examples(tmp_path / "masks.npz").sum() == masks.sum()


def test_a_file_with_holes_that_the_memory_does_not_hold(tmp_path):
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype="uint8", shape=(2**42,))
    with pytest.raises(ValueError, match=r"the array declares 4398046511104 bytes.* are free"):
        load_examples(path)
    path.unlink()


@pytest.mark.parametrize("load", [load_examples, load_keys])
def test_values_without_bytes(load, tmp_path):
    header = b"{'descr': '|S0', 'fortran_order': False, 'shape': (4611686018427387904,), }\n"
    (tmp_path / "x.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    )
    with pytest.raises(ValueError, match="its values have no bytes"):
        load(tmp_path / "x.npy")
