"""Limits of memory and time for processes of this package, and reports of how they ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# Both in the environment; 0 means no limit.
SECONDS = "KERAS_KD_SECONDS"
MEGABYTES = "KERAS_KD_MEGABYTES"

SECONDS_OF_A_BATCH = 120

_MEGABYTE = 2**20
_SHARE = 0.8
_FEWEST_BYTES = 512 * _MEGABYTE
_UNLIMITED = 2**62
# Of seconds and megabytes; timers take no more.
_MOST = 1e9
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")

_armed: float | None = None
# Where a process that another one watches writes what it is doing.
_watcher: Callable[[str], None] | None = None


def most_seconds(usual: float) -> float:
    """How long something may take: `usual`, unless the user has set KERAS_KD_SECONDS."""
    return _setting(SECONDS, usual)


def most_bytes() -> float:
    """How much memory a process may take: four fifths of what is free, or KERAS_KD_MEGABYTES."""
    megabytes = _setting(MEGABYTES, -1.0)
    if megabytes >= 0:
        return megabytes * _MEGABYTE if megabytes else float("inf")
    return max(_FEWEST_BYTES, _SHARE * free_bytes())


def free_bytes() -> int:
    """How many bytes programs can still take: of this machine, and of the container around it."""
    return min([_free_in_machine(), *_free_in_cgroups()])


def held_bytes(process: int) -> int:
    """How many bytes a process holds that are not those of files; 0 where that is not known."""
    return _fields(Path(f"/proc/{process}/status"), ("RssAnon", "VmSwap"))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM if the block takes longer, even if it is stuck in native code.

    For processes of this package only: the timer and the signal are those of the whole process.

    Args:
        seconds: 0 for no limit.
    """
    global _armed
    previous, _armed = _armed, seconds
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    renew()
    try:
        yield
    finally:
        _armed = previous
        signal.setitimer(signal.ITIMER_REAL, previous or 0)


def renew() -> None:
    """Begin the time of the `time_limit` around this again; nothing where there is none."""
    if _armed is not None:
        signal.setitimer(signal.ITIMER_REAL, _armed)


def be_watched(tell: Callable[[str], None]) -> None:
    """From now on report what `watched` gets to the process that waits for the end of this one."""
    global _watcher
    _watcher = tell


def is_watched() -> bool:
    """Whether another process waits for the end of this one."""
    return _watcher is not None


@contextmanager
def watched(what: str, seconds: float) -> Iterator[None]:
    """Name what came from elsewhere and may crash this process or never end, while it runs.

    Only where another process watches this one: it is ended after the time, and what is named
    is part of the error. Elsewhere this does nothing.

    Args:
        what: a clause, for example "the model 'x.keras' while it is loaded".
        seconds: how long it may take, unless KERAS_KD_SECONDS is set.
    """
    if _watcher is None:
        yield
        return
    _watcher(what)
    try:
        with time_limit(most_seconds(seconds)):
            yield
    finally:
        _watcher("")


def watched_batch(model: str, examples: int) -> AbstractContextManager[None]:
    """`watched` for a model that runs on a batch: two minutes, and a second for each example."""
    what = f"the model {model!r} while it runs on {examples} examples"
    return watched(what, SECONDS_OF_A_BATCH + examples)


def signal_name(number: int) -> str:
    """For example "signal 11 (SIGSEGV)"."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _setting(name: str, usual: float) -> float:
    try:
        value = float(os.environ.get(name, usual))
    except ValueError:
        return usual
    return min(value, _MOST) if 0 <= value < float("inf") else usual


def _free_in_machine() -> int:
    return _fields(_MEMINFO, ("MemAvailable", "SwapFree")) or _UNLIMITED


def _free_in_cgroups() -> Iterator[int]:
    """What the control groups of this process leave to it, in versions 1 and 2 of cgroups."""
    for line in _lines(_CGROUP):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        names, cache = ("memory.max", "memory.current"), "inactive_file"
        root = _CGROUPS
        if controllers:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cache = "total_inactive_file"
            root = _CGROUPS / controllers
        group = root / path.lstrip("/")
        # Inside a container the path may be that of the host, and the group is the root.
        for place in {root, group, *group.parents} - {*root.parents}:
            limit, used = (_number(place / name) for name in names)
            if limit is not None and used is not None:
                # The cache of files counts as used, but is given back.
                cached = _fields(place / "memory.stat", (cache,), unit=1)
                yield max(0, limit - used + cached)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" is no number.
        return None


def _fields(path: Path, names: tuple[str, ...], unit: int = 1024) -> int:
    """The sum of some lines such as "RssAnon:   1234 kB"."""
    found = 0
    for line in _lines(path):
        words = line.replace(":", " ").split()
        if words and words[0] in names:
            found += int(words[1]) * unit
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
