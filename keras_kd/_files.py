"""Writing files so that nothing half-written is ever found under their names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_kd._checks import problem


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there takes its place at the end.

    Directories that are missing are made.

    If the body raises, the temporary file goes and what was at `path` stays.

    Raises:
        OSError: if the directory of `path` cannot be written, or `path` is a directory.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            problem(
                f"the path {str(path)!r}, which is a directory",
                "the path of a file",
                "add the name of a file to it",
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp allows only the owner; a file written by open() follows the umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
