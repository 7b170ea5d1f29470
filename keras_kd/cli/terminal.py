"""Output of a command: results and progress, without the output of libraries."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_kd._checks import one_line

_PACKAGE = Path(__file__).parents[1]
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"

# Where native messages go; they are shown only as the last ones before a crash.
native_log = os.devnull


@dataclass(frozen=True)
class Outcome:
    """The result of a command, for people and for programs.

    Attributes:
        text: what is printed.
        data: what is printed with `--json`.
        failures: failed checks, a line each: the command ends with code 1.
    """

    text: str
    data: dict[str, Any]
    failures: Sequence[str] = ()


def show(outcome: Outcome, as_json: bool) -> None:
    """Print the result to standard output."""
    if as_json:
        from keras_kd._json import json_value

        print(json.dumps(json_value(outcome.data), indent=2, allow_nan=False))
    else:
        print(_printable(outcome.text, sys.stdout.encoding))


def say(line: str) -> None:
    """Print a line to standard error."""
    print(_printable(line, sys.stderr.encoding), file=sys.stderr)


@contextmanager
def quiet(*, print_elsewhere: bool) -> Iterator[list[str]]:
    """Keep from the terminal what libraries write there while a command runs.

    What TensorFlow's C++ writes to file descriptor 2 goes to `native_log`; who has set TensorFlow's
    log level gets the messages of that level. Python's own standard error stays.

    Args:
        print_elsewhere: whether what is printed goes to standard error, so that standard output
            holds nothing but JSON.

    Yields:
        A list which in the end has this package's warnings, a line each.
    """
    lines: list[str] = []
    with ExitStack() as stack:
        if _LOG_LEVEL not in os.environ:
            stack.enter_context(_without_native_messages())
            stack.enter_context(_without_logs())
        if print_elsewhere:
            stack.enter_context(redirect_stdout(sys.stderr))
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        yield lines
        own = [warning for warning in caught if _PACKAGE in Path(warning.filename).parents]
        lines += dict.fromkeys(
            one_line(warning.message)
            for warning in own
            if issubclass(warning.category, UserWarning)
        )


@contextmanager
def working(description: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something is going on; yields a function that changes the text."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(_plain(description)) as status:
        yield lambda text: status.update(_plain(text))


@contextmanager
def _without_native_messages() -> Iterator[None]:
    os.environ[_LOG_LEVEL] = "3"
    sys.stderr.flush()
    python_stderr, original = sys.stderr, os.dup(2)
    with (
        open(native_log, "a") as nowhere,
        os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace") as kept,
    ):
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = kept
        try:
            yield
        finally:
            sys.stderr = python_stderr
            os.dup2(original, 2)
            os.close(original)
            del os.environ[_LOG_LEVEL]


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep what libraries log in Python, such as Keras' advice on files that it reads.

    Their handlers would also hold on to a standard error that is closed when the command ends.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(previous)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(f"{text} ...")


def _printable(text: str, encoding: str | None) -> str:
    """The text, with escapes for what would steer the terminal or what it cannot show.

    Names in files of others may hold anything.
    """
    safe = "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in text
    )
    encoding = encoding or "utf-8"
    return safe.encode(encoding, "backslashreplace").decode(encoding)
