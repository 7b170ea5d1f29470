"""Where and with what a benchmark ran: figures mean little without it."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

PACKAGES = {"tensorflow": "TensorFlow", "keras": "Keras", "torch": "PyTorch"}
# What decides how fast a CPU multiplies matrices, as Linux calls it, widest first.
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "asimd")


def describe() -> str:
    """One line: processor, cores, memory, versions of what is installed, and the date."""
    cores = os.cpu_count()
    parts = [
        f"{processor()}, {cores} core{'' if cores == 1 else 's'}, {memory():.0f} GiB of memory",
        ", ".join([platform.system(), f"Python {platform.python_version()}", *versions()]),
        datetime.now(timezone.utc).date().isoformat(),
    ]
    return "; ".join(parts)


def processor() -> str:
    """The processor's name and widest instructions, as far as the system tells."""
    facts = _processor_facts()
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in facts:
        # Names such as "AMD EPYC" are the same for many generations.
        name = f"{name} (family {facts['cpu family']}, model {facts.get('model', '?')})"
    widest = [flag for flag in INSTRUCTIONS if flag in instructions()]
    return f"{name} with {widest[0].upper()}" if widest else name


def instructions() -> set[str]:
    """What sets of instructions the processor has, as Linux names them; empty where unknown."""
    facts = _processor_facts()
    return set((facts.get("flags") or facts.get("Features") or "").split())


def memory() -> float:
    """The machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def versions() -> list[str]:
    """The names and versions of the frameworks that are installed."""
    found = []
    for package, name in PACKAGES.items():
        try:
            found.append(f"{name} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor_facts() -> dict[str, str]:
    """What Linux says of the first core."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first_core = path.read_text(encoding="utf-8").split("\n\n")[0]
    lines = (line.partition(":") for line in first_core.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
