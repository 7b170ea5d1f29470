"""Kill writers of a store and look at what they leave.

usage: kill.py ROOT everywhere DIRECTORY
       kill.py ROOT at-random DIRECTORY KILLS SEED

Prints what was seen as JSON; fails at the first store that is neither valid nor refused.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import light

RECORDS = light.records_package(sys.argv[1])
CALLS = ("chmod", "close", "fdatasync", "fsync", "ftruncate", "mkdir", "open", "pwrite", "replace")


def write(directory, total, batch):
    writer = sys.modules["keras_kd.teachers.stored.records.writer"]
    writer.CHUNK_BYTES, writer.COMMIT_SECONDS = 200, 0.0
    with RECORDS.RecordWriter(directory, light.HEADER, light.DTYPE) as writer:
        light.write(writer, total, batch)


def in_child(function):
    """Run `function` in a process of its own and return its number."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def was_killed(child):
    """Wait for a process; whether SIGKILL ended it. Nothing else but success may have."""
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, status
    return killed


def die_at(call, half):
    """Let SIGKILL come at a call to the system; where it writes, after half of its bytes."""
    left = call

    def dying(name, original):
        def function(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                if half and name == "pwrite":
                    file, content, offset = arguments
                    original(file, content[: len(content) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return function

    for name in CALLS:
        setattr(os, name, dying(name, getattr(os, name)))


def valid(directory, at_least=0):
    """How many records of a store are there, all of them right; 0 where it is refused."""
    try:
        file = RECORDS.RecordFile(directory)
    except FileNotFoundError:
        assert at_least == 0
        return 0
    file.verify()
    assert at_least <= file.count
    assert (file.read(range(file.count)) == light.records(0, file.count)).all()
    return file.count


def content(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def everywhere(directory):
    """Kill at each call to the system, go on, and compare with what was never killed."""
    total = 30
    whole, store = directory / "whole", directory / "store"
    write(whole, total, 7)
    counts, call = set(), 0
    killed = True
    while killed:
        call += 1
        for half in (False, True):
            shutil.rmtree(store, ignore_errors=True)

            def dying(call=call, half=half):
                die_at(call, half)
                write(store, total, 4)

            killed = was_killed(in_child(dying))
            counts.add(valid(store))
            write(store, total, 5)
            assert content(store) == content(whole)
    return {"calls": call - 1, "counts": sorted(counts)}


def at_random(directory, kills, seed):
    """Kill after a random time, until the store is complete, and again."""
    total = 5000
    chance = random.Random(seed)
    whole, store = directory / "whole", directory / "store"
    started = time.perf_counter()
    write(whole, total, 50)
    longest = time.perf_counter() - started
    seen = {"kills": 0, "stores": 0, "between": 0}
    count = 0
    while seen["kills"] < kills:
        batch = chance.randrange(1, 60)
        child = in_child(lambda: write(store, total, batch))  # noqa: B023
        time.sleep(chance.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        if was_killed(child):
            seen["kills"] += 1
        before, count = count, valid(store, count)
        seen["between"] += before < count < total
        if count and RECORDS.RecordFile(store).complete:
            assert content(store) == content(whole)
            shutil.rmtree(store)
            seen["stores"] += 1
            count = 0
    return seen


if __name__ == "__main__":
    directory = Path(sys.argv[3])
    if sys.argv[2] == "everywhere":
        print(json.dumps(everywhere(directory)))
    else:
        print(json.dumps(at_random(directory, int(sys.argv[4]), int(sys.argv[5]))))
