"""Kill writers of a store and look at what they leave.

usage: kill.py ROOT everywhere DIRECTORY
       kill.py ROOT at-random DIRECTORY KILLS SEED

Prints what was seen as JSON; fails at the first store that is neither valid nor refused.
"""

import _sqlite3
import ctypes
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import light

DATABASE = light.database(sys.argv[1])
# The calls to the system that SQLite lets a program replace, those that change something on a disk.
CALLS = {
    "open": (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "ftruncate": (ctypes.c_int, ctypes.c_int, ctypes.c_int64),
    "write": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t),
    "pwrite": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64),
    "pwrite64": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64),
    "unlink": (ctypes.c_int, ctypes.c_char_p),
    "close": (ctypes.c_int, ctypes.c_int),
}


class Vfs(ctypes.Structure):
    """`sqlite3_vfs` of the third version."""


METHOD = ctypes.c_void_p
Vfs._fields_ = [
    ("version", ctypes.c_int),
    ("size", ctypes.c_int),
    ("longest", ctypes.c_int),
    ("next", ctypes.c_void_p),
    ("name", ctypes.c_char_p),
    ("data", ctypes.c_void_p),
    ("methods", METHOD * 13),
    (
        "set_call",
        ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Vfs), ctypes.c_char_p, ctypes.c_void_p),
    ),
    ("get_call", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Vfs), ctypes.c_char_p)),
]


def write(store, total, batch):
    DATABASE.COMMIT_SECONDS = 0.0
    with light.new(DATABASE, store) as writer:
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
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
    vfs = library.sqlite3_vfs_find(None)
    left = call

    def dying(name, original):
        def function(*arguments):
            nonlocal left
            left -= 1
            if left == 0:
                if half and "write" in name:
                    file, content, size, *offset = arguments
                    original(file, content, size // 2, *offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        return function

    kept = []
    for name, types in CALLS.items():
        address = vfs.contents.get_call(vfs, name.encode())
        if address:
            kind = ctypes.CFUNCTYPE(*types, use_errno=True)
            function = kind(dying(name, kind(address)))
            kept.append(function)
            vfs.contents.set_call(vfs, name.encode(), ctypes.cast(function, ctypes.c_void_p))
    return kept


def valid(store, at_least=0):
    """How many records of a store are there, all of them right; 0 where it is refused."""
    try:
        records = DATABASE.Records(store)
    except FileNotFoundError:
        assert at_least == 0
        return 0
    assert at_least <= records.count
    light.check_all(records, records.count)
    records.close()
    return records.count


def check_complete(store, total):
    """Check that nothing shows whether the writing was interrupted."""
    assert [path.name for path in store.parent.iterdir()] == [store.name]
    records = DATABASE.Records(store)
    assert records.complete
    assert records.description == light.DESCRIPTION
    light.check_all(records, total)
    records.close()


def everywhere(directory):
    """Kill at each call to the system, go on, and compare with what should be there."""
    total, store = 12, directory / "store"
    counts, call, journals = set(), 0, 0
    killed = True
    while killed:
        call += 1
        for half in (False, True):
            store.unlink(missing_ok=True)

            def dying(call=call, half=half):
                kept = die_at(call, half)
                write(store, total, 4)
                del kept

            killed = was_killed(in_child(dying))
            journals += store.with_name("store-journal").exists()
            counts.add(valid(store))
            write(store, total, 5)
            check_complete(store, total)
    return {"calls": call - 1, "counts": sorted(counts), "journals": journals}


def at_random(directory, kills, seed):
    """Kill after a random time, until the store is complete, and again."""
    total = 5000
    chance = random.Random(seed)
    store = directory / "store"
    started = time.perf_counter()
    write(store, total, 50)
    longest = time.perf_counter() - started
    store.unlink()
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
        if count == total:
            write(store, total, 1)
            check_complete(store, total)
            store.unlink()
            seen["stores"] += 1
            count = 0
    return seen


if __name__ == "__main__":
    directory = Path(sys.argv[3])
    if sys.argv[2] == "everywhere":
        print(json.dumps(everywhere(directory)))
    else:
        print(json.dumps(at_random(directory, int(sys.argv[4]), int(sys.argv[5]))))
