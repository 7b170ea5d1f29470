"""The description of a store: its tensors, how they become outputs, and where they are from."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd._checks import problem
from keras_kd._logits import Logits, Top, remember_logits
from keras_kd.taps import Tapped
from keras_kd.teachers.stored.codecs import Codec, Dense, TopK, codec_from_json
from keras_kd.teachers.stored.identity import KINDS

AUGMENTED_FIELD = "augmented"
_ACTIVATIONS = {"softmax": ops.softmax, "sigmoid": ops.sigmoid}


@dataclass(frozen=True)
class StoredOutput:
    """One output of a teacher.

    Args:
        codec: how its logits are stored; with `shares` those of the members, of shape
            `(models, ..., classes)` for one example.
        activation: `"softmax"` or `"sigmoid"`, which made probabilities of the logits; `None` where
            none was seen.
        puts_out_logits: whether the output itself is the logits.
        shares: for the mean of the probabilities of several models, what each counts.
        known: where members have a part of the classes only, which ones, `(models, classes)`.
        classes: of a softmax, how many classes a distribution has, where several stand one after
            another on the last axis.
    """

    codec: Codec
    activation: str | None = None
    puts_out_logits: bool = True
    shares: tuple[float, ...] | None = None
    known: tuple[tuple[bool, ...], ...] | None = None
    classes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "codec": self.codec.to_json(),
            "activation": self.activation,
            "puts_out_logits": self.puts_out_logits,
            "shares": None if self.shares is None else list(self.shares),
            "known": None if self.known is None else [list(map(bool, row)) for row in self.known],
            "classes": self.classes,
        }

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> StoredOutput:
        """The output that `to_json` has written."""
        shares, known = config["shares"], config["known"]
        if config["activation"] not in (None, *_ACTIVATIONS):
            raise ValueError(f"the activation {config['activation']!r}")
        return cls(
            codec_from_json(config["codec"]),
            config["activation"],
            bool(config["puts_out_logits"]),
            None if shares is None else tuple(map(float, shares)),
            None if known is None else tuple(tuple(map(bool, row)) for row in known),
            _checked_classes(config["classes"], config["codec"]),
        )

    def rebuilt(self, arrays: dict[str, Any]) -> Any:
        """The output as the teacher gave it, with its logits remembered.

        Args:
            arrays: what the codec decodes, as tensors.
        """
        logits = ops.cast(arrays["values"], "float32")
        if isinstance(self.codec, TopK):
            seen = Logits(logits, "softmax", top=_top(self.codec, arrays))
        elif self.shares is None:
            seen = Logits(logits, self.activation, classes=self.classes)
        else:
            members = ops.moveaxis(logits, 1, 0)
            known = None if self.known is None else np.array(self.known)
            seen = Logits(
                members,
                self.activation,
                members,
                np.array(self.shares),
                known,
                classes=self.classes,
            )
            # As the losses read an output of unknown kind.
            logits = seen.at(1.0, self.activation or _usual_activation(members.shape))
            seen = dataclasses.replace(seen, logits=logits)
        activated = not self.puts_out_logits and seen.top is None
        output = self._activated(seen) if activated else logits
        # An output that is its logits must still not be taken for something else.
        remember_logits(output, seen)
        return output

    def _activated(self, seen: Logits) -> Any:
        if self.classes is None:
            assert self.activation is not None
            return _ACTIVATIONS[self.activation](seen.logits)
        rows = ops.softmax(seen.in_rows(self.classes).logits, axis=-1)
        return ops.reshape(rows, ops.shape(seen.logits))

    def shape(self) -> keras.KerasTensor:
        """The output without values."""
        if not isinstance(self.codec, TopK):
            own = self.codec.shape if self.shares is None else self.codec.shape[1:]
            return keras.KerasTensor((None, *own), dtype="float32")
        arrays = {
            name: keras.KerasTensor((None, *shape), dtype=dtype)
            for name, (dtype, shape) in self.codec.decoded.items()
        }
        output = arrays["values"]
        top = _top(self.codec, arrays | {"rest": None})
        remember_logits(output, Logits(output, "softmax", top=top))
        return output


class Contents:
    """What a store has for each example.

    Args:
        outputs: a `StoredOutput`, or a list, tuple or dict of them, as the teacher gives its
            outputs; `None` where they are not stored.
        features: by the name of each stored layer, how it is stored.

    Attributes:
        codecs: one for each tensor.
        decoded: dtype, and shape for one example, of each array that `decode` returns.

    Raises:
        ValueError: if there is nothing, or two tensors have one name.
    """

    def __init__(self, outputs: Any = None, features: dict[str, Dense] | None = None) -> None:
        self.outputs = outputs
        self.features = dict(features or {})
        self.codecs = [*(output.codec for output in self.stored_outputs), *self.features.values()]
        names = [codec.name for codec in self.codecs]
        if not names or len(set(names)) < len(names):
            raise problem(
                f"tensors of the names {names} to store",
                "at least one, and a different name for each",
                "name each layer once in outputs=['logits', ...]",
            )
        self.decoded = {
            f"{codec.name}:{part}": about
            for codec in self.codecs
            for part, about in codec.decoded.items()
        }

    @property
    def fields(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """The fields of a record, as `numpy.dtype` takes them."""
        return [field for codec in self.codecs for field in codec.fields]

    def encode(self, tensors: dict[str, Any], first_example: int = 0) -> dict[str, np.ndarray]:
        """The fields of a batch.

        Args:
            tensors: an array for each codec, by its name.
            first_example: the number of the first example, for messages.
        """
        return {
            name: values
            for codec in self.codecs
            for name, values in codec.encode(
                tensors[codec.name], first_example=first_example
            ).items()
        }

    def decode(self, records: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays in records, by the names of `decoded`, in their order."""
        arrays = {}
        for codec in self.codecs:
            rebuilt = codec.decode(records)
            for part in codec.decoded:
                arrays[f"{codec.name}:{part}"] = rebuilt[part]
        return arrays

    def rebuilt(self, arrays: dict[str, Any]) -> Tapped:
        """The stored outputs.

        Args:
            arrays: the tensors of a batch, by the names of `decoded`.
        """
        features = {
            name: ops.cast(_parts(codec, arrays)["values"], "float32")
            for name, codec in self.features.items()
        }
        return Tapped(
            self._map_outputs(lambda output: output.rebuilt(_parts(output.codec, arrays))), features
        )

    def shapes(self) -> Tapped:
        """Shapes and dtypes of the teacher's outputs."""
        features = {
            name: keras.KerasTensor((None, *codec.shape), dtype="float32")
            for name, codec in self.features.items()
        }
        return Tapped(self._map_outputs(StoredOutput.shape), features)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "outputs": None if self.outputs is None else _to_json(self.outputs),
            "features": {name: codec.to_json() for name, codec in self.features.items()},
        }

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> Contents:
        """The contents that `to_json` has written.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: if it is not what `to_json` gives.
        """
        outputs = None if config["outputs"] is None else _from_json(config["outputs"])
        features: Any = {name: codec_from_json(one) for name, one in config["features"].items()}
        return cls(outputs, features)

    @property
    def endings(self) -> str:
        """What makes the outputs of their logits, for messages."""
        return ", ".join(
            f"{output.activation or 'logits'}{' of several teachers' if output.shares else ''}"
            for output in self.stored_outputs
        )

    @property
    def stored_outputs(self) -> list[StoredOutput]:
        """Those of the outputs, in the order of their structure."""
        return [] if self.outputs is None else keras.tree.flatten(self.outputs)

    def _map_outputs(self, function: Callable[[StoredOutput], Any]) -> Any:
        if self.outputs is None:
            return None
        return keras.tree.map_structure(function, self.outputs)


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
    def has_keys(self) -> bool:
        """Whether examples are identified by keys, not by their positions."""
        return self.key_kind != "position"

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """The layout of a record."""
        marked = [] if self.seed is None else [(AUGMENTED_FIELD, "<f4")]
        return np.dtype([*marked, *self.contents.fields])

    def packed(
        self, tensors: dict[str, Any], augmented: Any = None, first_example: int = 0
    ) -> np.ndarray:
        """The records of a batch, a structured array.

        Args:
            tensors: an array for each codec, by its name, with an entry for each version.
            augmented: of each version the mark of its augmentation, where the store has them.
            first_example: the number of the first example, for messages.
        """
        fields = self.contents.encode(tensors, first_example)
        records = np.zeros(len(next(iter(fields.values()))), self.dtype)
        if self.seed is not None:
            records[AUGMENTED_FIELD] = augmented
        for name, values in fields.items():
            records[name] = values
        return records

    def unpacked(self, outputs: list[bytes]) -> np.ndarray:
        """The records in these bytes, a structured array.

        Raises:
            ValueError: if one has another size.
        """
        wrong = {len(one) for one in outputs} - {self.dtype.itemsize}
        if wrong:
            raise problem(
                f"a record of {wrong.pop()} bytes",
                f"{self.dtype.itemsize}, as the store describes its records",
                "store the teacher's outputs again",
            )
        return np.frombuffer(b"".join(outputs), self.dtype)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        own = {name: getattr(self, name) for name in type(self).__dataclass_fields__}
        names = None if self.teacher_inputs is None else list(self.teacher_inputs)
        return {**own, "contents": self.contents.to_json(), "teacher_inputs": names}

    def difference(self, before: Description) -> tuple[str, str, str] | None:
        """What differs from another description first, in the words of `store`, now and before."""
        now, then = self._in_words(), before._in_words()
        for name, value in now.items():
            if value != then[name]:
                return name, value, then[name]
        return None

    def _in_words(self) -> dict[str, str]:
        by = f"{self.key_kind} {self.key_name!r}" if self.has_keys else self.key_kind
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
            "the outputs": json.dumps(self.contents.to_json()),
        }

    @classmethod
    def from_json(cls, config: Any) -> Description:
        """The description that `to_json` has written.

        Raises:
            ValueError: if it is not one.
        """
        try:
            if set(config) != set(cls.__dataclass_fields__):
                raise ValueError(f"the entries {sorted(config)!r:.80}")
            names = config["teacher_inputs"]
            contents = Contents.from_json(config["contents"])
            names = None if names is None else tuple(map(str, names))
            description = cls(**{**config, "contents": contents, "teacher_inputs": names})
            description._check()
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise problem(
                f"a description that is not that of a stored teacher ({error!r:.300})",
                "what keras_kd.teachers.StoredTeacher writes",
                "store the teacher's outputs again, or read them with the version of keras_kd "
                "that stored them",
            ) from error
        return description

    def _check(self) -> None:
        """Check what is not checked by building it: the file can come from anywhere."""
        whole = all(type(number) is int for number in (self.versions, self.seed or 0))
        if not whole or self.versions < 1 or (self.seed is None and self.versions > 1):
            raise ValueError(f"versions={self.versions!r}, seed={self.seed!r}")
        if self.key_kind not in KINDS:
            raise ValueError(f"keys of the kind {self.key_kind!r}")
        # NumPy refuses sizes that no record can have.
        _ = self.dtype


