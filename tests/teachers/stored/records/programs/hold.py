"""Keep a store open for writing until killed. usage: hold.py ROOT DIRECTORY"""

import sys
import time

import light

RecordWriter = light.records_package(sys.argv[1]).RecordWriter

with RecordWriter(sys.argv[2], light.HEADER, light.DTYPE) as writer:
    writer.append(light.records(0, 5))
    print("ready", flush=True)
    time.sleep(600)
