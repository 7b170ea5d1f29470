"""The zip archive behind the model in a .tflite file, with the files that metadata name."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

from keras_kd._checks import one_line, problem

# The earliest time in a zip archive: the same files make the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_ENCRYPTED = 1
# What struct and zipfile raise where offsets, sizes, versions or names are damaged.
DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def append_files(content: bytes, files: Mapping[str, bytes]) -> bytes:
    """The content with an archive of the files behind it.

    They are stored as they are, since the readers on a phone do not decompress. Offsets count from
    the beginning of the content, which stays where it was and can be loaded as before.

    Args:
        content: a model without an archive.
        files: what they hold by their names.
    """
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _NO_TIME), data)
    return buffer.getvalue()


def read_file(content: bytes, name: str) -> bytes:
    """What a file in the archive holds. Nothing is written anywhere.

    Args:
        content: a model with an archive behind it.
        name: the file, as the metadata name it.

    Raises:
        ValueError: if it is not there, if it is not stored as it is, or if the archive is damaged.
    """
    if not name or name in (".", "..") or set(name) & set("/\\"):
        raise _problem(f"metadata that name a file {name!r}", "a name without a directory")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entry = archive.getinfo(name)
            refusal = _refusal(entry, len(content))
            data = b"" if refusal else archive.read(entry)
    except KeyError as error:
        raise _problem(
            f"metadata that name a file {name!r} which is not there", "all named files"
        ) from error
    except DAMAGE as error:
        raise _problem(
            f"no readable archive behind the model ({one_line(error)})",
            f"one with the file {name!r} in it",
        ) from error
    if refusal:
        raise refusal
    return data


def _refusal(entry: zipfile.ZipInfo, size: int) -> Exception | None:
    """Why an entry must not be read, None if it may be."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
        return _problem(
            f"a file {entry.filename!r} that is compressed or encrypted", "one stored as it is"
        )
    if not 0 <= entry.file_size == entry.compress_size <= size:
        return _problem(
            f"a file {entry.filename!r} with a declared size of {entry.file_size} bytes",
            f"no more than the {size} bytes of all",
        )
    return None


def _problem(received: str, expected: str) -> Exception:
    return problem(
        received, expected, "add the metadata again with keras_kd.tflite.android.add_metadata"
    )