def _to_json(outputs: Any) -> dict[str, Any]:
    if isinstance(outputs, StoredOutput):
        return {"output": outputs.to_json()}
    if isinstance(outputs, dict):
        return {"dict": {name: _to_json(part) for name, part in outputs.items()}}
    kind = "tuple" if isinstance(outputs, tuple) else "list"
    return {kind: [_to_json(part) for part in outputs]}


def _from_json(config: dict[str, Any]) -> Any:
    ((kind, content),) = config.items()
    if kind == "output":
        return StoredOutput.from_json(content)
    if kind == "dict":
        return {name: _from_json(part) for name, part in content.items()}
    return {"list": list, "tuple": tuple}[kind](map(_from_json, content))


def _parts(codec: Codec, arrays: dict[str, Any]) -> dict[str, Any]:
    return {part: arrays[f"{codec.name}:{part}"] for part in codec.decoded}


def _top(codec: TopK, arrays: dict[str, Any]) -> Top:
    rest = arrays["rest"]
    remainders = {
        temperature: None if rest is None else rest[..., place]
        for place, temperature in enumerate(codec.temperatures)
    }
    return Top(arrays["classes"], remainders, codec.number_of_classes)


def _checked_classes(classes: Any, codec: dict[str, Any]) -> int | None:
    if classes is None:
        return None
    if not isinstance(classes, int) or classes < 1 or codec["shape"][-1] % classes:
        raise ValueError(f"{classes} classes in rows of {codec['shape']}")
    return classes


def _usual_activation(shape: Any) -> str:
    return "sigmoid" if shape[-1] == 1 else "softmax"
