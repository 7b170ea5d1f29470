"""Records that follow from their numbers, and keras_kd's stores without Keras."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np

DTYPE = np.dtype([("values", "<f2", (3,)), ("more", "<i8")])
DESCRIPTION = {"teacher": "wise", "outputs": [{"name": "logits", "top_k": None}]}


def database(root):
    """`keras_kd.teachers.stored.database`, without the packages around it, which import Keras."""
    for name in ("keras_kd", "keras_kd.teachers", "keras_kd.teachers.stored"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(root, *name.split(".")))]
        sys.modules[name] = package
    module = importlib.import_module("keras_kd.teachers.stored.database")
    assert "keras" not in sys.modules
    return module


def keys(first, count):
    """The keys of the records from number `first` on, in no order."""
    return np.arange(first, first + count) * 0x1E3779B97F4A7C15 % 2**61 - 2**60


def records(first, count):
    """Keys, fingerprints and outputs of the records from number `first` on."""
    numbers = np.arange(first, first + count)
    made = np.empty(count, DTYPE)
    made["values"] = (numbers[:, None] * 7919 + np.arange(3)) % 2039
    made["more"] = numbers * 0x1E3779B97F4A7C15 % 2**61
    return keys(first, count), (numbers * 40503 % 2**16).astype(np.uint16), made


def new(module, path, **options):
    """A writer of such records."""
    return module.RecordWriter(path, DESCRIPTION, DTYPE.itemsize, has_keys=True, **options)


def write(writer, total, batch=9):
    """Append what is missing of `total` records, and finish."""
    for first in range(writer.count, total, batch):
        writer.append(*records(first, min(batch, total - first)))
    writer.finish()


def check(rows, numbers):
    """Check that these are the records of these numbers."""
    expected = records(0, max(numbers, default=0) + 1)
    numbers = np.asarray(numbers, np.int64)
    np.testing.assert_array_equal(rows.keys, expected[0][numbers])
    np.testing.assert_array_equal(rows.fingerprints, expected[1][numbers])
    assert rows.outputs == [expected[2][number].tobytes() for number in numbers]


def check_all(store, count):
    """Check that a store has the first records, and nothing else."""
    assert store.count == count
    store.verify()
    check(store.read(np.arange(count)), np.arange(count))
    if count:
        np.testing.assert_array_equal(store.find(keys(0, count)), np.arange(count))
