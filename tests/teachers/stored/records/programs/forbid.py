"""Write as somebody who may not. usage: forbid.py ROOT DIRECTORY"""

import json
import os
import sys

import light

records = light.records_package(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    records.RecordWriter(sys.argv[2], light.HEADER, light.DTYPE)
except OSError as error:
    print(json.dumps([type(error).__name__, str(error)]))
