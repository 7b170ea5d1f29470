"""Writing records so that a crash costs no more than the last second of them."""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._files import NO_SPACE, check_output, open_own, replacing
from keras_kd.teachers.stored.records.header import (
    HEADER,
    Header,
    check_same,
    new_header,
    read_header,
    write_header,
)
from keras_kd.teachers.stored.records.journal import JOURNAL, Chunk, complete_line, read_journal
from keras_kd.teachers.stored.records.layout import (
    RECORDS,
    check_data,
    check_free,
    check_store,
    remove_leftovers,
)

# What one checksum is for: reading a single record checks this much, once.
CHUNK_BYTES = 1 << 20
# How much work a crash costs at most.
COMMIT_SECONDS = 1.0


@dataclass(frozen=True)
class _State:
    """How far the writing is; replaced as a whole, so that an interrupt leaves no half of a step.

    Attributes:
        chunk: what the next record belongs to.
        full: chunks before it that the journal does not have.
        committed: how many records the journal speaks of.
        journal_size: bytes of the journal.
        seal: of its last line.
    """

    chunk: Chunk
    full: tuple[Chunk, ...]
    committed: int
    journal_size: int
    seal: int


class RecordWriter:
    """Writes the records of a new store, or goes on with one that is not complete.

    Appended records are safe after the next commit, which comes about every second and at the end
    of the `with` block.

    Args:
        directory: the store; its parent directory exists.
        header: what to note about it, for JSON.
        dtype: of a record, a structured dtype of numbers.
        total: how many records there will be, where that is known; for the message of a full disk.

    Attributes:
        directory: the store.
        dtype: of a record.
        complete: whether nothing can be added any more.

    Raises:
        BlockingIOError: if another writer has the store.
        OSError: if nothing can be written there.
        ValueError: if something else is there, a damaged store, or one whose header differs.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        header: dict[str, Any],
        dtype: np.dtype,
        *,
        total: int | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.dtype = np.dtype(dtype)
        self.complete = False
        self._total = total
        self._files = ExitStack()
        given = new_header(header, self.dtype)
        self._chunk_rows = max(1, CHUNK_BYTES // self.dtype.itemsize)
        check_output(self.directory)
        self.directory.mkdir(exist_ok=True)
        check = check_store if (self.directory / HEADER).exists() else check_free
        check(self.directory)
        self._state = _State(Chunk(0), (), 0, 0, given.checksum)
        self._committed_at = time.monotonic()
        try:
            with self._closing_on_failure():
                self._journal = self._files.enter_context(_locked(self.directory / JOURNAL))
                self._data = self._files.enter_context(_opened(self.directory / RECORDS))
                self._begin(given)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if not self._data.closed:
                with self._closing_on_failure():
                    self._commit()
        finally:
            self.close()

    @property
    def count(self) -> int:
        """How many records are safe on the disk: where to go on."""
        return self._state.committed

    def append(self, records: np.ndarray) -> None:
        """Write records behind the last one.

        Args:
            records: a structured array of shape `(n,)`.

        Raises:
            OSError: if the disk is full; says how many records are safe and how much is missing.
            ValueError: if the records are of another dtype, or the store is complete.
        """
        self._check_records(records)
        done = 0
        with self._closing_on_failure():
            while done < len(records):
                part = records[done : done + self._chunk_rows - self._state.chunk.rows]
                self._write(part)
                done += len(part)
                if time.monotonic() - self._committed_at >= COMMIT_SECONDS:
                    self._commit()

    def finish(self) -> None:
        """Say that nothing will come any more.

        The files of a complete store do not show whether its writing was interrupted.
        """
        if not self.complete:
            with self._closing_on_failure():
                self._commit()
                self._write_complete_journal()
            self.complete = True

    def close(self) -> None:
        """Let go of the store; what is not committed is lost."""
        self._files.close()

    def _begin(self, given: Header) -> None:
        """Write the header of a store, or take up one that is there."""
        remove_leftovers(self.directory)
        if not (self.directory / HEADER).exists():
            write_header(self.directory, given)
            for path in (self.directory / HEADER, self.directory, self.directory.parent):
                _synchronise(path)
        stored = read_header(self.directory)
        check_same(self.directory, stored, given)
        journal = read_journal(self.directory / JOURNAL, stored.checksum)
        size = os.fstat(self._data.fileno()).st_size
        check_data(self.directory, size, journal, self.dtype.itemsize)
        # What was being written when the last writer ended.
        self._data.truncate(journal.count * self.dtype.itemsize)
        self._journal.truncate(journal.size)
        chunk = journal.chunks[-1] if journal.chunks else Chunk(0)
        state = _State(chunk, (), journal.count, journal.size, journal.seal)
        self._state = self._with_room(state)
        self.complete = journal.complete

    def _with_room(self, state: _State) -> _State:
        """The state in which the current chunk can take another record."""
        if state.chunk.rows < self._chunk_rows:
            return state
        full = state.full if state.chunk.end == state.committed else (*state.full, state.chunk)
        return replace(state, chunk=Chunk(state.chunk.end), full=full)

    def _write(self, records: np.ndarray) -> None:
        """Write records that fit into the current chunk."""
        content = np.ascontiguousarray(records).view(np.uint8).data
        chunk = self._state.chunk
        _write_at(self._data, content, chunk.end * self.dtype.itemsize)
        checksum = zlib.crc32(content, chunk.checksum)
        grown = Chunk(chunk.first, chunk.rows + len(records), checksum)
        self._state = self._with_room(replace(self._state, chunk=grown))

    def _commit(self) -> None:
        """Let the journal speak of the records that were written, once they are on the disk."""
        state = self._state
        chunks = [*state.full, state.chunk] if state.chunk.rows else state.full
        if state.chunk.end > state.committed:
            os.fdatasync(self._data.fileno())
            lines, seal = _lines(chunks, state.seal)
            _write_at(self._journal, lines, state.journal_size)
            os.fdatasync(self._journal.fileno())
            size = state.journal_size + len(lines)
            self._state = _State(state.chunk, (), state.chunk.end, size, seal)
        self._committed_at = time.monotonic()

    def _write_complete_journal(self) -> None:
        """Put a journal in place that has a line for each whole chunk and says that this is all."""
        path = self.directory / JOURNAL
        checksum = read_header(self.directory).checksum
        journal = read_journal(path, checksum)
        lines, seal = _lines(journal.chunks, checksum)
        with replacing(path) as temporary:
            temporary.write_bytes(lines + complete_line(journal.count, seal)[0])
            _synchronise(temporary)
        _synchronise(self.directory)

    def _check_records(self, records: np.ndarray) -> None:
        if self.complete:
            raise ValueError(
                problem(
                    f"more records for {str(self.directory)!r}, which is complete",
                    "a store that is not",
                    "write to another path",
                )
            )
        if self._data.closed:
            raise ValueError(
                problem(
                    f"more records for {str(self.directory)!r}, whose writer is closed",
                    "a writer that is open",
                    "append inside its with block",
                )
            )
        if records.dtype != self.dtype or records.ndim != 1:
            raise ValueError(
                problem(
                    f"records of dtype {records.dtype!s:.100} and shape {records.shape}",
                    f"dtype {self.dtype!s:.100} and shape (n,), as the writer was opened",
                    "build them as numpy.empty(n, writer.dtype)",
                )
            )

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        """Write no more after an error, of which the system can forget the half; explain it."""
        try:
            yield
        except OSError as error:
            self.close()
            if error.errno in NO_SPACE:
                raise self._no_space(error) from error
            raise

    def _no_space(self, error: OSError) -> OSError:
        rows = None if self._total is None else max(self._total - self.count, 0)
        missing = "more space" if rows is None else f"{rows * self.dtype.itemsize} more bytes"
        return OSError(
            error.errno,
            problem(
                f"{os.strerror(error.errno)!r} while writing the store {str(self.directory)!r}, "
                f"which is valid up to record {self.count}",
                f"{missing} for it",
                "free space and run again: it goes on there",
            ),
        )


def _locked(path: Path) -> FileIO:
    """Open a journal for the only writer that it may have."""
    file = _opened(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another writer can have finished and replaced the journal in between.
        if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            raise BlockingIOError
    except BlockingIOError:
        file.close()
        raise BlockingIOError(
            problem(
                f"the store {str(path.parent)!r}, which another writer has open",
                "one writer at a time",
                "wait until it has finished, or write to another path",
            )
        ) from None
    return file


def _opened(path: Path) -> FileIO:
    """Open a file for reading and writing as it is; make it if it is not there."""

    return FileIO(path, "r+", opener=lambda _, flags: open_own(path, flags | os.O_CREAT))


def _lines(chunks: Sequence[Chunk], seal: int) -> tuple[bytes, int]:
    """The lines of chunks in a journal, after one with this seal, and the seal of the last one."""
    lines = []
    for chunk in chunks:
        line, seal = chunk.line(seal)
        lines.append(line)
    return b"".join(lines), seal


def _write_at(file: FileIO, content: bytes | memoryview, offset: int) -> None:
    """Write all of `content`, for which the system may need several goes."""
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file.fileno(), rest, offset)
        rest, offset = rest[written:], offset + written


def _synchronise(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
