"""Atomic writing of files and directories: complete, or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from keras_kd._checks import problem, three_parts

# What every SQLite database begins with.
SQLITE = b"SQLite format 3\0"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROCESSES = Path("/proc")
# What is written, the machine, the process that writes it and when that began, something random.
_TEMPORARY = re.compile(
    r"\.(?P<name>.+)~(?P<host>[0-9a-f]{8})?~((?P<process>\d+)-(?P<began>\d+))?~[0-9a-f]{8}"
    r"(?P<suffix>\..*)?",
    re.DOTALL,
)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there takes its place at the end.

    Directories that are missing are made. A link at `path` is replaced, not followed.

    If the body raises, the temporary file goes and what was at `path` stays. What a process that
    was killed has left of the same file goes, too.

    Raises:
        OSError: if the directory of `path` cannot be written, `path` is a directory, or the disk is
            full.
    """
    path = Path(path)
    if path.is_dir():
        raise problem(
            f"the path {str(path)!r}, which is a directory",
            "the path of a file",
            "add the name of a file to it",
            kind=IsADirectoryError,
        )
    with _explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path.parent, path.stem, path.suffix)
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def check_output(output: Path, *, is_file: bool = False) -> None:
    """Find out before hours of work whether the results can be written.

    Args:
        output: the directory for them.
        is_file: whether that is a file, and no directory.

    Raises:
        FileNotFoundError: if the directory that should hold `output` is not there.
        IsADirectoryError: if it is a file, and there is a directory.
        NotADirectoryError: if `output`, or what should hold it, is a file.
        PermissionError: if it cannot be written.
    """
    if not output.parent.exists():
        raise problem(
            f"output={str(output)!r} in a directory that does not exist",
            "a directory that exists",
            f"make it first: mkdir -p {output.parent}",
            kind=FileNotFoundError,
        )
    if is_file and output.is_dir():
        raise problem(
            f"output={str(output)!r}, which is a directory",
            "the path of a file",
            "choose another name, or add the name of a file to it",
            kind=IsADirectoryError,
        )
    for path in (output.parent,) if is_file else (output, output.parent):
        if path.exists() and not path.is_dir():
            raise problem(
                f"output={str(output)!r}, but {path} is a file",
                "a directory, or a name that is free",
                "choose another name",
                kind=NotADirectoryError,
            )
    try:
        with tempfile.TemporaryFile(dir=output if output.is_dir() else output.parent):
            pass
    except OSError as error:
        raise problem(
            f"output={str(output)!r}, where nothing can be written ({error.strerror})",
            "a directory that you may write to",
            "choose another one",
            kind=PermissionError,
        ) from error


