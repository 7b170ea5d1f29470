"""A store: one SQLite file with a row per record, and a table that describes it.

Nothing that a file declares is trusted. Its schema must be exactly the one below, before any
other statement runs. Each row has a CRC-32 of all that is in it and of the description, and the
description one of itself and of how many rows there are.

Readers open the file read-only and need no right to write anywhere. The rollback journal of SQLite
is used, not its write-ahead log, whose readers write to the directory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_kd._checks import problem, three_parts
from keras_kd.teachers.stored.store_file import (
    APPLICATION,
    VERSION,
    WAIT_SECONDS,
    check_header,
    check_place,
    close_connection,
    connect,
    identity,
    size_of,
    undo,
    written,
)

# What a crash costs at most: this much time, or data.
COMMIT_SECONDS = 1.0
COMMIT_BYTES = 8 << 20
# Records of 100 kB are read 4 times faster from large pages, and those of 1 kB fill small ones to
# three quarters only; records of 50 bytes are read a little faster from small ones.
PAGE_BYTES, LARGE_PAGE_BYTES = 4096, 16384
_TABLES = {
    "store": "CREATE TABLE store (description TEXT NOT NULL, records INTEGER NOT NULL, "
    "complete INTEGER NOT NULL, checksum INTEGER NOT NULL)",
    "records": "CREATE TABLE records (place INTEGER PRIMARY KEY, key INTEGER, "
    "version INTEGER NOT NULL, fingerprint INTEGER NOT NULL, checksum INTEGER NOT NULL, "
    "outputs BLOB NOT NULL)",
}
_INDEX = "CREATE UNIQUE INDEX keys ON records (key, version)"
_COLUMNS = "place, key, version, fingerprint, checksum, outputs"
_MOST_DESCRIPTION = 1 << 20
# SQLite takes 10^9 bytes for a row.
_MOST_RECORD = 900_000_000
# How many rows one statement asks for; old versions of SQLite take 999 parameters.
_AT_ONCE = 500


class Rows(NamedTuple):
    """Some records.

    Attributes:
        keys: int64 of shape `(n,)`; 0 where the store has none.
        fingerprints: uint16 of shape `(n,)`.
        outputs: the bytes of each record.
    """

    keys: np.ndarray
    fingerprints: np.ndarray
    outputs: list[bytes]


class Records:
    """The records of a store, complete or not, which stay on the disk until they are read.

    Threads may read at the same time. A pickled object opens its path again, as does one in a
    process that was forked.

    Args:
        path: the store.

    Attributes:
        path: the store, an absolute path.
        description: what the writer noted, as JSON types.
        count: how many records there are.
        complete: whether the writer has finished.
        has_keys: whether the records are found by keys, too.

    Raises:
        FileNotFoundError: if there is no store, or nothing in it.
        IsADirectoryError: if the path is a directory.
        ValueError: if it is no store, damaged, or of another version.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        # The working directory can be another one when this is pickled.
        self.path = Path(path).absolute()
        check_header(self.path)
        self._connect("ro")
        self._read_state()

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)

    def read(self, places: Any) -> Rows:
        """Some records, by their places.

        Args:
            places: integers of shape `(n,)`, in any order.

        Raises:
            ValueError: if there is no such record, or one is damaged; the message names it.
        """
        places, inverse = np.unique(np.asarray(places, np.int64), return_inverse=True)
        outside = places[(places < 0) | (places >= self.count)]
        if outside.size:
            raise problem(
                f"the record {outside[0]} of {str(self.path)!r}",
                f"a number from 0 to {self.count - 1}",
                "read records that were stored",
            )
        columns = _COLUMNS.replace("key", "ifnull(key, 0)")
        where = "WHERE place IN ({}) ORDER BY place"
        rows = self._select(f"SELECT {columns} FROM records {where}", places)
        found = [row[0] for row in rows]
        if found != places.tolist():
            raise self.damaged(f"record {min({*places.tolist()} - {*found})} is missing")
        if not rows:
            return Rows(np.zeros(0, np.int64), np.zeros(0, np.uint16), [])
        numbers, outputs = self._checked(rows)
        each = inverse.reshape(-1)
        return Rows(
            numbers[each, 1],
            numbers[each, 3].astype(np.uint16),
            [outputs[number] for number in each.tolist()],
        )

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Where the records of these keys are.

        Args:
            keys: int64 of shape `(n,)`.

        Returns:
            int64 of shape `(n,)`: the place of the first version of each; -1 where nothing is.

        Raises:
            ValueError: if the index of the keys is damaged.
        """
        keys, inverse = np.unique(keys, return_inverse=True)
        where = "version = 0 AND key IN ({})"
        found = dict(self._select(f"SELECT key, place FROM records WHERE {where}", keys))
        unknown = np.array([key for key in keys.tolist() if key not in found], np.int64)
        # Only now is the whole table read: a damaged index must not pass for other data.
        table = f"SELECT place, key FROM records NOT INDEXED WHERE {where}"
        if unknown.size and self._select(table, unknown):
            raise self.damaged("its index of keys lacks some")
        places = np.array([found.get(key, -1) for key in keys.tolist()], np.int64)
        return places[inverse.reshape(-1)]

    def verify(self) -> None:
        """Read everything and compare the checksums.

        Raises:
            ValueError: naming what is damaged.
        """
        ((report,),) = self._run("PRAGMA integrity_check(1)")
        if report != b"ok":
            raise self.damaged(report.decode(errors="replace"))
        for first in range(0, self.count, _AT_ONCE):
            self.read(np.arange(first, min(first + _AT_ONCE, self.count)))

    def close(self) -> None:
        """Close the file."""
        self._closing()

    def _connect(self, mode: str) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        with self._explaining():
            self._connection = connect(self.path, mode)
        # Not left to the garbage collector, which warns of it.
        self._closing = weakref.finalize(self, close_connection, self._connection, self._process)

    def _run(self, statement: str, values: Any = ()) -> list[tuple]:
        """All rows of a statement that only reads."""
        if self._process != os.getpid():
            self._closing()
            self._connect("ro")
        with self._lock, self._explaining():
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                if "readonly" not in str(error):
                    raise
            # A writer was killed while it changed the file: what it had begun is undone first.
            undo(self.path)
            return self._connection.execute(statement, values).fetchall()

    def _select(self, statement: str, values: np.ndarray) -> list[tuple]:
        rows = []
        for first in range(0, len(values), _AT_ONCE):
            some = values[first : first + _AT_ONCE].tolist()
            rows += self._run(statement.format(",".join("?" * len(some))), some)
        return rows

    def _read_state(self) -> None:
        """Read the description of the store.

        Raises:
            ValueError: if it is anything else than what a writer writes.
        """
        found = self._run("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 4")
        self.has_keys = len(found) > len(_TABLES)
        if found != _schema(self.has_keys):
            raise self.damaged("its tables are not those of a store")
        rows = self._run(
            "SELECT substr(description, 1, ?), records, complete, checksum FROM store LIMIT 2",
            (_MOST_DESCRIPTION + 1,),
        )
        if len(rows) != 1 or not isinstance(rows[0][0], bytes):
            raise self.damaged("it does not describe itself")
        text, count, complete, checksum = rows[0]
        if checksum != _checksum_of_store(text, count, complete):
            raise self.damaged("its description is not what its checksum is of")
        # A checksum can be right and the number a lie, for which memory would be taken.
        if not isinstance(count, int) or not 0 <= 8 * count <= size_of(self.path):
            raise self.damaged(f"{count} records in {size_of(self.path)} bytes")
        self.count, self.complete = count, bool(complete)
        self._seal = zlib.crc32(text)
        try:
            self.description = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"its description is no JSON ({error})"[:200]) from error

    def _checked(self, rows: list[tuple]) -> tuple[np.ndarray, tuple[bytes, ...]]:
        """The numbers of some rows, and their outputs.

        Raises:
            ValueError: naming the first row that is not what its checksum is of.
        """
        *about, checksums, outputs = zip(*rows, strict=True)
        numbers = np.array(about).T
        try:
            # Numbers that are none, or not whole, have another kind.
            own = [] if numbers.dtype.kind != "i" else _checksums(numbers, outputs, self._seal)
        except TypeError:
            own = []
        if own != list(checksums):
            if len(rows) > 1:
                for row in rows:
                    self._checked([row])
            raise self.damaged(f"record {rows[0][0]} is not what its checksum is of")
        return numbers, outputs

    def damaged(self, reason: str) -> ValueError:
        """An error that names the store and the defect."""
        return problem(
            f"the store {str(self.path)!r}, which is damaged: {reason}",
            "the file as it was written",
            "restore it from a copy, or delete it and store the outputs again",
        )

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Raise an error of SQLite as one of this package."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # The text of an error of SQLite can quote what is no UTF-8.
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        if "locked" in str(error):
            return problem(
                f"the store {str(self.path)!r}, which another writer has open",
                "one writer at a time",
                "wait until it has finished, or write to another path",
                kind=BlockingIOError,
            )
        if "readonly" in str(error):
            return problem(
                f"the store {str(self.path)!r}, whose writer was killed in the middle of a "
                "change, where nothing may be written",
                "permission to undo what it had begun",
                "read it once as a user with write access to the file and its directory",
                kind=PermissionError,
            )
        return self.damaged(str(error))


class RecordWriter(Records):
    """Writes the records of a new store, or completes an incomplete one.

    Appended records are safe after the next commit, which comes about every second and at the end
    of the `with` block. A store to which nothing was ever appended is removed.

    Args:
        path: the store; its directory exists.
        description: what to note about it, for JSON.
        record_bytes: the size of a record's outputs.
        has_keys: whether records are found by keys, too.
        versions: how many records an example has; only whole examples are kept.
        total: how many records there will be, where that is known; for the message of a full disk.

    Raises:
        BlockingIOError: if another writer has the store.
        OSError: if nothing can be written there.
        ValueError: if something else is there, a damaged store, or one of another description.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        description: dict[str, Any],
        record_bytes: int,
        *,
        has_keys: bool = False,
        versions: int = 1,
        total: int | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self.count, self.complete = 0, False
        self._record_bytes, self._versions, self._total = record_bytes, versions, total
        self._pending = 0
        # Device and number of the file, once this process alone writes it.
        self._own: tuple[int, int] | None = None
        text = json.dumps(description, allow_nan=False).encode()
        if record_bytes > _MOST_RECORD or len(text) > _MOST_DESCRIPTION:
            raise problem(
                f"records of {record_bytes} bytes, and a description of {len(text)} bytes",
                f"at most {_MOST_RECORD} and {_MOST_DESCRIPTION}",
                "store less: dtype='uint8', top_k=16, or fewer layers",
            )
        check_place(self.path)
        self._connect("rwc")
        try:
            with self._explaining():
                large = record_bytes > PAGE_BYTES // 8
                self._connection.execute(
                    f"PRAGMA page_size = {LARGE_PAGE_BYTES if large else PAGE_BYTES}"
                )
                # The removal of the journal must reach the disk, too.
                self._connection.execute("PRAGMA synchronous = EXTRA")
                self._connection.execute(f"PRAGMA cache_size = {-2 * COMMIT_BYTES // 1024}")
                self._begin()
                self._begin_store(text, has_keys)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if self._closing.alive:
                self._commit()
        finally:
            self.close()

    def append(self, keys: Any, fingerprints: np.ndarray, outputs: np.ndarray) -> None:
        """Write records behind the last one.

        Args:
            keys: int64 of shape `(n,)`, or `None` where the store has none.
            fingerprints: uint16 of shape `(n,)`.
            outputs: an array of shape `(n,)`, with `record_bytes` in each entry.

        Raises:
            OSError: if the disk is full; the message has the number of safe records and the missing
                bytes.
            ValueError: if the store is complete or closed.
        """
        if self.complete or not self._closing.alive:
            raise problem(
                f"more records for {str(self.path)!r}, which is "
                f"{'complete' if self.complete else 'closed'}",
                "a store that is open for writing",
                "append inside its with block, or write to another path",
            )
        with self._explaining():
            insert = f"INSERT INTO records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
            self._connection.executemany(insert, self._rows(keys, fingerprints, outputs))
        self._pending += outputs.nbytes
        is_due = time.monotonic() - self._begun_at >= COMMIT_SECONDS
        if is_due or self._pending >= COMMIT_BYTES:
            self._commit()

    def finish(self) -> None:
        """Note that all records are written."""
        if not self.complete:
            self._commit(complete=True)

    def close(self) -> None:
        """Let go of the store; what is not committed is lost."""
        is_empty = self._own and not self.count and not self.complete
        if is_empty and self._closing.alive and not size_of(self.path):
            # Before another process can begin to write to it.
            self.path.unlink(missing_ok=True)
        self._closing()
        written.discard(self._own)

    def _begin(self) -> None:
        """Begin a transaction; until it ends no other process can begin one."""
        if self._connection.in_transaction:
            return
        self._connection.execute("PRAGMA busy_timeout = 200")
        self._connection.execute("BEGIN IMMEDIATE")
        # Readers are waited for: they never stay long.
        self._connection.execute(f"PRAGMA busy_timeout = {1000 * WAIT_SECONDS}")
        self._begun_at = time.monotonic()

    def _begin_store(self, text: bytes, has_keys: bool) -> None:
        """Make the tables of a new store, or take up one that is there."""
        # The last writer may have removed it since it was opened here.
        if not self.path.exists():
            raise sqlite3.OperationalError("locked")
        self._own = identity(self.path)
        written.add(self._own)
        execute = self._connection.execute
        ((tables,),) = execute("SELECT count(*) FROM sqlite_master")
        if not tables:
            self.has_keys, self._seal = has_keys, zlib.crc32(text)
            execute(f"PRAGMA application_id = {APPLICATION}")
            execute(f"PRAGMA user_version = {VERSION}")
            for *_, statement in _schema(has_keys):
                execute(statement.decode())
            state = (text, 0, 0, _checksum_of_store(text, 0, 0))
            execute("INSERT INTO store VALUES (CAST(? AS TEXT), ?, ?, ?)", state)
            return
        self._read_state()
        if (self.has_keys, self._seal) != (has_keys, zlib.crc32(text)):
            raise problem(
                f"{text.decode():.300} for the store {str(self.path)!r}, which was begun with "
                f"{json.dumps(self.description):.300}",
                "the same as when it was begun, to complete it",
                "pass what it was begun with, or write to another path",
            )
        if self._there() != self.count:
            raise self.damaged(f"it has {self._there()} records instead of {self.count}")

    def _there(self) -> int:
        """How many records there are, those that are not committed among them."""
        ((last,),) = self._connection.execute("SELECT max(place) FROM records")
        return 0 if last is None else last + 1

    def _rows(self, keys: Any, fingerprints: np.ndarray, outputs: np.ndarray) -> Iterator[tuple]:
        """Rows to be inserted, in the order of the columns."""
        places = self._there() + np.arange(len(outputs))
        own = keys if self.has_keys else np.zeros_like(places)
        numbers = np.stack([places, own, places % self._versions, fingerprints], 1).astype(np.int64)
        content, size = memoryview(outputs.tobytes()), self._record_bytes
        records = [content[first : first + size] for first in range(0, len(content), size)]
        checksums = _checksums(numbers, records, self._seal)
        for (place, key, *rest), *others in zip(numbers.tolist(), checksums, records, strict=True):
            yield place, key if self.has_keys else None, *rest, *others

    def _commit(self, complete: bool = False) -> None:
        """Let what was appended reach the disk, as far as it is whole examples."""
        with self._explaining():
            # There is none where the last commit was interrupted before it was over in Python.
            self._begin()
            complete = complete or self.complete
            count = self._there() // self._versions * self._versions
            if (count, complete) != (self.count, self.complete):
                execute = self._connection.execute
                execute("DELETE FROM records WHERE place >= ?", (count,))
                ((text,),) = execute("SELECT description FROM store")
                state = (count, int(complete))
                execute(
                    "UPDATE store SET records = ?, complete = ?, checksum = ?",
                    (*state, _checksum_of_store(text, *state)),
                )
                execute("COMMIT")
                self.count, self.complete, self._pending = count, complete, 0
                self._begin()

    def _explained(self, error: Exception) -> Exception:
        """Write no more after an error: SQLite may have undone half of a transaction."""
        self.close()
        number = {"database or disk is full": ENOSPC, "disk I/O error": EIO}.get(str(error))
        if number is None:
            return super()._explained(error)
        missing = "more space"
        if self._total is not None:
            missing = f"{max(self._total - self.count, 0) * self._record_bytes} more bytes"
        return OSError(
            number,
            three_parts(
                f"{str(error)!r} while writing the store {str(self.path)!r}, which is valid up to "
                f"record {self.count}",
                f"{missing} for it, on a disk that can be written",
                "free space and run again, which resumes there",
            ),
        )


def bytes_of_row(record_bytes: int, has_keys: bool) -> int:
    """About how many bytes of the file a record takes, as measured from 50 to 100,000 bytes."""
    return record_bytes + record_bytes // 40 + (50 if has_keys else 22)


def _schema(has_keys: bool) -> list[tuple[bytes, ...]]:
    """The rows of SQLite's table of all tables."""
    tables = [("table", name, name, sql) for name, sql in _TABLES.items()]
    index = [("index", "keys", "records", _INDEX)] if has_keys else []
    return [tuple(map(str.encode, row)) for row in tables + index]


def _checksums(numbers: np.ndarray, contents: Any, seal: int) -> list[int]:
    """CRC-32 of each row of numbers and of the bytes beside it, after a seal."""
    size = 8 * numbers.shape[1]
    rows = memoryview(numbers.astype("<i8").tobytes())
    return [
        zlib.crc32(content, zlib.crc32(rows[first : first + size], seal))
        for first, content in zip(range(0, len(rows), size), contents, strict=True)
    ]


def _checksum_of_store(text: bytes, records: Any, complete: Any) -> int:
    return zlib.crc32(f"{records} {complete}".encode(), zlib.crc32(text))
