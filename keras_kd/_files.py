"""Writing files and directories so that nothing half-written is ever found under their names."""

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


def check_output(output: Path) -> None:
    """Find out before hours of work whether the results can be written.

    Raises:
        FileNotFoundError: if the directory that should hold `output` is not there.
        NotADirectoryError: if `output`, or what should hold it, is a file.
        PermissionError: if it cannot be written.
    """
    if not output.parent.exists():
        raise FileNotFoundError(
            problem(
                f"output={str(output)!r} in a directory that does not exist",
                "a directory that exists",
                f"make it first: mkdir -p {output.parent}",
            )
        )
    for path in (output, output.parent):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(
                problem(
                    f"output={str(output)!r}, but {path} is a file",
                    "a directory, or a name that is free",
                    "choose another name",
                )
            )
    try:
        with tempfile.TemporaryFile(dir=output if output.exists() else output.parent):
            pass
    except OSError as error:
        raise PermissionError(
            problem(
                f"output={str(output)!r}, where nothing can be written ({error.strerror})",
                "a directory that you may write to",
                "choose another one",
            )
        ) from error


@contextmanager
def filling(output: Path) -> Iterator[Path]:
    """Yield a temporary directory; its files move to `output` when the body is done.

    If the body raises, nothing has been written to `output`. Files of the same names are replaced,
    each at once; others in `output` stay.
    """
    # Files can only be moved at once within a file system, and `output` can be a mounted one.
    place = output if output.is_dir() else output.parent
    with tempfile.TemporaryDirectory(dir=place, prefix=f".{output.name}-") as name:
        temporary = Path(name)
        yield temporary
        for path in sorted(path for path in temporary.rglob("*") if path.is_file()):
            target = output / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
