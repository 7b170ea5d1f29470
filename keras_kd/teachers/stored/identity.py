"""Keys and fingerprints of examples, digests of teachers."""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_kd._checks import check_choice, problem
from keras_kd.teachers.base import Teacher

KINDS = ("position", "integer", "string")
_HASH_BYTES = 8
# Fixed for ever, as stores hold what follows from it.
_SEED = 0x6B657261735F6B64
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Keys:
    """How examples are identified.

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
        raise problem(
            f"keys of dtype {keys.dtype}",
            "integers, strings or bytes",
            "give each example a number or a name, such as its file's",
            kind=TypeError,
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
            raise problem(
                f"keys of shape {keys.shape}", "one key per example", "pass them as (examples,)"
            )
        keys = keys.reshape(-1)
        strings = self.kind == "string"
        if keys.size and not (_are_strings(keys) if strings else keys.dtype.kind in "iu"):
            raise problem(
                f"keys of dtype {keys.dtype}, such as {keys[0]!r:.60}",
                "strings or bytes" if strings else "integers",
                "use keys of the kind that the outputs were stored with",
                kind=TypeError,
            )
        return hashes(keys) if strings else _to_int64(keys)


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
    raise problem(
        f"{string!r:.60} among strings",
        "strings or bytes",
        "convert it to a string",
        kind=TypeError,
    )


def _are_strings(keys: np.ndarray) -> bool:
    if keys.dtype.kind == "O":
        return all(isinstance(key, str | bytes) for key in keys.ravel())
    return keys.dtype.kind in "SU"


def _to_int64(keys: np.ndarray) -> np.ndarray:
    if keys.dtype.kind == "u" and keys.size and keys.max() > np.iinfo(np.int64).max:
        raise problem(
            f"the key {keys.max()}",
            f"at most {np.iinfo(np.int64).max}",
            "number the examples with int64, or use strings",
        )
    return keys.astype(np.int64, copy=False)


def of_examples(x: Any) -> np.ndarray:
    """16 bits of each example, of its bytes in all inputs, their shapes and dtypes.

    The upper bits of `a + sum_i b_i w_i mod 2^64`, where `w` are the example's bytes as 32-bit
    words, and `a` and `b` pseudo-random. Two examples that differ have the same 16 bits with a
    probability of 2^-16 (Carter and Wegman, "Universal classes of hash functions", 1979; Lemire and
    Kaser, "Strongly universal string hashing is fast", 2014). It finds mistakes; with the
    constants, two examples of one fingerprint can be constructed.

    Args:
        x: an array, or a structure of arrays, with the examples along the first axis. Strings count
            by their content.

    Returns:
        A uint16 array of shape `(examples,)`. A row is the same in batches of any size.

    Raises:
        ValueError: if the arrays do not have the same number of examples.
    """
    leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(x)]
    sizes = {len(leaf) for leaf in leaves if leaf.ndim}
    if len(sizes) != 1 or not all(leaf.ndim for leaf in leaves):
        raise problem(
            f"inputs of shapes {[leaf.shape for leaf in leaves]}",
            "arrays with the same number of examples along their first axis",
            "pass a batch",
        )
    total = np.zeros(sizes.pop(), dtype=np.uint64)
    for number, leaf in enumerate(leaves):
        total += _hash(number, leaf)
    return (total >> np.uint64(48)).astype(np.uint16)


def of_teacher(teacher: Any) -> str | None:
    """A digest of the weights of a model, or of all models of a teacher.

    It depends on the weights' values, shapes, dtypes and order, and not on names.

    Returns:
        32 hexadecimal digits; `None` where there are no weights to see.
    """
    models = [teacher]
    if isinstance(teacher, Teacher):
        models = [*teacher.models, *teacher.learning_models]
    weights = [weight.numpy() for model in models for weight in getattr(model, "weights", [])]
    if not weights:
        return None
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for weight in weights:
        digest.update(f"{weight.dtype.name}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).view(np.uint8).data)
    return digest.hexdigest()


def _hash(number: int, leaf: np.ndarray) -> np.ndarray:
    """The 64-bit hash of each example in one array of the inputs."""
    name = leaf.dtype.name
    if leaf.dtype.kind in "OSU":
        name, leaf = "string", hashes(leaf)
    words = _words(leaf)
    kind = f"{number} {name} {leaf.shape[1:]}".encode()
    start = np.frombuffer(hashlib.blake2b(kind, digest_size=8).digest(), "<u8")
    factors = _factors(number, _power_of_two(words.shape[1]))[: words.shape[1]]
    # einsum widens the words in small blocks; a product of whole arrays would be of 64-bit copies.
    return start + np.einsum("ij,j->i", words, factors, dtype=np.uint64, casting="same_kind")


def _words(leaf: np.ndarray) -> np.ndarray:
    """The bytes of each example as little-endian 32-bit words, of shape `(examples, words)`."""
    rows = leaf.reshape(len(leaf), math.prod(leaf.shape[1:]))
    rows = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<")).view(np.uint8)
    if rows.shape[1] % 4:
        rows = np.pad(rows, [(0, 0), (0, -rows.shape[1] % 4)])
    return rows.view("<u4")


@functools.lru_cache(maxsize=32)
def _factors(number: int, count: int) -> np.ndarray:
    """Pseudo-random 64-bit factors for one array of the inputs; a longer list begins the same."""
    return np.random.PCG64([_SEED, number]).random_raw(count)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length() if number else 0
