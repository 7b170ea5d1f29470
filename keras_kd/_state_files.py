"""The state of unfinished work in a directory, from which it resumes after an interruption."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._archives import check_members
from keras_kd._checks import one_line, problem
from keras_kd._files import check_own, open_own, replacing

if TYPE_CHECKING:
    import numpy as np

_LOCK = "in_use"
# Of this process: the system's locks do not keep a process from itself.
_used: set[str] = set()
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class StateFiles:
    """Files of JSON and of arrays in a directory; each is whole or not there.

    Args:
        directory: where; it may be missing.
        work: what writes them, for messages: "a pipeline".

    Raises:
        NotADirectoryError: if the directory is a file.
    """

    def __init__(self, directory: str | os.PathLike, work: str) -> None:
        self.directory = Path(directory)
        self._work = work
        _check_directory(self.directory)

    def check_writable(self) -> None:
        """Find out before any work whether its results can be kept.

        Raises:
            PermissionError: if nothing can be written in the directory.
        """
        if not self.directory.exists():
            return
        try:
            with tempfile.TemporaryFile(dir=self.directory):
                pass
        except OSError as error:
            raise _not_writable(self.directory, error) from error

    def write_json(self, name: str, content: Any) -> None:
        """Replace a file of JSON.

        Raises:
            OSError: if it cannot be written; the file before it is kept.
        """
        with replacing(self.directory / name) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def read_json(self, name: str) -> Any:
        """The content of a file of JSON; None if there is no such file.

        Raises:
            ValueError: if it cannot be read.
        """
        path = self.directory / name
        try:
            check_own(path)
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self.unreadable(path, error) from error

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Replace a file of arrays, which is on the disk when this returns.

        Raises:
            OSError: if it cannot be written; the file before it is kept.
        """
        import numpy as np

        path = self.directory / name
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        _flush_names(path.parent)

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """The content of a file of arrays; each has a checksum, which is compared.

        Raises:
            ValueError: if it cannot be read.
        """
        import numpy as np

        path = self.directory / name
        try:
            check_own(path)
            check_members(path)
            with np.load(path) as arrays:
                return {key: arrays[key] for key in arrays.files}
        except Exception as error:
            # Anything may be in a damaged file.
            raise self.unreadable(path, error) from error

    def write_weights(self, name: str, model: Any) -> None:
        """Replace a file of arrays by the weights of a model of either Keras.

        Raises:
            OSError: if it cannot be written; the file before it is kept.
        """
        arrays = {f"weight_{i}": value for i, value in enumerate(model.get_weights())}
        self.write_arrays(name, arrays)

    def restore_weights(self, name: str, model: Any) -> None:
        """Give a model the weights that were kept.

        Raises:
            ValueError: if their file cannot be read, or is of another model.
        """
        arrays = self.read_arrays(name)
        try:
            model.set_weights([arrays[f"weight_{i}"] for i in range(len(arrays))])
        except (KeyError, ValueError) as error:
            raise self.unreadable(self.directory / name, error) from error

    def unreadable(self, path: Path, error: object) -> ValueError:
        """The error for a file of this directory that cannot be read."""
        return problem(
            f"{str(path)!r}, which cannot be read ({one_line(error)[:200]})",
            f"a file that {self._work} has written there",
            "delete the directory to begin anew, or pass another one",
        )


def digest_of(arrays: Any) -> str:
    """16 hexadecimal digits for the shapes, types and values of arrays, in any nesting."""
    import keras
    import numpy as np

    digest = hashlib.sha256()
    for array in keras.tree.flatten(arrays):
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()[:16]


def directory_of(parent: Path, identity: Any) -> Path:
    """The directory below `parent` of unfinished work that depends on `identity`.

    Those of other work, which would give other results, are removed.

    Args:
        parent: where; it may be missing. No other process may use it meanwhile.
        identity: what the work depends on, as JSON types.

    Raises:
        ValueError: if one of the two is a link: nothing is removed or written elsewhere.
    """
    text = json.dumps(identity, sort_keys=True)
    directory = parent / hashlib.sha256(text.encode()).hexdigest()[:16]
    for path in (parent, directory):
        if path.is_symlink():
            raise problem(
                f"{str(path)!r}, which is a symbolic link",
                "a directory of its own, since nothing is removed or written elsewhere",
                "delete the link, or pass another directory",
            )
    for other in parent.glob("*"):
        if other != directory and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)
    return directory


@contextmanager
def using(directory: str | os.PathLike | None, work: str) -> Iterator[None]:
    """Keep other processes, and other calls in this one, from working in a directory meanwhile.

    The system takes the lock back when the process ends, however it ends. Where the file system
    has no locks, or this process may not write, nothing is locked. A file `in_use` is in the
    directory meanwhile. A directory that is missing is made, and removed if it is still empty in
    the end.

    Args:
        directory: where; None: nowhere, and nothing is locked.
        work: what works there, for messages: "a pipeline".

    Raises:
        BlockingIOError: if another one works there.
        NotADirectoryError: if the directory, or what should hold it, is a file.
        PermissionError: if it is missing and cannot be made.
    """
    if directory is None:
        yield
        return
    _check_directory(Path(directory))
    name = os.path.realpath(directory)
    # Opened once only: closing it anywhere in this process would end the lock.
    if name in _used:
        raise _taken(directory, work)
    _used.add(name)
    directory = Path(directory)
    is_new = not directory.exists()
    file = None
    try:
        file = _locked(directory, work)
        yield
    finally:
        if file is not None:
            # Before it is closed, so that it is not the one of another process.
            if _is_at(directory / _LOCK, file):
                with suppress(OSError):
                    (directory / _LOCK).unlink()
            os.close(file)
        if is_new:
            # Only if nothing is in it.
            with suppress(OSError):
                directory.rmdir()
        _used.discard(name)


def _locked(directory: Path, work: str) -> int | None:
    """A file that is open and locked, or None where that cannot be."""
    path = directory / _LOCK
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(directory, error) from error
        try:
            file = open_own(path, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            # The one that had made the directory has removed it.
            continue
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                return None
            raise
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _TAKEN:
                os.close(file)
                raise _taken(directory, work) from error
        # The one that had it removes it in the end.
        if _is_at(path, file):
            return file
        os.close(file)


def _is_at(path: Path, file: int) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(file: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        # Not flock: worker processes that outlive a killed one would keep that.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _taken(directory: str | os.PathLike, work: str) -> OSError:
    return problem(
        f"the directory {str(directory)!r}, in which {work} is running",
        "one at a time",
        "wait until that one has ended, end it, or pass another directory",
        kind=BlockingIOError,
    )


def _check_directory(directory: Path) -> None:
    found = next((path for path in (directory, *directory.parents) if path.exists()), None)
    if found is not None and not found.is_dir():
        which = "which is a file" if found == directory else f"but {str(found)!r} is a file"
        raise problem(
            f"the directory {str(directory)!r}, {which}",
            "a directory, or a path that does not exist yet",
            "pass another path",
            kind=NotADirectoryError,
        )


def _not_writable(directory: Path, error: OSError) -> OSError:
    return problem(
        f"the directory {str(directory)!r}, where nothing can be written ({error.strerror})",
        "a directory that you may write to",
        "pass another one",
        kind=PermissionError,
    )


def _flush_names(directory: Path) -> None:
    """Write the names of a directory's files to the disk, where the system can."""
    if os.name == "nt":
        return
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
