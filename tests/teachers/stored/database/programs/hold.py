"""Keep a store open for writing until killed. usage: hold.py ROOT STORE"""

import sys
import time

import light

with light.new(light.database(sys.argv[1]), sys.argv[2]) as writer:
    writer.append(*light.records(0, 5))
    print("ready", flush=True)
    time.sleep(600)
