"""Write more than fits, then again with more room; prints both errors and counts as JSON.

usage: fill.py ROOT STORE
"""

import json
import resource
import sys

import light

database = light.database(sys.argv[1])
database.COMMIT_SECONDS = 0.0
TOTAL = 10_000


def attempt(total=TOTAL):
    try:
        with light.new(database, sys.argv[2], total=total) as writer:
            light.write(writer, TOTAL, 100)
    except OSError as error:
        return {"count": writer.count, "errno": error.errno, "error": str(error)}
    return {"count": writer.count, "errno": None, "error": None}


seen = []
for room, total in ((100_000, TOTAL), (160_000, None), (-1, TOTAL)):
    # No file may be larger: writing on fails with EFBIG, an error of the kernel.
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, -1))
    seen.append(attempt(total))
print(json.dumps(seen))
