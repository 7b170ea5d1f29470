"""The program `keras-kd`: it runs a command in a second process and reports how that ends.

Models that come from anywhere can crash TensorFlow, run forever or fill the memory. This process
imports nothing that could: it turns the end of the other one into one line and an exit code.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from keras_kd import _limits
from keras_kd._checks import three_parts
from keras_kd._native import last_lines
from keras_kd.cli import interruption, program, terminal
from keras_kd.cli.arguments import BAD_INPUT, PROGRAM
from keras_kd.cli.failures import message_of

# What the process with the command takes for Ctrl-C. A terminal sends SIGINT to both, and this one
# passes it on: otherwise it would come twice from a terminal, and not at all from `kill -INT`.
_INTERRUPT = signal.SIGUSR1
# The child finds modules where this process does; by its name keras_kd recognises a command.
_START = (
    "import sys; sys.path[:] = {path!r}; sys.argv[0] = 'keras-kd'; "
    "from keras_kd.cli.supervisor import run_supervised; "
    "sys.exit(run_supervised({parent}, {pipe}, {log!r}))"
)
_SECONDS_BETWEEN_LOOKS = 0.2
_DEATH_SIGNAL_OF_PARENT = 1  # PR_SET_PDEATHSIG of prctl


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line in a child process; see `program.main`.

    Returns:
        The exit code of `program.main`, and 2 as well if the process has crashed or has taken more
        memory or time than it may.
    """
    _open_standard_streams()
    # Students come from any backend of Keras; converting and compressing them needs this one.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        program.parser().parse_args(arguments)
    except SystemExit as exit_:
        # --help and mistakes need no other process.
        return int(exit_.code or 0)
    try:
        return _Supervisor(arguments).run()
    except OSError as error:
        terminal.say(f"{PROGRAM}: error: {message_of(error, None)}")
        return BAD_INPUT


