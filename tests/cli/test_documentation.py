"""The page about the command line speaks of every option, and of no other."""

import argparse
import re
from pathlib import Path

import pytest

from keras_kd.cli.program import parser

PAGE = Path(__file__).parents[2] / "docs" / "command_line.md"
SUBPARSERS = next(
    action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
)


def section(command):
    text = PAGE.read_text(encoding="utf-8")
    return re.search(rf"^## keras-kd {command}$(.*?)(?=^## )", text, re.S | re.M).group(1)


def options(command):
    actions = SUBPARSERS.choices[command]._actions
    return {name for action in actions for name in action.option_strings if name[:2] == "--"}


def test_every_command_has_a_section():
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## keras-kd (\w+)$", text, re.M) == list(SUBPARSERS.choices)


@pytest.mark.parametrize("command", SUBPARSERS.choices)
def test_options(command):
    rows = [line.split("|")[1] for line in section(command).splitlines() if line.startswith("|")]
    explained = {name for row in rows for name in re.findall(r"`(--[a-z-]+)`", row)}
    assert explained == options(command) - {"--help"}


@pytest.mark.parametrize("command", SUBPARSERS.choices)
def test_examples_are_accepted(command):
    code = section(command).replace("\\\n", " ")
    examples = re.findall(r"^    keras-kd (.*)$", code, re.M)
    assert examples
    for example in examples:
        assert parser().parse_args(example.split()).run
