"""The files of a store, and whether a directory holds them."""

from __future__ import annotations

from pathlib import Path

from keras_kd._checks import problem
from keras_kd._files import is_leftover
from keras_kd.teachers.stored.records.header import HEADER
from keras_kd.teachers.stored.records.journal import JOURNAL, Journal

RECORDS = "records.bin"
# What earlier versions left behind when their process was killed.
_LEFT_BEHIND = (f".{Path(HEADER).stem}-*", f".{JOURNAL}-*")


def check_store(directory: Path) -> None:
    """Refuse a path where no store is.

    Raises:
        FileNotFoundError: if there is nothing, or a directory without the files of a store.
        NotADirectoryError: if it is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(
            problem(
                f"the store {str(directory)!r}, which is a file",
                "the directory that store() wrote",
                "pass its path",
            )
        )
    for name in (HEADER, JOURNAL, RECORDS):
        # Opening what is no regular file, such as a pipe, could wait for ever.
        if not (directory / name).is_file():
            missing = f"without the file {name}" if directory.exists() else "which does not exist"
            raise FileNotFoundError(
                problem(
                    f"the store {str(directory)!r}, {missing}",
                    "the directory that store() wrote",
                    "check the path, or store the outputs first",
                )
            )


def check_free(directory: Path) -> None:
    """Refuse to begin a store in a directory that holds something else.

    Raises:
        ValueError: if it does.
    """
    ours = set(_leftovers(directory))
    for path in sorted(directory.iterdir()):
        # A writer that was killed before its header was in place leaves the others empty.
        begun = path.name in (JOURNAL, RECORDS) and path.is_file() and path.stat().st_size == 0
        if path not in ours and not begun:
            raise ValueError(
                problem(
                    f"the directory {str(directory)!r} for a store, which holds {path.name!r} and "
                    f"no {HEADER}",
                    "an empty directory, a store, or a name that is free",
                    "choose another name",
                )
            )


def remove_leftovers(directory: Path) -> None:
    """Remove temporary files of writers that were killed; for the only one that there is now."""
    for path in _leftovers(directory):
        path.unlink()


def _leftovers(directory: Path) -> list[Path]:
    old = {path for pattern in _LEFT_BEHIND for path in directory.glob(pattern)}
    return [
        path
        for path in directory.iterdir()
        if (path in old or is_leftover(path)) and (path.is_symlink() or not path.is_dir())
    ]


def check_data(directory: Path, size: int, journal: Journal, itemsize: int) -> None:
    """Refuse a file of records that is not as long as the journal says.

    Args:
        directory: the store.
        size: bytes of its file of records.
        journal: what it says of them.
        itemsize: bytes of a record.

    Raises:
        ValueError: if records are missing, or others follow the last one of a complete store.
    """
    expected = journal.count * itemsize
    if size < expected or (journal.complete and size > expected):
        raise ValueError(
            problem(
                f"{str(directory / RECORDS)!r} of {size} bytes",
                f"{expected} bytes, for the {journal.count} records of {itemsize} bytes that its "
                "journal names",
                "restore the file from a copy, or delete the directory and store the outputs again",
            )
        )
