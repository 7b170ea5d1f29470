"""From command-line arguments to an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from keras_kd._version import __version__
from keras_kd.cli import (
    benchmark,
    convert,
    fit,
    inspect,
    quickstart,
    report,
    store,
    terminal,
    verify,
)
from keras_kd.cli.arguments import BAD_INPUT, PROGRAM, Parser
from keras_kd.cli.failures import DEBUG, in_options, message_of
from keras_kd.cli.interruption import interruptible

# A check failed: a file that is not that of a model.
FAILED = 1
# What the shell reports for a program that was ended by Ctrl-C.
INTERRUPTED = 128 + signal.SIGINT
# And for one whose output is not read any more. Windows has no signal of that name.
BROKEN_PIPE = 128 + 13
_COMMANDS = (quickstart, store, fit, convert, inspect, verify, benchmark, report)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None: those of this process.

    Returns:
        The exit code: 0, 1 if a check has failed, 2 on bad input, 130 after Ctrl-C, 141 if nothing
        reads the output.
    """
    arguments = interruption = None
    code = 0
    try:
        with interruptible() as interruption:
            arguments = parser().parse_args(argv)
            code = _run(arguments)
            sys.stdout.flush()
    except SystemExit as exit_:  # argparse ends so, after --help and after bad options.
        return int(exit_.code or 0)
    except BrokenPipeError:
        # Whoever reads, such as `head`, has seen enough; nor is there anyone to flush to at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        # What is interrupted may fail in its own way.
        if isinstance(error, KeyboardInterrupt) or (interruption and interruption.was_asked_for):
            terminal.say(f"{PROGRAM}: interrupted")
            return INTERRUPTED
        if os.environ.get(DEBUG, "0") != "0":
            traceback.print_exception(error)
        terminal.say(f"{PROGRAM}: error: {message_of(error, arguments)}")
        return BAD_INPUT
    return code


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    result = Parser(
        prog=PROGRAM,
        description="Knowledge distillation for Keras: from a teacher to a verified student on a "
        "device.",
    )
    result.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = result.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return result


def _run(arguments: argparse.Namespace) -> int:
    as_json = getattr(arguments, "json", False)
    with terminal.quiet(print_elsewhere=as_json) as warnings:
        outcome = arguments.run(arguments)
    for warning in warnings:
        terminal.say(f"{PROGRAM}: warning: {in_options(warning, arguments)}")
    if outcome is None:
        return 0
    terminal.show(outcome, as_json)
    for failure in outcome.failures:
        terminal.say(f"{PROGRAM}: {in_options(failure, arguments)}")
    return FAILED if outcome.failures else 0
