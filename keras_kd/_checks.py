"""Argument checks, and the form of all error messages of this package."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar, overload


def three_parts(received: str, expected: str, fix: str) -> str:
    """One line: what came, what was expected, how to fix it.

    Each part is a clause without its full stop: `three_parts("temperature=-1", "a number above 0",
    "try 4.0")`.
    """
    return f"Received {received}. Expected {expected}. To fix it: {fix}."


_Error = TypeVar("_Error", bound=Exception)


@overload
def problem(received: str, expected: str, fix: str) -> ValueError: ...


@overload
def problem(received: str, expected: str, fix: str, *, kind: Callable[[str], _Error]) -> _Error: ...


def problem(
    received: str, expected: str, fix: str, *, kind: Callable[[str], Exception] = ValueError
) -> Exception:
    """The exception to raise, whose message has `three_parts`.

    Args:
        received: what came.
        expected: what was expected.
        fix: what the caller can do.
        kind: the class of the exception.
    """
    return kind(three_parts(received, expected, fix))


def one_line(text: object) -> str:
    """`text` on one line: the errors of libraries can have many."""
    return " ".join(str(text).split())


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    fix: str,
) -> float:
    """Return `value` as a float if it is a finite number within the bounds.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is out of bounds, infinite or not a number (NaN).
    """
    bounds = [
        f"{word} {bound}"
        for word, bound in (("above", above), ("at least", at_least), ("at most", at_most))
        if bound is not None
    ]
    expected = " ".join(["a finite number", " and ".join(bounds)]).strip()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise problem(f"{name}={value!r}", expected, fix, kind=TypeError)
    number = float(value)
    inside = (
        abs(number) < float("inf")
        and (above is None or number > above)
        and (at_least is None or number >= at_least)
        and (at_most is None or number <= at_most)
    )
    if not inside:
        raise problem(f"{name}={value!r}", expected, fix)
    return number


def check_integer(name: str, value: Any, *, at_least: int | None = None, fix: str) -> int:
    """Return `value` as an int if it is a whole number, not below `at_least`.

    Raises:
        TypeError: if it is not of an integer type.
        ValueError: if it is too small.
    """
    expected = "an integer" if at_least is None else f"an integer of at least {at_least}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise problem(f"{name}={value!r}", expected, fix, kind=TypeError)
    if at_least is not None and value < at_least:
        raise problem(f"{name}={value!r}", expected, fix)
    return int(value)


def check_flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False.

    Raises:
        TypeError: if it is of any other type, even if truthy.
    """
    if not isinstance(value, bool):
        raise problem(f"{name}={value!r}", "True or False", "choose one of them", kind=TypeError)
    return value


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: if it is not; the message lists the choices.
    """
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise problem(f"{name}={value!r}", f"one of {listed}", "choose one of them")
    return value


def shapes_fit(first: Sequence[int | None], second: Sequence[int | None]) -> bool:
    """Whether two shapes are equal; `None` represents any size."""
    return len(first) == len(second) and all(
        one is None or other is None or one == other
        for one, other in zip(first, second, strict=True)
    )


def check_type(name: str, value: Any, expected: type, fix: str) -> None:
    """Refuse what is not of the type `expected`.

    Raises:
        TypeError: if it is not; `fix` is what to pass instead.
    """
    if not isinstance(value, expected):
        raise problem(
            f"{name}={value!r:.100}", f"a {expected.__name__}", f"pass {fix}", kind=TypeError
        )
