"""Read a large store in random order; prints bytes of memory as JSON.

usage: memory.py ROOT STORE
"""

import json
import os
import resource
import sys

import light
import numpy as np

database = light.database(sys.argv[1])
BATCHES, ROWS, SIZE = 200, 256, 20_000


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


chance = np.random.default_rng(0)
batch = np.zeros(ROWS, [("values", "<u2", (SIZE // 2,))])
batch["values"] = chance.integers(0, 2**16, batch["values"].shape)
before = peak()
with database.RecordWriter(sys.argv[2], {}, SIZE, has_keys=True) as writer:
    for number in range(BATCHES):
        keys = np.arange(ROWS) + ROWS * number
        writer.append(keys, np.zeros(ROWS, np.uint16), batch)
    writer.finish()
written = peak() - before

store = database.Records(sys.argv[2])
before = peak()
read = 0
for order in (
    chance.permutation(store.count).reshape(-1, 64),
    chance.permutation(store.count)[:, None],
):
    for keys in order:
        rows = store.read(store.find(keys))
        assert (rows.keys == keys).all()
        read += sum(map(len, rows.outputs))
# It is large, and test runners keep their files for a while.
os.unlink(sys.argv[2])
print(
    json.dumps(
        {
            "store": SIZE * store.count,
            "read": read,
            "peak while writing": written,
            "peak": peak() - before,
        }
    )
)
