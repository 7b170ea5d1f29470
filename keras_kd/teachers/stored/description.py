"""What a store says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd.teachers.stored.contents import Contents

_FORMAT = "keras_kd stored teacher, version 1"
# The keys of all records, which can be far apart in their own file; a copy that is not believed.
KEYS_FILE = "keys.bin"
KEY_FIELD = "key"
FINGERPRINT_FIELD = "fingerprint"
AUGMENTED_FIELD = "augmented"


@dataclass(frozen=True)
class Description:
    """What holds for all records of a store, and how a record is laid out.

    There is a record for each version of each example; those of one example follow each other.

    Args:
        contents: the tensors of a record.
        teacher: the teacher's name.
        digest: of the teacher's weights; `None` where there are none to see.
        key_kind: `"position"`, `"integer"` or `"string"`.
        key_name: the entry of dict inputs that is the key; `None` for positions.
        has_fingerprints: whether each record has a fingerprint of its example.
        teacher_inputs: entries of dict inputs that only the teacher saw.
        versions: how many augmented versions there are of each example.
        seed: from which their seeds are made; `None` without augmentation.
    """

    contents: Contents
    teacher: str
    digest: str | None = None
    key_kind: str = "position"
    key_name: str | None = None
    has_fingerprints: bool = True
    teacher_inputs: tuple[str, ...] | None = None
    versions: int = 1
    seed: int | None = None

    @property
    def dtype(self) -> np.dtype:
        """The layout of a record."""
        fields: list[Any] = [] if self.key_kind == "position" else [(KEY_FIELD, "<i8")]
        if self.has_fingerprints:
            fields.append((FINGERPRINT_FIELD, "<u2"))
        if self.seed is not None:
            fields.append((AUGMENTED_FIELD, "<f4"))
        return np.dtype([*fields, *self.contents.fields])

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "format": _FORMAT,
            "teacher": self.teacher,
            "digest": self.digest,
            "contents": self.contents.to_json(),
            "key_kind": self.key_kind,
            "key_name": self.key_name,
            "has_fingerprints": self.has_fingerprints,
            "teacher_inputs": None if self.teacher_inputs is None else list(self.teacher_inputs),
            "versions": self.versions,
            "seed": self.seed,
        }

    def difference(self, before: Description) -> tuple[str, str, str] | None:
        """What differs from another description first, in the words of `store`, now and before."""
        now, then = self._in_words(), before._in_words()
        for name, value in now.items():
            if value != then[name]:
                return name, value, then[name]
        return None

    def _in_words(self) -> dict[str, str]:
        by = "position" if self.key_kind == "position" else f"{self.key_kind} {self.key_name!r}"
        seed = "none" if self.seed is None else f"{self.versions} versions from seed {self.seed}"
        return {
            "the teacher": self.teacher,
            "the teacher's weights": self.digest or "unknown",
            "what is stored": "; ".join(map(str, self.contents.codecs)),
            "how the teacher ends": self.contents.endings,
            "the key": by,
            "fingerprints of x": "yes" if self.has_fingerprints else "no",
            "teacher_inputs": str(self.teacher_inputs),
            "augmentation": seed,
        }

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> Description:
        """The description of which `to_json` has told.

        Raises:
            ValueError: if it is not one.
        """
        try:
            if config["format"] != _FORMAT:
                raise ValueError(f"the format {config['format']!r:.80}")
            arguments = {name: config[name] for name in cls.__dataclass_fields__}
            arguments["contents"] = Contents.from_json(config["contents"])
            names = config["teacher_inputs"]
            arguments["teacher_inputs"] = None if names is None else tuple(map(str, names))
            description = cls(**arguments)
            description._check()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                problem(
                    f"a store.json that does not describe a stored teacher ({error!r:.300})",
                    f"what keras_kd.teachers.store writes: {_FORMAT}",
                    "store the teacher's outputs again, or read them with the version of keras_kd "
                    "that stored them",
                )
            ) from error
        return description

    def _check(self) -> None:
        """Check what is not checked by building it: the file can come from anywhere."""
        whole = all(
            isinstance(number, int) and not isinstance(number, bool)
            for number in (self.versions, 0 if self.seed is None else self.seed)
        )
        if not whole or self.versions < 1 or (self.seed is None and self.versions > 1):
            raise ValueError(f"versions={self.versions!r}, seed={self.seed!r}")
        if self.key_kind not in ("position", "integer", "string"):
            raise ValueError(f"keys of the kind {self.key_kind!r}")
