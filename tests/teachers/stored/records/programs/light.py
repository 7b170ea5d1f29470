"""Records that follow from their numbers, and keras_kd's records without Keras."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np

DTYPE = np.dtype([("values", "<f2", (3,)), ("key", "<i8")])
HEADER = {"teacher": "wise", "outputs": [{"name": "logits", "top_k": None}]}


def records_package(root):
    """`keras_kd.teachers.stored.records`, without the packages around it, which import Keras."""
    for name in ("keras_kd", "keras_kd.teachers", "keras_kd.teachers.stored"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(root, *name.split(".")))]
        sys.modules[name] = package
    module = importlib.import_module("keras_kd.teachers.stored.records")
    assert "keras" not in sys.modules
    return module


def records(first, count):
    """The records from number `first` on."""
    numbers = np.arange(first, first + count)
    made = np.empty(count, DTYPE)
    made["values"] = (numbers[:, None] * 7919 + np.arange(3)) % 2039
    made["key"] = numbers * 0x1E3779B97F4A7C15 % 2**61
    return made


def write(writer, total, batch=9):
    """Append what is missing of `total` records, and finish."""
    for first in range(writer.count, total, batch):
        writer.append(records(first, min(batch, total - first)))
    writer.finish()
