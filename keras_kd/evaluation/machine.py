"""The machine and the package versions of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

from keras_kd._version import __version__

PACKAGES = (
    "keras",
    "tensorflow",
    "tf_keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "tflite-micro",
)
_CPU_NAME = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


def machine() -> dict[str, Any]:
    """The processor, its cores, the system, and the versions of what computed."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {"keras-kd": __version__, **versions(PACKAGES)},
    }


def processor() -> str:
    """The kind of the processor, as Linux calls it."""
    information = Path("/proc/cpuinfo")
    found = _CPU_NAME.search(information.read_text()) if information.exists() else None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
