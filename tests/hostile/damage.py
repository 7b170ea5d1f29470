"""Damaged files, made from good ones: the same from the same seed."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator

# What a program may write where it has lost count, and what a reader may trip over.
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
VALUES = (None, -1, 0, 1e30, 2**31, 2**63, True, "", "../../x", "a" * 3000, [], {}, [[[]]])


def damaged(original: bytes, seed: int, files: int) -> Iterator[tuple[str, bytes]]:
    """Make `files` damaged forms of a file, each with the name of what was done to it.

    Bytes are changed anywhere. In zip archives, every second time the contents of a member are,
    under a checksum that is right again, so that the damage reaches who reads them.
    """
    generator = random.Random(seed)
    is_archive = zipfile.is_zipfile(io.BytesIO(original)) and original[:2] == b"PK"
    for number in range(files):
        if is_archive and number % 2:
            yield _with_damaged_member(original, generator)
        else:
            change = generator.choice(BYTE_CHANGES)
            yield change.__name__, change(original, generator)


def _with_damaged_member(original: bytes, generator: random.Random) -> tuple[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = generator.choice(sorted(members))
    changes = [json_value, *BYTE_CHANGES] if name.endswith(".json") else BYTE_CHANGES
    # A broken JSON ends in its parser: most of them should get further.
    change = json_value if json_value in changes and generator.random() < 0.8 else None
    change = change or generator.choice(changes)
    members[name] = change(members[name], generator)
    return f"{change.__name__} in {name}", archive_of(members)


def archive_of(members: dict[str, bytes]) -> bytes:
    """A zip archive with these members."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def truncated(content: bytes, generator: random.Random) -> bytes:
    """Only the beginning."""
    return content[: generator.randrange(len(content) + 1) if content else 0]


def beheaded(content: bytes, generator: random.Random) -> bytes:
    """Only the end."""
    return content[generator.randrange(len(content) + 1) if content else 0 :]


def flipped(content: bytes, generator: random.Random) -> bytes:
    """One to eight bits are others."""
    changed = bytearray(content)
    for _ in range(generator.randint(1, 8) if content else 0):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def flipped_early(content: bytes, generator: random.Random) -> bytes:
    """As `flipped`, near the beginning, where most formats say what is to come."""
    end = min(256, len(content))
    return flipped(content[:end], generator) + content[end:]


def extreme(content: bytes, generator: random.Random) -> bytes:
    """Four bytes, where an integer may be, are a number at the end of a range."""
    offset = 4 * generator.randrange(max(1, len(content) // 4))
    number = generator.choice(EXTREMES).to_bytes(4, "little")
    return content[:offset] + number + content[offset + 4 :]


def zeroed(content: bytes, generator: random.Random) -> bytes:
    """A stretch of zeros, as of a disk that was not written."""
    return _replaced(content, generator, bytes)


def scrambled(content: bytes, generator: random.Random) -> bytes:
    """A stretch of random bytes."""
    return _replaced(content, generator, generator.randbytes)


def repeated(content: bytes, generator: random.Random) -> bytes:
    """A stretch twice."""
    start, end = _stretch(content, generator)
    return content[:end] + content[start:]


def shortened(content: bytes, generator: random.Random) -> bytes:
    """A stretch is missing."""
    start, end = _stretch(content, generator)
    return content[:start] + content[end:]


def nonsense(content: bytes, generator: random.Random) -> bytes:
    """Random bytes of another length."""
    return generator.randbytes(generator.randrange(min(len(content), 4096) + 1))


def json_value(content: bytes, generator: random.Random) -> bytes:
    """One value somewhere in a JSON document is another."""
    document = json.loads(content)
    places = list(_places(document))
    if places:
        holder, key = generator.choice(places)
        holder[key] = generator.choice(VALUES)
    return json.dumps(document).encode()


BYTE_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncated,
    beheaded,
    flipped,
    flipped_early,
    extreme,
    zeroed,
    scrambled,
    repeated,
    shortened,
    nonsense,
)


def _places(value: object) -> Iterator[tuple[dict | list, str | int]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def _stretch(content: bytes, generator: random.Random) -> tuple[int, int]:
    start = generator.randrange(len(content) + 1)
    return start, min(len(content), start + generator.choice((1, 8, 64, 1024)))


def _replaced(content: bytes, generator: random.Random, made: Callable[[int], bytes]) -> bytes:
    start, end = _stretch(content, generator)
    return content[:start] + made(end - start) + content[end:]
