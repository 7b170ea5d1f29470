"""The journal of a store: lines that say which records are whole, and what they add up to.

A line names a chunk, `first row, rows, CRC-32 of their bytes`, and ends in a seal, the CRC-32 of
everything before it: of the header, of every earlier line and of its own text. A line can therefore
not be lost from the middle, move, or belong to another store. A later line with the same first row
replaces an earlier one, because the chunk has grown since. The last line of a complete store says
so.
"""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from keras_kd._checks import problem
from keras_kd._files import open_own

JOURNAL = "journal"
_LONGEST_LINE = 100
_NUMBER = rb"(0|[1-9][0-9]{0,17})"
_CHUNK = re.compile(rb"%s %s ([0-9a-f]{8})" % (_NUMBER, _NUMBER))
_COMPLETE = re.compile(rb"complete %s" % _NUMBER)


@dataclass(frozen=True)
class Chunk:
    """Some successive records.

    Attributes:
        first: the number of the first of them.
        rows: how many they are.
        checksum: CRC-32 of their bytes.
    """

    first: int
    rows: int = 0
    checksum: int = 0

    @property
    def end(self) -> int:
        """The number of the record that comes after them."""
        return self.first + self.rows

    def line(self, seal: int) -> tuple[bytes, int]:
        """Its line in the journal, after one with this seal, and the line's own seal."""
        return _sealed(b"%d %d %08x" % (self.first, self.rows, self.checksum), seal)


@dataclass(frozen=True)
class Journal:
    """What a journal says.

    Attributes:
        chunks: of successive records, from the first record on.
        complete: whether nothing will come after them.
        size: bytes of the journal up to the end of its last whole line.
        seal: of that line.
    """

    chunks: tuple[Chunk, ...]
    complete: bool
    size: int
    seal: int

    @property
    def count(self) -> int:
        """How many records are whole."""
        return self.chunks[-1].end if self.chunks else 0


def complete_line(count: int, seal: int) -> tuple[bytes, int]:
    """The last line of a store of `count` records, after one with this seal, and its own seal."""
    return _sealed(b"complete %d" % count, seal)


def read_journal(path: Path, seal: int) -> Journal:
    """Read a journal that can come from anywhere.

    The end of a line that was being written when its writer was killed is no part of it.

    Args:
        path: of the journal.
        seal: the checksum of the header.

    Raises:
        ValueError: if a line is damaged; the message says which records are whole before it.
    """
    chunks: list[Chunk] = []
    complete, size = False, 0
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
            if not (line.endswith(b"\n") or complete or len(line) == _LONGEST_LINE):
                break
            text = line[:-10]
            sealed, seal_of_line = _sealed(text, seal)
            chunk, last = _CHUNK.fullmatch(text), _COMPLETE.fullmatch(text)
            whole = sealed == line and not complete
            if whole and chunk:
                whole = _add(chunks, Chunk(int(chunk[1]), int(chunk[2]), int(chunk[3], 16)))
            elif whole and last:
                complete = True
                whole = int(last[1]) == (chunks[-1].end if chunks else 0)
            if not whole or not (chunk or last):
                raise _damaged(path, number, chunks, size)
            seal, size = seal_of_line, size + len(line)
    return Journal(tuple(chunks), complete, size, seal)


def _add(chunks: list[Chunk], chunk: Chunk) -> bool:
    """Take in the chunk of the next line, if it can be the next one."""
    if chunks and chunk.first == chunks[-1].first and chunk.rows > chunks[-1].rows:
        chunks[-1] = chunk
        return True
    if chunk.first == (chunks[-1].end if chunks else 0) and chunk.rows > 0:
        chunks.append(chunk)
        return True
    return False


def _sealed(text: bytes, seal: int) -> tuple[bytes, int]:
    seal = zlib.crc32(text, seal)
    return b"%s %08x\n" % (text, seal), seal


def _damaged(path: Path, number: int, chunks: list[Chunk], size: int) -> ValueError:
    count = chunks[-1].end if chunks else 0
    return ValueError(
        problem(
            f"{str(path)!r}, whose line {number} is damaged; {count} records are whole before it",
            "the journal as it was written",
            f"restore the file from a copy, or cut it to its first {size} bytes and store the "
            "outputs again, which goes on after these records",
        )
    )
