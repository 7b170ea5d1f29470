"""Reading records."""

from __future__ import annotations

import mmap
import os
import weakref
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._files import open_own
from keras_kd.teachers.stored.records.header import read_header
from keras_kd.teachers.stored.records.journal import JOURNAL, read_journal
from keras_kd.teachers.stored.records.layout import RECORDS, check_data, check_store

# Mapped pages count as memory of this process until they are given back.
_RESIDENT_BYTES = 128 << 20
# Touching a byte maps its neighbours too, from one multiple of this to the next.
_FAULT_BYTES = 64 << 10


class RecordFile:
    """The whole records of a store, complete or not.

    They stay on the disk: a record is read when it is asked for. Checksums are per chunk of about
    a mebibyte, and compared when a record of the chunk is first read. Threads may read at the same
    time; a pickled one opens the same path again.

    Args:
        directory: the store.

    Attributes:
        directory: the store, an absolute path.
        header: what the writer noted.
        dtype: of a record.
        count: how many whole records there are.
        complete: whether the writer has finished.

    Raises:
        FileNotFoundError: if there is no store.
        NotADirectoryError: if the path is a file.
        ValueError: if it is damaged, or of another version.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        # The working directory can be another one when this is pickled.
        self.directory = Path(directory).absolute()
        check_store(self.directory)
        header = read_header(self.directory)
        self.header = header.entries
        self.dtype = header.dtype
        self._journal = read_journal(self.directory / JOURNAL, header.checksum)
        self.count = self._journal.count
        self.complete = self._journal.complete
        self._firsts = np.array([chunk.first for chunk in self._journal.chunks], dtype=np.int64)
        # Marking a chunk twice does no harm, so that threads need no lock.
        self._sound = np.zeros(len(self._firsts), dtype=bool)
        self._file = open_own(self.directory / RECORDS, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._check_size()
        self._map = self._mapped()
        self._touched = 0

    def __reduce__(self) -> tuple:
        return type(self), (self.directory,)

    def read(self, rows: Any) -> np.ndarray:
        """Some records, by their numbers.

        Args:
            rows: integers of shape `(n,)`, in any order.

        Returns:
            A structured array of shape `(n,)`, a copy.

        Raises:
            TypeError: if the numbers are no integers.
            ValueError: if there is no such record, or one of them is damaged; the message names the
                file, the chunk and its records.
        """
        rows = self._check_rows(rows)
        if rows.size == 0:
            return np.empty(0, self.dtype)
        chunks = np.searchsorted(self._firsts, rows, side="right") - 1
        for chunk in np.unique(chunks[~self._sound[chunks]]):
            self._chunk(int(chunk))
        # Reading behind the end of a map, of a file that was cut since, would end the process.
        self._check_size()
        content = np.frombuffer(self._map, np.uint8).reshape(self.count, self.dtype.itemsize)
        records = content.take(rows, axis=0).view(self.dtype)[:, 0]
        self._give_back(rows.size)
        return records

    def column(self, name: str) -> np.ndarray:
        """One field of all records, of shape `(count, ...)`.

        The whole file is read and checked for it, a chunk at a time.

        Raises:
            ValueError: if a record is damaged.
        """
        field = self.dtype[name]
        column = np.empty((self.count, *field.shape), field.base)
        for number, chunk in enumerate(self._journal.chunks):
            column[chunk.first : chunk.end] = self._chunk(number)[name]
        return column

    def verify(self) -> None:
        """Read everything and compare the checksums.

        Raises:
            ValueError: naming the first damaged chunk.
        """
        for number in range(len(self._firsts)):
            self._chunk(number)

    def _chunk(self, number: int) -> np.ndarray:
        """The records of a chunk, checked; not mapped, so that they take no lasting memory."""
        chunk = self._journal.chunks[number]
        size = self.dtype.itemsize
        content = bytearray(chunk.rows * size)
        done = 0
        while done < len(content):
            read = os.preadv(self._file, [memoryview(content)[done:]], chunk.first * size + done)
            if read == 0:
                break
            done += read
        if done < len(content) or zlib.crc32(content) != chunk.checksum:
            raise ValueError(
                problem(
                    f"{str(self.directory / RECORDS)!r}, whose chunk {number} is damaged: records "
                    f"{chunk.first} to {chunk.end - 1}, bytes {chunk.first * size} to "
                    f"{chunk.end * size - 1}, do not have their checksum",
                    "the records as they were written",
                    "restore the file from a copy, or delete the directory and store the outputs "
                    "again",
                )
            )
        self._sound[number] = True
        return np.frombuffer(content, self.dtype)

    def _mapped(self) -> mmap.mmap | None:
        if self.count == 0:
            return None
        length = self.count * self.dtype.itemsize
        content = mmap.mmap(self._file, length, access=mmap.ACCESS_READ)
        content.madvise(mmap.MADV_RANDOM)
        return content

    def _give_back(self, rows: int) -> None:
        """Unmap the pages that were read, once they can be many; the system keeps them cached."""
        if self._map is None or len(self._map) <= _RESIDENT_BYTES:
            return
        self._touched += rows * (self.dtype.itemsize + 2 * _FAULT_BYTES)
        if self._touched > _RESIDENT_BYTES:
            self._touched = 0
            self._map.madvise(mmap.MADV_DONTNEED)

    def _check_rows(self, rows: Any) -> np.ndarray:
        rows = np.asarray(rows)
        if rows.size == 0:
            return np.empty(0, np.int64)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise TypeError(
                problem(
                    f"numbers of records of shape {rows.shape} and dtype {rows.dtype}",
                    "integers of shape (n,)",
                    "pass an array of record numbers",
                )
            )
        outside = rows[(rows < 0) | (rows >= self.count)]
        if outside.size:
            raise ValueError(
                problem(
                    f"the record number {outside[0]} of {str(self.directory)!r}",
                    f"a number below {self.count}, as many records as there are",
                    "ask for records that were stored",
                )
            )
        return rows.astype(np.int64, copy=False)

    def _check_size(self) -> None:
        size = os.fstat(self._file).st_size
        check_data(self.directory, size, self._journal, self.dtype.itemsize)
