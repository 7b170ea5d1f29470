"""Write and read where Python lacks what only some systems have. usage: elsewhere.py ROOT STORE"""

import json
import os
import sys

import light

sys.modules["fcntl"] = None
for name in ("fdatasync", "preadv", "pwrite", "O_NOFOLLOW", "O_NONBLOCK"):
    delattr(os, name)
database = light.database(sys.argv[1])
with light.new(database, sys.argv[2]) as writer:
    light.write(writer, 20)
light.check_all(database.Records(sys.argv[2]), 20)
print(json.dumps("fcntl" in vars(database)))
