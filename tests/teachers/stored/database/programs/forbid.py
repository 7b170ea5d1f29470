"""Write as somebody who may not. usage: forbid.py ROOT STORE"""

import json
import os
import sys

import light

database = light.database(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    light.new(database, sys.argv[2])
except OSError as error:
    print(json.dumps([type(error).__name__, str(error)]))