@contextmanager
def filling(output: Path) -> Iterator[Path]:
    """Yield a temporary directory; its files move to `output` when the body is done.

    If the body raises, nothing has been written to `output`. Files of the same names are replaced,
    each at once; others in `output` stay. What a process that was killed has left goes.

    Raises:
        OSError: if the disk is full.
        ValueError: if a directory in `output` is a link.
    """
    # Files can only be moved at once within a file system, and `output` can be a mounted one.
    place = output if output.is_dir() else output.parent
    temporary = _temporary(place, output.name)
    with _explaining(output):
        try:
            temporary.mkdir()
            yield temporary
            files = sorted(path for path in temporary.rglob("*") if path.is_file())
            targets = [output / path.relative_to(temporary) for path in files]
            for target in targets:
                _check_no_link(output, target.parent)
            for path, target in zip(files, targets, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def open_own(path: Path, flags: int) -> int:
    """Open a file of a directory that can come from anywhere; for `os.open`'s flags.

    What is read or written is in the directory and nowhere else: links are not followed, nothing
    is waited for, and a file that has another name elsewhere is not written.

    Raises:
        OSError: if there is no such file, or it cannot be opened.
        ValueError: if it is a link, no regular file, or, to be written, has several names.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _foreign(path, "which is a symbolic link") from error
    try:
        _check_own(path, os.fstat(file), bool(flags & (os.O_WRONLY | os.O_RDWR)))
    except ValueError:
        os.close(file)
        raise
    return file


def is_database(path: Path) -> bool:
    """Whether a file begins as an SQLite database; for one that this process does not have open."""
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except (OSError, ValueError):
        return False


def check_own(path: Path, to_write: bool = False) -> None:
    """Check what `open_own` checks of a file that a library will open.

    Raises:
        OSError: if there is no such file.
        ValueError: as `open_own` does.
    """
    _check_own(path, path.lstat(), to_write)


def _check_own(path: Path, status: os.stat_result, to_write: bool) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _foreign(path, "which is a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise _foreign(path, "which is no regular file")
    if status.st_nlink > 1 and to_write:
        raise _foreign(path, "which has another name in some directory (a hard link)")


def files_below(
    directory: Path,
    suffixes: Sequence[str],
    kind: str,
    one: str,
    several: str,
    *,
    hidden: tuple[str, ...] = (".",),
) -> list[Path]:
    """The files of a kind in a directory and the directories in it, sorted by directory and name.

    Args:
        directory: where.
        suffixes: of the files, in lower case.
        kind: what they are, for messages: "WAV files".
        one: one of them: "a clip".
        several: some of them: "clips".
        hidden: how names begin that are left out, with all that is below them.

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: if there is no such file in it.
    """
    if not directory.is_dir():
        raise problem(
            f"the path {str(directory)!r}",
            f"a directory of {kind}",
            "check the path",
            kind=FileNotFoundError,
        )
    found = [
        path
        for path in directory.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(hidden) for part in path.relative_to(directory).parts)
        and path.is_file()
    ]
    if not found:
        raise problem(
            f"the directory {str(directory)!r} without {one}",
            f"files that end in {', '.join(suffixes)}, there or in directories of classes",
            f"name the directory that holds the {several}",
        )
    return sorted(found, key=lambda path: (path.parent.as_posix(), path.name))


def remove_leftovers(directory: Path, name: str | None = None, suffix: str = "") -> None:
    """Remove what processes that were killed have left in a directory.

    What a living process writes stays. So does what was written on another machine, in another
    container, or before this machine was last started: whether its process lives is unknown.

    Args:
        directory: where they are.
        name: of the file or directory that they were to become, without its suffix; None: any.
        suffix: of that file.
    """
    for path in directory.glob(".*~*~*~*"):
        parts = _TEMPORARY.fullmatch(path.name)
        if parts is None:
            continue
        wanted = name is None or (parts["name"], parts["suffix"] or "") == (name, suffix)
        if not wanted or not parts["process"] or parts["host"] != _host():
            continue
        if _began(parts["process"]) != parts["began"]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _temporary(place: Path, name: str, suffix: str = "") -> Path:
    """A free name in `place` with the number of this process; those of dead ones are removed."""
    # Names can have 255 bytes.
    name = os.fsdecode(os.fsencode(name)[:150])
    remove_leftovers(place, name, suffix)
    began = _began("self")
    process = f"{os.getpid()}-{began}" if began else ""
    return place / f".{name}~{_host()}~{process}~{secrets.token_hex(4)}{suffix}"


def _host() -> str:
    """What names the processes of this machine, since it was started, and of this container.

    Nothing where the system gives no number.
    """
    try:
        boot = (_PROCESSES / "sys/kernel/random/boot_id").read_text()
        namespace = os.readlink(_PROCESSES / "self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:8]


def _began(process: str) -> str | None:
    """When a process began, by the system's clock; None if it ended, or has only its number left.

    Another process can have the same number later, but not the same time.
    """
    try:
        status = (_PROCESSES / process / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name of the program stands in brackets, and can have any character.
    state, *fields = status.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Report a full disk, from any library.

    Raises:
        OSError: if the body failed for lack of space.
    """
    try:
        yield
    except Exception as error:
        number = _no_space(error)
        if number is None:
            raise
        raise OSError(
            number,
            three_parts(
                f"{os.strerror(number)!r} while writing {str(path)!r}",
                "a disk with room for it",
                "free space or choose another path, and run again",
            ),
        ) from error


def _no_space(error: BaseException | None) -> int | None:
    """The number of the system's error if the disk is full, as far as the error shows it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return error.errno
        for number in NO_SPACE:
            # HDF5 has it in its text.
            if f"errno = {number}," in str(error) or os.strerror(number) in str(error):
                return number
        error = error.__cause__ or error.__context__
    return None


def _check_no_link(output: Path, directory: Path) -> None:
    """Refuse to write to a directory in `output` that is a link to another one."""
    for path in (directory, *directory.parents):
        if path == output:
            return
        if path.is_symlink():
            raise _foreign(path, "which is a symbolic link")


def _foreign(path: Path, reason: str) -> ValueError:
    return problem(
        f"{str(path)!r}, {reason}",
        "a regular file or directory, since nothing is written elsewhere",
        "replace it with a copy of its target, or choose another directory",
    )
