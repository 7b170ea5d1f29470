"""A crash-safe file of records of one size, read from the disk as they are asked for.

A store is a directory of three files: `store.json`, the header (`header`); `records.bin`, the
records one after another (`file`, `writer`); `journal`, which says how many of them are whole
(`journal`). Records reach the disk before the journal speaks of them. Whatever ends the writer, the
journal's records are there, and what comes after them is written again.
"""

from keras_kd.teachers.stored.records.file import RecordFile
from keras_kd.teachers.stored.records.writer import RecordWriter

__all__ = ["RecordFile", "RecordWriter"]
