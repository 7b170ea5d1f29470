"""Clips of sound from a directory of WAV files, as a model takes them."""

from __future__ import annotations

import os
import re
import struct
import wave
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import check_integer, check_number, one_line, problem
from keras_kd._files import files_below
from keras_kd._limits import free_bytes
from keras_kd._progress import with_progress

SUFFIXES = (".wav", ".wave")
# Studio equipment has up to 384 kHz.
MOST_SAMPLE_RATE = 384_000
_LABEL = "label"
_FILE = "file"
_FIELD = re.compile(r"\{([a-z_]+)\}")
_MOST_NAMED = 5
# What `wave` raises for files whose bytes are not what it expects.
_DAMAGE = (EOFError, OSError, RuntimeError, ValueError, struct.error, wave.Error)
_CONVERT = "ffmpeg -i in.wav -c:a pcm_s16le -ac 1 -ar {rate} out.wav"


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips of one length, with their classes and the facts in their names.

    Attributes:
        x: float32 of shape (clips, samples), from -1 to 1.
        y: int64 class indices of shape (clips,).
        class_names: one name per class, in the order of the indices.
        sample_rate: samples in a second, in Hz.
        fields: for each field of the names, such as "speaker", an array of texts of shape
            (clips,). "file" is the path within the directory.
    """

    x: np.ndarray
    y: np.ndarray
    class_names: tuple[str, ...]
    sample_rate: int
    fields: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        """How many clips there are."""
        return len(self.x)

    def take(self, which: Any) -> Clips:
        """Some of the clips.

        Args:
            which: their indices, or a mask of shape (clips,).
        """
        fields = {name: values[which] for name, values in self.fields.items()}
        return replace(self, x=self.x[which], y=self.y[which], fields=fields)

    def hold_out(
        self, field: str, which: float | Iterable[str], *, seed: int = 0
    ) -> tuple[Clips, Clips]:
        """Set clips aside for validation or testing, all of a speaker or none.

        A voice that was heard in training is recognized better than one that was not, so that clips
        of one speaker on both sides give too good a result.

        Args:
            field: "speaker", another field of the names, or "file", where each clip represents
                itself.
            which: the values of the field that are held out, or the share of its values, above 0
                and below 1, which are then chosen at random.
            seed: of the random choice.

        Returns:
            The clips that are kept, and those that are held out.

        Raises:
            ValueError: if there is no such field or value, or if one of the two would be empty.
        """
        if field not in self.fields:
            raise problem(
                f"field={field!r}",
                f"one of {', '.join(map(repr, self.fields))}",
                "choose one, or name it in load_clips, names='{label}_{speaker}_{index}.wav'",
            )
        values = self.fields[field]
        present = np.unique(values)
        chosen = _chosen_values(which, present, seed)
        held = np.isin(values, list(chosen))
        if held.all() or not held.any():
            raise problem(
                f"{len(chosen)} of the {len(present)} values of {field!r} to hold out",
                "at least one, and not all",
                "choose a share between, or pass a list of values",
            )
        return self.take(~held), self.take(held)


def _chosen_values(which: Any, present: np.ndarray, seed: int) -> set[str]:
    if isinstance(which, str):
        which = [which]
    if isinstance(which, Iterable):
        chosen = set(map(str, which))
        missing = sorted(chosen.difference(present.tolist()))
        if missing:
            raise problem(
                f"the values {', '.join(map(repr, missing[:_MOST_NAMED]))} to hold out",
                f"some of {', '.join(map(repr, present.tolist()[:20]))}",
                "correct them",
            )
        return chosen
    fix = "pass 0.2 for a fifth of the speakers, or a list of them"
    share = check_number("which", which, above=0, at_most=1, fix=fix)
    check_integer("seed", seed, at_least=0, fix="use 0, for example")
    count = max(1, round(share * len(present)))
    return set(np.random.default_rng(seed).choice(present, count, replace=False).tolist())


def load_clips(
    directory: str | os.PathLike,
    *,
    seconds: float = 1.0,
    names: str | None = None,
    class_names: Sequence[str] | None = None,
    sample_rate: int | None = None,
) -> Clips:
    """Load the WAV files in a directory and the directories in it, all brought to one length.

    Short clips are put into the middle of zeros; of long ones the middle is taken. Channels are
    averaged. Files are taken in the order of their paths; those whose name, or whose directory's
    name, begins with a dot or an underscore are left out.

    Args:
        directory: holds files that end in .wav, with PCM samples of 8, 16, 24 or 32 bits.
        seconds: the length of the result.
        names: how paths are made, with a field in braces for each part: "{label}_{speaker}_
            {index}.wav" for "7_anna_0.wav", "{label}/{speaker}_nohash_{index}.wav" for "yes/
            0a7c_nohash_0.wav". A field ends at the character that follows it. Without a slash it is
            the name of the file alone. None: the class is the name of the directory.
        class_names: the classes that are loaded, in the order of their indices. None: all, sorted.
        sample_rate: what all files must have, in Hz. None: any one rate.

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: if there is no clip in it; if a name does not fit; if files cannot be read, have
            different rates, or take more memory than is free.

    Example:
        ```python
        clips = sound.load_clips("spoken_digits", names="{label}_{speaker}_{index}.wav")
        training, test = clips.hold_out("speaker", ["s5", "s6"])
        ```
    """
    seconds = check_number("seconds", seconds, above=0, fix="pass 1.0 for a second")
    if sample_rate is not None:
        fix = "pass 16000, or leave it out"
        check_integer("sample_rate", sample_rate, at_least=1, fix=fix)
    folder = Path(directory)
    files = files_below(folder, SUFFIXES, "WAV files", "a clip", "clips", hidden=(".", "_"))
    described = {file: _fields_of(file.relative_to(folder), names) for file in files}
    _check_described(described, names)
    present = sorted({fields[_LABEL] for fields in described.values()})
    chosen = _class_names(class_names, present)
    kept = {file: each for file, each in described.items() if each[_LABEL] in chosen}
    rate = _common_rate(kept, sample_rate)
    samples = round(seconds * rate)
    _check_memory(len(kept), samples, seconds)
    x = np.zeros((len(kept), samples), "float32")
    damaged = []
    for row, file in zip(x, with_progress(list(kept), "Reading clips"), strict=True):
        try:
            _read_middle(file, row)
        except _DAMAGE as error:
            damaged.append(f"{file} ({one_line(error)[:100] or type(error).__name__})")
    _refuse_damaged(damaged, rate)
    keys = list(next(iter(kept.values())))
    fields = {key: np.array([fields[key] for fields in kept.values()]) for key in keys}
    indices = {name: index for index, name in enumerate(chosen)}
    y = np.array([indices[label] for label in fields.pop(_LABEL)], "int64")
    return Clips(x, y, chosen, rate, fields)


def _fields_of(path: Path, names: str | None) -> dict[str, str]:
    """The fields in the path of a file; none if it does not fit."""
    file = {_FILE: path.as_posix()}
    if names is None:
        return {_LABEL: path.parent.name, **file} if path.parent.name else {}
    parts = path.parts[-(names.count("/") + 1) :]
    match = _pattern(names).fullmatch("/".join(parts))
    return {**match.groupdict(), **file} if match else {}


def _pattern(names: str) -> re.Pattern[str]:
    """A field is what is before the next character of the template, so that matching is linear."""
    pieces = _FIELD.split(names)
    literals, fields = pieces[::2], pieces[1::2]
    is_apart = all(literals[1:-1])
    if _LABEL not in fields or len(set(fields)) < len(fields) or not is_apart or _FILE in fields:
        raise problem(
            f"names={names!r}",
            "a text with {label} and other fields in braces, each once, with text between them",
            "pass for example names='{label}_{speaker}_{index}.wav'",
        )
    text = re.escape(literals[0])
    for field, literal in zip(fields, literals[1:], strict=True):
        stop = re.escape(literal[:1]) if literal else ""
        text += f"(?P<{field}>[^/{stop}]+){re.escape(literal)}"
    return re.compile(text, re.IGNORECASE)


def _check_described(described: Mapping[Path, dict[str, str]], names: str | None) -> None:
    unfit = [str(file) for file, fields in described.items() if not fields]
    if not unfit:
        return
    more = f" and {len(unfit) - _MOST_NAMED} more" if len(unfit) > _MOST_NAMED else ""
    expected = "files in directories that are named after their class"
    fix = "pass names='{label}_{speaker}_{index}.wav', or however the files are named"
    if names is not None:
        expected = f"names like {names!r}"
        fix = "correct `names`, or move these files to a directory whose name begins with _"
    raise problem(f"{', '.join(unfit[:_MOST_NAMED])}{more}", expected, fix)


def _class_names(names: Sequence[str] | None, present: Sequence[str]) -> tuple[str, ...]:
    if names is None:
        return tuple(present)
    chosen = (names,) if isinstance(names, str) else tuple(names)
    missing = [label for label in chosen if label not in present]
    if missing or not chosen or len(set(chosen)) < len(chosen):
        listed = ", ".join(map(repr, present[:20])) + (", ..." if len(present) > 20 else "")
        raise problem(
            f"class_names={list(chosen)!r:.200}", f"some of {listed}, each once", "correct the list"
        )
    return chosen


def _common_rate(files: Iterable[Path], expected: int | None) -> int:
    rates: dict[int, list[Path]] = {}
    damaged = []
    for file in files:
        try:
            with wave.open(str(file), "rb") as opened:
                _check_header(opened, file)
                rates.setdefault(opened.getframerate(), []).append(file)
        except _DAMAGE as error:
            damaged.append(f"{file} ({one_line(error)[:100] or type(error).__name__})")
    _refuse_damaged(damaged, expected or next(iter(rates), 16000))
    if len(rates) == 1 and expected in (None, *rates):
        return next(iter(rates))
    listed = ", ".join(f"{len(found)} of {rate} Hz ({found[0]})" for rate, found in rates.items())
    rate = expected or max(rates, key=lambda each: len(rates[each]))
    raise problem(
        f"clips of other sample rates: {listed}",
        f"{rate} Hz in all of them",
        f"resample the others: {_CONVERT.format(rate=rate)}",
    )


def _check_header(opened: wave.Wave_read, file: Path) -> None:
    """Refuse what declares no samples, or more of them than the file has bytes."""
    rate, frames = opened.getframerate(), opened.getnframes()
    declared = frames * opened.getnchannels() * opened.getsampwidth()
    if not 1 <= rate <= MOST_SAMPLE_RATE:
        raise ValueError(f"{rate} samples in a second")
    if opened.getsampwidth() > 4:
        raise ValueError(f"samples of {8 * opened.getsampwidth()} bits")
    if frames < 1:
        raise ValueError("no samples in it")
    if declared > file.stat().st_size:
        size = file.stat().st_size
        raise ValueError(f"its header declares {declared} bytes, and there are {size}")


def _read_middle(file: Path, row: np.ndarray) -> None:
    """Put the middle of a clip into the middle of a row of zeros."""
    with wave.open(str(file), "rb") as opened:
        _check_header(opened, file)
        frames, channels, width = opened.getnframes(), opened.getnchannels(), opened.getsampwidth()
        count = min(frames, len(row))
        opened.setpos((frames - count) // 2)
        content = opened.readframes(count)
    if len(content) != count * channels * width:
        raise ValueError(f"its header declares {frames} samples, and some are missing")
    mono = _as_floats(content, width).reshape(count, channels).mean(axis=1)
    start = (len(row) - count) // 2
    row[start : start + count] = mono


def _as_floats(content: bytes, width: int) -> np.ndarray:
    """Samples of so many bytes as float64, from -1 to 1."""
    if width == 1:
        return (np.frombuffer(content, "u1").astype("float64") - 128) / 128
    if width == 3:
        padded = np.zeros((len(content) // 3, 4), "u1")
        padded[:, 1:] = np.frombuffer(content, "u1").reshape(-1, 3)
        content, width = padded.tobytes(), 4
    return np.frombuffer(content, f"<i{width}") / 2.0 ** (8 * width - 1)


def _refuse_damaged(damaged: Sequence[str], rate: int) -> None:
    if damaged:
        more = f" and {len(damaged) - _MOST_NAMED} more" if len(damaged) > _MOST_NAMED else ""
        raise problem(
            f"clips that cannot be read: {', '.join(damaged[:_MOST_NAMED])}{more}",
            "undamaged WAV files with PCM samples of 8, 16, 24 or 32 bits",
            f"copy them again, delete them, or convert them: {_CONVERT.format(rate=rate)}",
        )


def _check_memory(clips: int, samples: int, seconds: float) -> None:
    needed, free = 4 * clips * samples, free_bytes()
    if samples < 1 or needed > free:
        raise problem(
            f"seconds={seconds:g}, with which {clips} clips have {samples} samples each and take "
            f"{needed} bytes of memory",
            f"at least one sample, and at most {free} bytes, which are free",
            "pass the length of a word, such as seconds=1.0, or fewer files",
        )
