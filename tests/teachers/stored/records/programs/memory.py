"""Read a large store in random order; prints bytes of memory as JSON.

usage: memory.py ROOT DIRECTORY
"""

import json
import resource
import shutil
import sys

import light
import numpy as np

records = light.records_package(sys.argv[1])
BATCHES, ROWS, SIZE = 200, 256, 20_000
dtype = np.dtype([("values", "<u2", (SIZE // 2,)), ("key", "<i8")])


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


chance = np.random.default_rng(0)
batch = np.zeros(ROWS, dtype)
batch["values"] = chance.integers(0, 2**16, batch["values"].shape)
with records.RecordWriter(sys.argv[2], {}, dtype) as writer:
    for number in range(BATCHES):
        batch["key"] = np.arange(ROWS) + ROWS * number
        writer.append(batch)
    writer.finish()

file = records.RecordFile(sys.argv[2])
before = peak()
assert (file.column("key") == np.arange(file.count)).all()
column = peak() - before
read = 0
for order in (
    chance.permutation(file.count).reshape(-1, 64),
    chance.permutation(file.count)[:, None],
):
    for rows in order:
        found = file.read(rows)
        assert (found["key"] == rows).all()
        read += found.nbytes
# It is large, and test runners keep their files for a while.
shutil.rmtree(sys.argv[2])
print(
    json.dumps(
        {
            "store": dtype.itemsize * file.count,
            "read": read,
            "peak": peak() - before,
            "peak of a column": column,
        }
    )
)
