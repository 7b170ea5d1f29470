"""Which tensors a store has for each example, and how they become what a teacher says."""

from __future__ import annotations

import dataclasses
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

_ACTIVATIONS = {"softmax": ops.softmax, "sigmoid": ops.sigmoid}


@dataclass(frozen=True)
class StoredOutput:
    """One output of a teacher.

    Args:
        codec: how its logits are stored; with `shares` those of the members, of shape
            `(models, ..., classes)` for one example.
        activation: `"softmax"` or `"sigmoid"`, which made probabilities of the logits; `None` where
            none was seen.
        puts_out_logits: whether the output itself is the logits, whatever was seen behind them.
        shares: for the mean of the probabilities of several models, what each counts.
        known: where members know a part of the classes only, which ones, `(models, classes)`.
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
        config = {
            "codec": self.codec.to_json(),
            "activation": self.activation,
            "puts_out_logits": self.puts_out_logits,
            "shares": None if self.shares is None else list(self.shares),
            "known": None if self.known is None else [list(map(bool, row)) for row in self.known],
        }
        # Stores that were written before have no such entry.
        return config if self.classes is None else {**config, "classes": self.classes}

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> StoredOutput:
        """The output of which `to_json` has told."""
        shares, known = config["shares"], config["known"]
        if config["activation"] not in (None, *_ACTIVATIONS):
            raise ValueError(f"the activation {config['activation']!r}")
        return cls(
            codec_from_json(config["codec"]),
            config["activation"],
            bool(config["puts_out_logits"]),
            None if shares is None else tuple(map(float, shares)),
            None if known is None else tuple(tuple(map(bool, row)) for row in known),
            _checked_classes(config.get("classes"), config["codec"]),
        )

    def said(self, arrays: dict[str, Any]) -> Any:
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
            # As the losses read an output of which nobody says what it is.
            logits = seen.at(1.0, self.activation or _usual_activation(members.shape))
            seen = dataclasses.replace(seen, logits=logits)
        activated = not self.puts_out_logits and seen.top is None
        output = self._activated(seen) if activated else logits
        # An output that is its logits must still not be taken for something else.
        remember_logits(output, seen)
        return output

    def _activated(self, seen: Logits) -> Any:
        if self.classes is None:
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
            raise ValueError(
                problem(
                    f"tensors of the names {names} to store",
                    "at least one, and a name of its own for each",
                    "name each layer once in outputs=['logits', ...]",
                )
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
            said = codec.decode(records)
            for part in codec.decoded:
                arrays[f"{codec.name}:{part}"] = said[part]
        return arrays

    def said(self, arrays: dict[str, Any]) -> Tapped:
        """What the teacher said.

        Args:
            arrays: the tensors of a batch, by the names of `decoded`.
        """
        features = {
            name: ops.cast(_parts(codec, arrays)["values"], "float32")
            for name, codec in self.features.items()
        }
        return Tapped(
            self._map_outputs(lambda output: output.said(_parts(output.codec, arrays))), features
        )

    def shapes(self) -> Tapped:
        """What the teacher said, without values."""
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
        """The contents of which `to_json` has told.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: if it is not what `to_json` gives.
        """
        outputs = None if config["outputs"] is None else _from_json(config["outputs"])
        features = {name: codec_from_json(one) for name, one in config["features"].items()}
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
