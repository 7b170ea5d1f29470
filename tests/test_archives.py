import pytest

from keras_kd._archives import check_expansion, check_members

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("declared", "stored"), [(64 * MEBIBYTE, 0), (100 * MEBIBYTE, MEBIBYTE), (0, 0)]
)
def test_what_is_in_proportion(declared, stored):
    check_expansion("it", declared, stored)


@pytest.mark.parametrize(
    ("declared", "stored"), [(64 * MEBIBYTE + 1, 0), (101 * MEBIBYTE, MEBIBYTE)]
)
def test_what_is_not(declared, stored):
    with pytest.raises(ValueError, match=f"it declares {declared} bytes, of which {stored}"):
        check_expansion("it", declared, stored)


def test_no_archive(tmp_path):
    (tmp_path / "file").write_bytes(b"PK")
    with pytest.raises(ValueError, match="no zip archive"):
        check_members(tmp_path / "file")
