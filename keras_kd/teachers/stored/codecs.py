"""Between a teacher's tensors and the fields of fixed-size records.

A codec stores one tensor, such as one output or the features of one layer. What it rounds away is
bounded, and the bound is part of its description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, check_integer, check_number, problem

Field = tuple[str, str, tuple[int, ...]]
DTYPES = ("float32", "float16", "uint8")

# The floats of each dtype, little-endian on every machine; of uint8 those that rows are between.
FLOATS = {"float32": "<f4", "float16": "<f2", "uint8": "<f2"}

_STEPS = 255


@dataclass(frozen=True)
class Dense:
    """Every value of a tensor.

    `"float32"` is exact. `"float16"` is off by at most 2^-11 (0.05 %) of each value, and below
    6.1e-5 by at most 2^-25. `"uint8"` divides each row, which is the last axis, into 255 steps
    between its least and its greatest value, both rounded outward to float16: it is off by at most
    half a step, (high - low) / 510, and by float32's own rounding of the sum.

    Where logits are off by at most e, a probability softmax(logits / T) is off by at most
    tanh(e / 2T) < e / 2T.

    Args:
        name: the tensor's name.
        shape: its shape for one example.
        dtype: `"float32"`, `"float16"` or `"uint8"`.

    Raises:
        ValueError: if a size of the shape is not known, or the dtype is none of these.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float16"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _check_shape(self.name, self.shape))
        check_choice("dtype", self.dtype, DTYPES)

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)} as {self.dtype}"

    @property
    def fields(self) -> list[Field]:
        """Name, dtype and shape of each field, as `numpy.dtype` takes them."""
        if self.dtype != "uint8":
            return [(f"{self.name}:values", FLOATS[self.dtype], self.shape)]
        return [
            (f"{self.name}:values", "|u1", self.shape),
            (f"{self.name}:low", "<f2", self.shape[:-1]),
            (f"{self.name}:high", "<f2", self.shape[:-1]),
        ]

    @property
    def decoded(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype, and shape for one example, of each array that `decode` returns."""
        return {"values": ("float16" if self.dtype == "float16" else "float32", self.shape)}

    def encode(self, array: Any, *, first_example: int = 0) -> dict[str, np.ndarray]:
        """The fields of a batch.

        Args:
            array: of shape `(examples, *shape)`.
            first_example: the number of the first of them, for messages.

        Raises:
            ValueError: if the shape is another, or a value is NaN, infinite, or beyond the dtype.
        """
        values = check_values(self.name, self.shape, array, first_example)
        check_reach(self.name, self.dtype, np.abs(values), first_example)
        if self.dtype != "uint8":
            return {f"{self.name}:values": values.astype(FLOATS[self.dtype])}
        rows = values if self.shape else values[:, None]
        low, high = rounded_down(rows.min(axis=-1)), rounded_up(rows.max(axis=-1))
        return {
            f"{self.name}:values": to_steps(rows, low, high).reshape(values.shape),
            f"{self.name}:low": low,
            f"{self.name}:high": high,
        }

    def decode(self, records: np.ndarray) -> dict[str, np.ndarray]:
        """`"values"`, `(examples, *shape)`: float16 as it is stored, else float32."""
        values = records[f"{self.name}:values"]
        if self.dtype != "uint8":
            return {"values": np.ascontiguousarray(values)}
        rows = values if self.shape else values[:, None]
        low, high = records[f"{self.name}:low"], records[f"{self.name}:high"]
        return {"values": from_steps(rows, low, high).reshape(values.shape)}

    def to_json(self) -> dict[str, Any]:
        """What `codec_from_json` takes."""
        return {"kind": "dense", **asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class TopK:
    """The largest logits of a softmax, and the mass of all the others together.

    Per row the numbers of the k classes of the largest logits, packed to as many bits as a class
    needs; z_j - z_1, how far the logits after the first are below it, which is all that a softmax
    sees; and for each temperature T the log-odds of all the other classes together,
    log(p_rest / (1 - p_rest)) with p = softmax(z / T). With 1000 classes, k = 16 and float16 these
    are 20 + 30 + 2 = 52 bytes.

    `"float16"` is off by at most 2^-11 (0.05 %) of each difference and of the log-odds, and below
    6.1e-5 by at most 2^-25. `"uint8"` divides the differences of a row into 255 steps from 0 to the
    farthest, rounded up to float16, so that each is off by at most half a step, farthest / 510; the
    log-odds are float16. `"float32"` rounds all of them to 2^-24 of each.

    So the mass of the rest is off by at most 0.00011, independent of the error of the differences,
    which only share the remaining mass among the k classes: where they are off by at most d, each
    probability at T is off by at most tanh(d / 2T) + 0.00011.

    Args:
        name: the tensor's name.
        shape: its full shape for one example, `(..., classes)`.
        top_k: how many classes are kept, k.
        dtype: of the differences: `"float32"`, `"float16"` or `"uint8"`.
        temperatures: those at which the mass of the rest is kept.

    Raises:
        TypeError: if `top_k` is no integer or a temperature no number.
        ValueError: if there are fewer than two classes or than k, a size of the shape is not known,
            or a temperature is not above 0.
    """

    name: str
    shape: tuple[int, ...]
    top_k: int
    dtype: str = "float16"
    temperatures: tuple[float, ...] = (4.0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _check_shape(self.name, self.shape))
        check_choice("dtype", self.dtype, DTYPES)
        if not self.shape or self.shape[-1] < 2:
            raise problem(
                f"top_k={self.top_k!r} for {self.name!r} of shape {self.shape}",
                "a distribution over at least two classes on the last axis",
                "leave out top_k, which stores all values",
            )
        fix = f"use a number from 1 to {self.number_of_classes}"
        if check_integer("top_k", self.top_k, at_least=1, fix=fix) > self.number_of_classes:
            raise problem(
                f"top_k={self.top_k} for {self.name!r} with {self.number_of_classes} classes",
                "no more than there are classes",
                fix,
            )
        object.__setattr__(self, "temperatures", _check_temperatures(self.temperatures))

    def __str__(self) -> str:
        return (
            f"{self.name} {list(self.shape)} as {self.dtype}, top_k={self.top_k}, temperatures="
            f"{list(self.temperatures)}"
        )

    @property
    def number_of_classes(self) -> int:
        """The size of the last axis."""
        return self.shape[-1]

    @property
    def fields(self) -> list[Field]:
        """Name, dtype and shape of each field, as `numpy.dtype` takes them."""
        rows, others = self.shape[:-1], self.top_k - 1
        fields = [
            (f"{self.name}:classes", "|u1", (-(-self._bits_of_example // 8),)),
            (f"{self.name}:rest", FLOATS[self.dtype], (*rows, len(self.temperatures))),
        ]
        if others:
            stored = "|u1" if self.dtype == "uint8" else FLOATS[self.dtype]
            fields.append((f"{self.name}:differences", stored, (*rows, others)))
        if others and self.dtype == "uint8":
            fields.append((f"{self.name}:farthest", "<f2", rows))
        return fields

    @property
    def decoded(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype, and shape for one example, of each array that `decode` returns."""
        rows = self.shape[:-1]
        return {
            "values": ("float32", (*rows, self.top_k)),
            "classes": ("int32", (*rows, self.top_k)),
            "rest": ("float32", (*rows, len(self.temperatures))),
        }

    def encode(self, array: Any, *, first_example: int = 0) -> dict[str, np.ndarray]:
        """The fields of a batch.

        Args:
            array: logits of shape `(examples, *shape)`.
            first_example: the number of the first of them, for messages.

        Raises:
            ValueError: if the shape is another, a logit is NaN or infinite, or one of the k largest
                is farther below the largest than the dtype reaches.
        """
        logits = check_values(self.name, self.shape, array, first_example)
        # The k largest stand at the end, in no order; then they alone are sorted.
        split = self.number_of_classes - self.top_k
        largest = np.argpartition(logits, split, axis=-1)[..., split:]
        values = np.take_along_axis(logits, largest, axis=-1).astype("float64")
        descending = np.argsort(-values, axis=-1, kind="stable")
        classes = np.take_along_axis(largest, descending, axis=-1)
        values = np.take_along_axis(values, descending, axis=-1)
        others = logits - values[..., :1]
        np.put_along_axis(others, classes, -np.inf, axis=-1)
        values -= values[..., :1]
        fields = {
            f"{self.name}:classes": self._packed(classes),
            f"{self.name}:rest": self._log_odds(values, others),
        }
        if self.top_k > 1:
            differences = -values[..., 1:]
            check_reach(self.name, self.dtype, differences, first_example)
            fields |= self._stored(differences)
        return fields

    def decode(self, records: np.ndarray) -> dict[str, np.ndarray]:
        """The k classes and the rest of a batch, in descending order of the logits.

        Returns:
            `"values"`, float32 of shape `(examples, ..., k)`: z_j - z_1, the first is 0;
            `"classes"`, int32 of the same shape; `"rest"`, float32 of shape
            `(examples, ..., temperatures)`: log sum exp((z_c - z_1) / T) over the other classes c,
            -inf where no mass is left.

        Raises:
            ValueError: if the records name a class that there is not, or a mass that is no number.
        """
        count = len(records)
        rows = self.shape[:-1]
        values = np.zeros((count, *rows, self.top_k), "float32")
        if self.top_k > 1:
            differences = records[f"{self.name}:differences"]
            if self.dtype == "uint8":
                farthest = records[f"{self.name}:farthest"]
                differences = from_steps(differences, np.zeros_like(farthest), farthest)
            np.negative(differences, out=values[..., 1:], casting="same_kind")
        classes = self._unpacked(records[f"{self.name}:classes"])
        # The mass of the rest stays what it was also where the others were rounded.
        rest = records[f"{self.name}:rest"] + self._log_masses(values)
        if classes.max(initial=0) >= self.number_of_classes or not np.all(rest < np.inf):
            raise problem(
                f"records of {self.name!r} with a class beyond {self.number_of_classes - 1} or "
                "a mass of the rest that is no number",
                "records as keras_kd.teachers.StoredTeacher writes them",
                "store the teacher's outputs again",
            )
        return {"values": values, "classes": classes, "rest": rest}

    def to_json(self) -> dict[str, Any]:
        """What `codec_from_json` takes."""
        config = {**asdict(self), "shape": list(self.shape)}
        return {"kind": "top_k", **config, "temperatures": list(self.temperatures)}

    @property
    def _bits(self) -> int:
        """How many bits the number of a class takes."""
        return (self.number_of_classes - 1).bit_length()

    @property
    def _bits_of_example(self) -> int:
        return math.prod(self.shape[:-1]) * self.top_k * self._bits

    def _packed(self, classes: np.ndarray) -> np.ndarray:
        octets = np.ascontiguousarray(classes, ">u4").view("uint8")
        bits = np.unpackbits(octets.reshape(-1, 4), axis=-1)[:, 32 - self._bits :]
        return np.packbits(bits.reshape(len(classes), self._bits_of_example), axis=-1)

    def _unpacked(self, packed: np.ndarray) -> np.ndarray:
        bits = np.unpackbits(packed, axis=-1, count=self._bits_of_example).reshape(-1, self._bits)
        wide = np.zeros((len(bits), 32), "uint8")
        wide[:, 32 - self._bits :] = bits
        classes = np.packbits(wide, axis=-1).view(">u4").astype("int32")
        return classes.reshape(len(packed), *self.shape[:-1], self.top_k)

    def _log_odds(self, values: np.ndarray, others: np.ndarray) -> np.ndarray:
        """How far the others, which this changes, outweigh the k classes; -inf for no others."""
        if self.top_k == self.number_of_classes:
            shape = (*values.shape[:-1], len(self.temperatures))
            return np.full(shape, -np.inf, FLOATS[self.dtype])
        highest = others.max(axis=-1, keepdims=True)
        others -= highest
        odds = highest / self.temperatures + self._log_masses(others) - self._log_masses(values)
        with np.errstate(over="ignore"):
            # Below -65504 there is no mass in any precision.
            return odds.astype(FLOATS[self.dtype])

    def _log_masses(self, logits: np.ndarray) -> np.ndarray:
        """log sum exp(logits / T) for each temperature, of rows whose largest is 0."""
        masses = np.empty((*logits.shape[:-1], len(self.temperatures)), logits.dtype)
        for place, temperature in enumerate(self.temperatures):
            softened = logits / temperature
            masses[..., place] = np.exp(softened, out=softened).sum(axis=-1)
        return np.log(masses)

    def _stored(self, differences: np.ndarray) -> dict[str, np.ndarray]:
        if self.dtype != "uint8":
            return {f"{self.name}:differences": differences.astype(FLOATS[self.dtype])}
        farthest = rounded_up(differences[..., -1])
        return {
            f"{self.name}:differences": to_steps(differences, np.zeros_like(farthest), farthest),
            f"{self.name}:farthest": farthest,
        }


Codec = Dense | TopK


def codec_from_json(config: dict[str, Any]) -> Codec:
    """The codec that `to_json` has written.

    Raises:
        TypeError, ValueError: if it does not describe a codec.
    """
    kinds = {"dense": Dense, "top_k": TopK}
    arguments = dict(config) if isinstance(config, dict) else {}
    kind = kinds.get(str(arguments.pop("kind", None)))
    if kind is None or set(arguments) != set(kind.__dataclass_fields__):
        raise problem(
            f"the description {config!r:.200} of a stored tensor",
            f"one of a kind among {', '.join(kinds)} with all of its entries",
            "store the teacher's outputs again, or read them with the version of keras_kd that "
            "stored them",
        )
    return kind(**arguments)


def _check_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    known = isinstance(shape, list | tuple) and all(
        isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape
    )
    if not known:
        raise problem(
            f"the shape {shape!r} of {name!r} for one example",
            "sizes that are known and above 0",
            "give the model's inputs a fixed size, as in keras.Input((224, 224, 3))",
        )
    return tuple(shape)


def _check_temperatures(temperatures: Any) -> tuple[float, ...]:
    fix = "pass those of the losses that will be used, as in temperatures=(4.0,)"
    if not isinstance(temperatures, list | tuple) or not temperatures:
        raise problem(f"temperatures={temperatures!r}", "at least one number", fix, kind=TypeError)
    numbers = tuple(check_number("temperatures", one, above=0, fix=fix) for one in temperatures)
    if len(set(numbers)) < len(numbers):
        raise problem(f"temperatures={temperatures!r}", "each of them once", fix)
    return numbers


def largest(dtype: str) -> float:
    """The largest number that a dtype holds."""
    return float(np.finfo(FLOATS[dtype]).max)


def check_values(
    name: str, shape: tuple[int, ...], array: Any, first_example: int = 0
) -> np.ndarray:
    """Return an array as float32 or float64 if it holds finite numbers.

    Args:
        name: the tensor's name, for messages.
        shape: its shape for one example.
        array: of shape `(examples, *shape)`.
        first_example: the number of the first of them.

    Raises:
        ValueError: if the shape is another, or a value is NaN or infinite.
    """
    values = np.asarray(array)
    if values.ndim == 0 or values.shape[1:] != shape:
        raise problem(
            f"{name!r} of shape {values.shape}",
            f"({', '.join(map(str, ('examples', *shape)))})",
            "give all batches the shape of the first",
        )
    if values.dtype.name not in ("float32", "float64"):
        values = values.astype("float32")
    finite = np.isfinite(values)
    if not finite.all():
        raise problem(
            f"NaN or infinite values in {name!r} of example {_first(~finite, first_example)}",
            "finite numbers",
            "check the teacher's weights, and that the data have the range and dtype it was "
            "trained on",
        )
    return values


def check_reach(name: str, dtype: str, sizes: np.ndarray, first_example: int = 0) -> None:
    """Check that a dtype holds numbers of these sizes.

    Raises:
        ValueError: if one is beyond it.
    """
    beyond = sizes > largest(dtype)
    if beyond.any():
        raise problem(
            f"the value {sizes[beyond][0]:g} in {name!r} of example "
            f"{_first(beyond, first_example)} for dtype={dtype!r}",
            f"numbers up to {largest(dtype):g}",
            "store with dtype='float32'",
        )


def rounded_up(values: np.ndarray) -> np.ndarray:
    """The least float16 numbers that are not below some values; none is beyond float16."""
    nearest = values.astype("<f2")
    next_up = np.nextafter(nearest, np.float16(largest("float16")))
    return np.where(nearest < values, next_up, nearest).astype("<f2")


def rounded_down(values: np.ndarray) -> np.ndarray:
    """The greatest float16 numbers that are not above some values; none is beyond float16."""
    return -rounded_up(-values)


def to_steps(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """On which of 255 steps from `low` to `high` each value is nearest.

    Args:
        values: of shape `(..., row)`.
        low: float16 of shape `(...)`, not above any of the row.
        high: float16 of shape `(...)`, not below any of the row.
    """
    start, step = _start_and_step(low, high)
    return np.rint((values - start) / np.where(step > 0, step, np.float32(1))).astype("uint8")


def from_steps(steps: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The float32 values on these steps, see `to_steps`."""
    start, step = _start_and_step(low, high)
    return start + step * steps


def _first(found: np.ndarray, first_example: int) -> int:
    """The number of the first example in which something was found."""
    return first_example + int(np.argmax(found.reshape(len(found), -1).any(axis=-1)))


def _start_and_step(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    start = low.astype("float32")[..., None]
    return start, (high.astype("float32")[..., None] - start) / np.float32(_STEPS)
