"""What tells an example from all others, and where its record is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, problem

KINDS = ("position", "integer", "string")
_HASH_BYTES = 8
_SHOWN = 3


@dataclass(frozen=True)
class Keys:
    """How examples are told apart.

    Attributes:
        kind: `"position"`: by their place in the data; `"integer"` or `"string"`: by a key that the
            data bring.
    """

    kind: str

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)

    @classmethod
    def of(cls, keys: Any) -> Keys:
        """The kind of keys that come with the data, from some of them.

        Raises:
            TypeError: if they are neither integers nor strings.
        """
        keys = np.asarray(keys)
        if keys.dtype.kind in "iu":
            return cls("integer")
        if _are_strings(keys):
            return cls("string")
        raise TypeError(
            problem(
                f"keys of dtype {keys.dtype}",
                "integers, strings or bytes",
                "give each example a number or a name, such as its file's",
            )
        )

    def to_integers(self, keys: Any) -> np.ndarray:
        """The keys as they are stored.

        Strings become the first 64 bits of their BLAKE2b digest (RFC 7693), so that two of a
        million meet with a probability of 3e-8, which is noticed when the store is read; a string
        and its bytes in UTF-8 are the same key.

        Args:
            keys: an array of shape `(n,)` or `(n, 1)`.

        Returns:
            An int64 array of shape `(n,)`.

        Raises:
            TypeError: if they are of another kind.
            ValueError: if there is not one key per example, or one is beyond int64.
        """
        keys = np.asarray(keys)
        if keys.ndim == 0 or keys.size != len(keys):
            raise ValueError(
                problem(
                    f"keys of shape {keys.shape}", "one key per example", "pass them as (examples,)"
                )
            )
        keys = keys.reshape(-1)
        strings = self.kind == "string"
        if keys.size and not (_are_strings(keys) if strings else keys.dtype.kind in "iu"):
            raise TypeError(
                problem(
                    f"keys of dtype {keys.dtype}, such as {keys[0]!r:.60}",
                    "strings or bytes" if strings else "integers",
                    "use keys of the kind that the outputs were stored with",
                )
            )
        return hashes(keys) if strings else _to_int64(keys)


@dataclass(frozen=True)
class PositionIndex:
    """The records of examples that are told apart by their place: a position is its record.

    Attributes:
        count: how many examples there are.
    """

    count: int

    def find(self, integers: np.ndarray, shown: Any = None) -> np.ndarray:
        """Where the records of these keys are; see `KeyIndex.find`."""
        _refuse_unknown((integers >= 0) & (integers < self.count), integers, shown, self.count)
        return integers


class KeyIndex:
    """The records of examples that are told apart by keys.

    Args:
        stored: an int64 array of shape `(records,)`, their keys.

    Raises:
        ValueError: if two records have one key; the message names them.
    """

    def __init__(self, stored: np.ndarray) -> None:
        stored = np.asarray(stored, dtype=np.int64)
        self._rows = np.argsort(stored, kind="stable")
        self._keys = stored[self._rows]
        again = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if again.size:
            pairs = [
                f"{self._keys[place]} of records {self._rows[place]} and {self._rows[place + 1]}"
                for place in again[:_SHOWN]
            ]
            raise ValueError(
                problem(
                    f"keys that occur more than once ({again.size} times): {', '.join(pairs)}",
                    "a key of its own for each example",
                    "give each example another key, or leave the key out and keep their order",
                )
            )

    def find(self, integers: np.ndarray, shown: Any = None) -> np.ndarray:
        """Where the records of these keys are.

        Args:
            integers: an int64 array of shape `(n,)`.
            shown: the keys as they were given, for the message.

        Returns:
            An int64 array of shape `(n,)`, record numbers.

        Raises:
            ValueError: if nothing is stored for a key; the message names the first ones.
        """
        places = np.searchsorted(self._keys, integers)
        known = places < len(self._keys)
        known[known] = self._keys[places[known]] == integers[known]
        _refuse_unknown(known, integers, shown, len(self._keys))
        return self._rows[places]


def hashes(strings: np.ndarray) -> np.ndarray:
    """64 bits of the BLAKE2b digest of each string or bytes, an int64 array of their shape.

    Raises:
        TypeError: if something else is among them.
    """
    digests = b"".join(
        hashlib.blake2b(_to_bytes(string), digest_size=_HASH_BYTES).digest()
        for string in strings.ravel()
    )
    return np.frombuffer(digests, "<i8").astype(np.int64, copy=False).reshape(strings.shape)


def _to_bytes(string: Any) -> bytes:
    if isinstance(string, bytes):
        return string
    if isinstance(string, str):
        return string.encode("utf-8", "surrogateescape")
    raise TypeError(
        problem(f"{string!r:.60} among strings", "strings or bytes", "convert it to a string")
    )


def _are_strings(keys: np.ndarray) -> bool:
    if keys.dtype.kind == "O":
        return all(isinstance(key, str | bytes) for key in keys.ravel())
    return keys.dtype.kind in "SU"


def _to_int64(keys: np.ndarray) -> np.ndarray:
    if keys.dtype.kind == "u" and keys.size and keys.max() > np.iinfo(np.int64).max:
        raise ValueError(
            problem(
                f"the key {keys.max()}",
                f"at most {np.iinfo(np.int64).max}",
                "number the examples with int64, or use strings",
            )
        )
    return keys.astype(np.int64, copy=False)


def _refuse_unknown(known: np.ndarray, integers: np.ndarray, shown: Any, count: int) -> None:
    if known.all():
        return
    shown = np.asarray(integers if shown is None else shown).reshape(-1)
    unknown = shown[~known]
    raise ValueError(
        problem(
            f"keys of which nothing is stored ({unknown.size} of {shown.size}): {_listed(unknown)}",
            f"keys of the {count} examples that are stored",
            "check that these are the data of which the outputs were stored, and that none were "
            "added since",
        )
    )


def _listed(keys: Sequence[Any]) -> str:
    names = ", ".join(
        repr(key.item() if isinstance(key, np.generic) else key) for key in keys[:_SHOWN]
    )
    return names if len(keys) <= _SHOWN else f"{names}, ..."