def _open_standard_streams() -> None:
    """Let what is closed lead nowhere; other files would take the numbers of the streams."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def run_supervised(parent: int, pipe: int, log: str) -> int:
    """Run the command line in the process that is watched.

    Args:
        parent: the process that watches.
        pipe: the file descriptor on which the other process reads what this one does.
        log: the file for what native code writes.
    """
    interruption.use_signal(_INTERRUPT)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _end_with(parent)
    terminal.native_log = log

    def tell(what: str) -> None:
        os.write(pipe, f"{what}\n".encode(errors="backslashreplace"))

    _limits.be_watched(tell)
    code = program.main()
    # Libraries that crash while they take leave change nothing any more.
    tell(f"={code}")
    return code


class _Supervisor:
    """Runs one command."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen | None = None
        # Signals that came before there was a process.
        self._waiting: list[int] = []
        self._presses = 0
        self._most_bytes = _limits.most_bytes()
        self._is_too_large = False
        # What the command has reported that it does; "=" and its exit code in the end.
        self._doing = ""
        self._code: int | None = None

    def run(self) -> int:
        """Run it and return the exit code."""
        handlers = {
            number: signal.signal(number, handler)
            for number, handler in (
                (signal.SIGINT, self._on_interrupt),
                (signal.SIGTERM, self._pass_on),
                (signal.SIGHUP, self._pass_on),
            )
            # nohup, for example, has them ignored.
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            with tempfile.TemporaryDirectory(prefix="keras_kd_") as directory:
                log = Path(directory) / "messages"
                log.touch()
                code = self._end_of_command(directory, log)
                messages = log.read_text(encoding="utf-8", errors="replace")
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self._exit_code(code, messages)

    def _end_of_command(self, directory: str, log: Path) -> int:
        reader, writer = os.pipe()
        start = _START.format(path=sys.path, parent=os.getpid(), pipe=writer, log=str(log))
        self._process = subprocess.Popen(
            [sys.executable, *_interpreter_options(), "-c", start, *self._arguments],
            pass_fds=(writer,),
            # What a killed command leaves behind is removed with the directory.
            env={**os.environ, "TMPDIR": directory},
            # From its first moment on.
            preexec_fn=_ignore_ctrl_c,
        )
        os.close(writer)
        for number in self._waiting:
            self._process.send_signal(number)
        self._watch(reader)
        os.close(reader)
        return self._process.wait()

    def _on_interrupt(self, *_: object) -> None:
        self._presses += 1
        # A second Ctrl-C does not wait for a safe point.
        self._send(_INTERRUPT if self._presses == 1 else signal.SIGKILL)

    def _pass_on(self, number: int, _: object) -> None:
        self._send(number)

    def _send(self, number: int) -> None:
        if self._process is None:
            self._waiting.append(number)
        else:
            self._process.send_signal(number)

    def _watch(self, reader: int) -> None:
        """Read what the command reports until it has ended; end it if it takes too much memory."""
        unread = b""
        process = self._process
        assert process is not None
        # select.select takes no descriptors from 1024 on.
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        while True:
            if poll.poll(1000 * _SECONDS_BETWEEN_LOOKS):
                received = os.read(reader, 4096)
                if not received:
                    return
                *lines, unread = (unread + received).split(b"\n")
                for line in lines:
                    self._note(line.decode(errors="replace"))
            elif _limits.held_bytes(process.pid) > self._most_bytes:
                self._is_too_large = True
                process.kill()

    def _note(self, line: str) -> None:
        if line.startswith("="):
            self._code = int(line[1:])
        else:
            self._doing = line

    def _exit_code(self, code: int, messages: str) -> int:
        """The exit code; if the command could not report why it ended, report it."""
        if self._code is not None:
            return self._code
        if code >= 0:
            return code
        if self._presses or -code == _INTERRUPT:
            terminal.say(f"{PROGRAM}: interrupted")
            return program.INTERRUPTED
        if -code in (signal.SIGTERM, signal.SIGHUP):
            return 128 - code
        terminal.say(f"{PROGRAM}: error: {self._reason(-code, messages)}")
        return BAD_INPUT

    def _reason(self, number: int, messages: str) -> str:
        what = self._doing or f"the command {' '.join(self._arguments)[:200]!r}"
        if self._is_too_large:
            return three_parts(
                f"{what}, which took more than {self._most_bytes / 1e6:.0f} MB of memory",
                "a model and data that leave some of the memory free",
                "make them smaller, free memory, or set the environment variable "
                f"{_limits.MEGABYTES} to what may be used (0: no limit)",
            )
        if number == signal.SIGALRM:
            return three_parts(
                f"{what}, which did not finish in time",
                "a model that finishes",
                "save the model again without loops that never end; if it only needs longer, set "
                f"the environment variable {_limits.SECONDS} (0: no limit)",
            )
        message = last_lines(messages, 1)[-300:]
        hint = ", probably because the memory was full" if number == signal.SIGKILL else ""
        return three_parts(
            f"{what}, which ended the process by {_limits.signal_name(number)}{hint}"
            f"{message and f' ({message})'}",
            "an undamaged model that TensorFlow can run",
            "copy it again, or save it again; TF_CPP_MIN_LOG_LEVEL=0 shows TensorFlow's messages",
        )


def _interpreter_options() -> list[str]:
    """Those of Python itself, such as -u."""
    options = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)]
    last = options[-1] if options else ""
    if last.startswith("-") and not last.startswith("--") and last.endswith(("m", "c")):
        # What Python runs is a module or code, and not what is run here; "-um" is "-u -m".
        return [*options[:-1], *([last[:-1]] if len(last) > 2 else [])]
    return options


def _ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with(parent: int) -> None:
    """Have Linux end this process with the one that watches it, however that one ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL_OF_PARENT, signal.SIGKILL)
    # It may have ended before.
    if os.getppid() != parent:
        os._exit(1)
