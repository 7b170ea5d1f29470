"""Archives that come from anywhere: what they say of themselves, checked before it is believed."""

from __future__ import annotations

import os
import zipfile
from pathlib import PurePosixPath

# What Keras and NumPy write is hardly smaller than what it stands for; compressed images of few
# colours shrink to a tenth, weights that are mostly zero to a twentieth.
MOST_EXPANSION = 100
ALWAYS_ALLOWED_BYTES = 64 * 1024 * 1024


def check_expansion(what: str, declared: int, stored: int) -> None:
    """Refuse what would fill the memory with much more than was stored.

    Args:
        what: what declares its size, for the message.
        declared: how many bytes it says that it takes in memory.
        stored: how many bytes there are of it on the disk.

    Raises:
        ValueError: if it declares more than 64 MiB and a hundred times what is stored.
    """
    if declared > ALWAYS_ALLOWED_BYTES and declared > MOST_EXPANSION * stored:
        raise ValueError(f"{what} declares {declared} bytes, of which {stored} are stored")


def check_members(path: str | os.PathLike) -> None:
    """Refuse zip archives that no program writes in good faith; nothing is extracted.

    Raises:
        ValueError: if the file is no zip archive, if a member would land outside the directory that
            it is extracted to or occurs twice, or if one declares far more bytes than are stored.
        zipfile.BadZipFile: if the archive is damaged.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip archive")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name:
            raise ValueError(f"its member {name!r} would escape from its directory")
    if len(set(names)) != len(names):
        raise ValueError("it has two members of one name")
    for member in members:
        check_expansion(f"its member {member.filename!r}", member.file_size, member.compress_size)
