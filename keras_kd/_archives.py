"""Untrusted archives: their declared sizes and names are checked before use."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import PurePosixPath
from typing import Any

from keras_kd._memory import MEBIBYTE, check_expansion

# As many as a zip archive without extensions can have.
MOST_MEMBERS = 65_535
# What describes a model is text: far more than the largest known has, and little enough to parse.
MOST_JSON_BYTES = 16 * MEBIBYTE


def check_members(path: str | os.PathLike) -> None:
    """Refuse zip archives that no program writes in good faith; nothing is extracted.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if the file is no zip archive, if a member would land outside the directory that
            it is extracted to or occurs twice, if there are too many, or if they declare far more
            bytes than the file has.
        zipfile.BadZipFile: if the archive is damaged.
    """
    # Given a path, `is_zipfile` is false also where there is no permission.
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no zip archive")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"it has {len(members)} members, more than {MOST_MEMBERS}")
    names = [member.filename for member in members]
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name:
            raise ValueError(f"its member {name!r} would escape from its directory")
    if len(set(names)) != len(names):
        raise ValueError("it has two members of one name")
    # Members can share their bytes, so that they are compared with those of the whole file.
    stored = os.stat(path).st_size
    for member in members:
        check_expansion(f"its member {member.filename!r}", member.file_size, stored)
    total = sum(member.file_size for member in members)
    check_expansion(f"the sum of its {len(members)} members", total, stored)


def read_json(archive: zipfile.ZipFile, name: str) -> Any:
    """The JSON in a member.

    Raises:
        KeyError: if there is no such member.
        ValueError: if it is no JSON, or larger than a description of a model is.
    """
    check_json_member(archive, name)
    return json.loads(archive.read(name))


def check_json_member(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse a member that is too large to be parsed, before it is read.

    Raises:
        KeyError: if there is no such member.
        ValueError: if it has more than 16 MiB, or more than 1 MiB from far fewer bytes.
    """
    member = archive.getinfo(name)
    check_json_size(f"its {name}", member.file_size)
    check_expansion(f"its {name}", member.file_size, member.compress_size, MEBIBYTE)


def check_json_size(what: str, size: int) -> None:
    """Refuse a description that is too large to be parsed.

    Raises:
        ValueError: if it has more than 16 MiB.
    """
    if size > MOST_JSON_BYTES:
        raise ValueError(f"{what} has {size} bytes, more than {MOST_JSON_BYTES}")
