"""A bar is shown to people who wait at a terminal; logs get a line at times."""

import io

import pytest
from rich.console import Console

from keras_kd import _progress
from keras_kd._progress import Progress, with_progress


@pytest.fixture
def shown(monkeypatch):
    """What happened to the bar."""
    from rich.progress import Progress as Bar

    happened = []
    monkeypatch.setattr(Bar, "start", lambda bar: happened.append("start"))
    monkeypatch.setattr(Bar, "stop", lambda bar: happened.append("stop"))
    return happened


@pytest.mark.parametrize(
    ("seconds", "is_terminal", "expected"),
    [(-1, True, ["start", "stop"]), (1000, True, []), (-1, False, [])],
)
def test_the_bar_comes_late_and_on_a_terminal(seconds, is_terminal, expected, shown, monkeypatch):
    monkeypatch.setattr(_progress, "_SECONDS_WITHOUT_NEWS", seconds)
    monkeypatch.setattr("rich.console.Console.is_terminal", is_terminal)
    assert list(with_progress([1, 2, 3], "Counting")) == [1, 2, 3]
    assert shown == expected
    shown.clear()
    with Progress("Counting") as progress:
        progress.advance(2)
        progress.advance()
    assert shown == expected


def test_the_bar_goes_when_something_fails(shown, monkeypatch):
    monkeypatch.setattr(_progress, "_SECONDS_WITHOUT_NEWS", -1)
    monkeypatch.setattr("rich.console.Console.is_terminal", True)

    def fail():
        with Progress("Counting") as progress:
            progress.advance()
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fail()
    assert shown == ["start", "stop"]


def test_logs_get_fewer_and_fewer_lines(monkeypatch, capsys):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr("rich.console.Console.is_terminal", False)
    with Progress("Counting", 20) as progress:
        for _ in range(20):
            progress.advance()
    assert capsys.readouterr().err.splitlines() == [
        "Counting: 5 of 20 (25 %), 25 s",
        "Counting: 8 of 20 (40 %), 40 s",
        "Counting: 13 of 20 (65 %), 65 s",
        "Counting: 20 of 20 (100 %), 100 s",
    ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_stages_are_shown_from_the_beginning_and_stay(is_terminal, shown):
    console = Console(file=io.StringIO(), force_terminal=is_terminal)
    with Progress("train", 2, console=console) as progress:
        assert shown == ["start"] * is_terminal
        progress.advance(2)
    assert shown == ["start", "stop"] * is_terminal
    assert console.file.getvalue() == ("" if is_terminal else "train: 0 s\n")


def test_a_stage_that_fails_is_not_said_to_be_done(shown):
    console = Console(file=io.StringIO())
    with pytest.raises(RuntimeError), Progress("train", 2, console=console):
        raise RuntimeError("enough")
    assert console.file.getvalue() == ""


def test_steps_without_an_end_are_counted(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "_SECONDS_WITHOUT_A_LINE", -1)
    monkeypatch.setattr("rich.console.Console.is_terminal", False)
    with Progress("Counting") as progress:
        progress.advance(1200)
    assert capsys.readouterr().err == "Counting: 1,200, 0 s\n"
