"""Files of stores: what SQLite may open, and how it is opened.

Nothing that a file declares is trusted: it is compared with what a store of this version has
before SQLite reads it. Readers open the file read-only and need no right to write anywhere.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import suppress
from pathlib import Path

from keras_kd._checks import problem
from keras_kd._files import SQLITE, check_output, check_own, open_own

# "kkds" in the header of the file, where SQLite keeps whose file it is, and the format's version.
APPLICATION = 0x6B6B6473
VERSION = 1
# At 0 the magic, at 18 how it is written and read, at 60 the version, at 68 whose it is.
_HEADER = ">16s2xBB40xI4xI"
WAIT_SECONDS = 60
# The last bytes of a journal that belongs to a transaction over several files.
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
# Of a process that has forked since: SQLite must not even close them.
_inherited: list[sqlite3.Connection] = []
# What this process writes: devices and numbers of files.
written: set[tuple[int, int] | None] = set()


def check_place(path: Path) -> None:
    """Check before hours of work that a store can be begun or resumed.

    Raises:
        OSError: as `check_output` does.
        ValueError: if there is something else than a store, or a link.
    """
    check_output(path, is_file=True)
    _check_writable(path)
    if size_of(path):
        # Nothing is left of a writer that was killed in its first transaction.
        with suppress(FileNotFoundError):
            check_header(path)


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to a file, which does not trust its schema; `mode` as in the URIs of SQLite."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        timeout=WAIT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    # What is damaged may be no UTF-8.
    connection.text_factory = bytes
    # No function of the schema is trusted, and no page; and a file that is cut while it is mapped
    # would end the process.
    for guard in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {guard}").close()
    return connection


def close_connection(connection: sqlite3.Connection, process: int) -> None:
    """Close a connection, unless this process was forked from the one that opened it."""
    if process == os.getpid():
        connection.close()
    else:
        _inherited.append(connection)


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def check_header(path: Path) -> None:
    """Refuse a file that is no store of this version, before SQLite takes it for something else.

    Raises:
        FileNotFoundError: if there is none, or nothing in it.
        IsADirectoryError: if it is a directory.
        ValueError: if it is something else, or a store of another version.
    """
    expected = "the file that StoredTeacher.create wrote"
    if path.is_dir():
        raise problem(
            f"the store {str(path)!r}, which is a directory",
            expected,
            "pass its path",
            kind=IsADirectoryError,
        )
    if not os.path.lexists(path):
        raise problem(
            f"the store {str(path)!r}, which does not exist",
            expected,
            "check the path, or store the outputs first",
            kind=FileNotFoundError,
        )
    for file in (path, _journal(path)):
        if os.path.lexists(file):
            check_own(file)
    if identity(path) in written:
        # To close the file would take the locks of its writer, which belong to the process.
        _check_begun(path)
        return
    header = _header(path)
    if not header.strip(b"\0"):
        if size_of(_journal(path)):
            # Of a writer that was killed in its first transaction; or is just in it.
            undo(path)
            header = _header(path)
        _check_begun(path)
    magic, write_version, read_version, version, application = struct.unpack(_HEADER, header)
    if magic != SQLITE or application != APPLICATION:
        raise problem(
            f"{str(path)!r}, which is damaged or not a store",
            f"{expected}, or, for a new store, an unused name",
            "check the path, or choose another name",
        )
    # 2 would be a write-ahead log, which even readers make beside the store.
    if (version, write_version, read_version) != (VERSION, 1, 1):
        raise problem(
            f"the store {str(path)!r} in version {version}.{write_version}.{read_version} of "
            "its format",
            f"version {VERSION}.1.1",
            "read it with the version of keras_kd that wrote it, or store the outputs again",
        )


def _header(path: Path) -> bytes:
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        return file.read(struct.calcsize(_HEADER)).ljust(struct.calcsize(_HEADER), b"\0")


def identity(path: Path) -> tuple[int, int]:
    """The device and the number of a file."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def _check_writable(path: Path) -> None:
    """Refuse a file through which another one would be written or removed.

    SQLite undoes what a killed writer had begun, by the journal beside the store. A journal
    can name a second one, of a transaction over several files, which SQLite then removes; there is
    none of these here.

    Raises:
        ValueError: if the file, or the journal beside it, is a link or the like.
    """
    journal = _journal(path)
    for file in (path, journal):
        if os.path.lexists(file):
            check_own(file, to_write=True)
    if not size_of(journal):
        return
    with open(open_own(journal, os.O_RDONLY), "rb") as opened:
        opened.seek(-min(8, size_of(journal)), os.SEEK_END)
        if opened.read() == _SUPER_JOURNAL:
            raise problem(
                f"{str(journal)!r}, the journal of a store, which names another file",
                "a journal of one file",
                "delete the store and its journal, and store the outputs again",
            )


def undo(path: Path) -> None:
    """Undo what a writer that was killed had begun.

    Raises:
        FileNotFoundError: if nothing is left then.
    """
    _check_writable(path)
    connection = connect(path, "rw")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    finally:
        connection.close()
    _check_begun(path)


def _check_begun(path: Path) -> None:
    if not size_of(path):
        raise problem(
            f"the store {str(path)!r}, whose storing was interrupted before its first record",
            "a store with records",
            "store the outputs again",
            kind=FileNotFoundError,
        )
