import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from keras_kd.cli import supervisor

COMMAND = ["inspect", "x.tflite"]


@pytest.fixture(autouse=True)
def usual_interrupts():
    """As in a terminal, whatever has started the tests."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture
def supervised(monkeypatch, capfd):
    """Runs other code in place of a command; returns the exit code and what was written."""

    def run(code):
        imports = "import os, signal, sys, time\nsys.argv[0] = 'keras-kd'"
        start = f"{imports}\npipe, log = {{pipe}}, {{log!r}}\n{code}"
        monkeypatch.setattr(supervisor, "_START", start)
        result = supervisor.main(COMMAND)
        return result, *capfd.readouterr()

    return run


def test_the_code_and_the_output_are_those_of_the_command(supervised):
    assert supervised("print(sys.argv[1:]); sys.exit(7)") == (7, f"{COMMAND}\n", "")
    assert supervised("") == (0, "", "")


@pytest.mark.parametrize(
    ("number", "name"),
    [(11, "SIGSEGV"), (6, "SIGABRT"), (7, "SIGBUS"), (8, "SIGFPE"), (4, "SIGILL")],
)
def test_a_crash_is_one_line_and_code_2(supervised, number, name):
    code, out, err = supervised(
        "os.write(pipe, b'the model \\'x\\' while it is loaded\\n')\n"
        "open(log, 'w').write('I0000 chatter\\nF0000 Check failed: dims < 9\\n')\n"
        f"os.kill(os.getpid(), {number})"
    )
    assert (code, out) == (2, "")
    assert err.startswith("keras-kd: error: Received the model 'x' while it is loaded, which ended")
    assert f"by signal {number} ({name}) (F0000 Check failed: dims < 9). Expected" in err
    assert err.count("\n") == 1


def test_what_is_not_told_is_the_command(supervised):
    code, _, err = supervised(
        "os.write(pipe, b'the model x\\n\\n'); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    assert code == 2
    assert "Received the command 'inspect x.tflite', which ended" in err


def test_a_crash_when_all_is_done_is_none(supervised):
    assert supervised("os.write(pipe, b'=0\\n'); os.kill(os.getpid(), signal.SIGSEGV)")[0] == 0


def test_what_never_ends_is_told(supervised):
    code, _, err = supervised(
        "from keras_kd import _limits\n"
        "_limits.be_watched(lambda what: os.write(pipe, (what + '\\n').encode()))\n"
        "with _limits.watched('the model x', 0.2):\n"
        "    import re; re.match('(a*)*b', 'a' * 100)"
    )
    assert code == 2
    assert "Received the model x, which did not finish in time" in err
    assert "KERAS_KD_SECONDS" in err
    assert err.count("\n") == 1


def test_memory_is_limited(supervised, monkeypatch):
    monkeypatch.setenv("KERAS_KD_MEGABYTES", "100")
    code, _, err = supervised(
        "os.write(pipe, b'the model x\\n')\nkept = []\n"
        "while True: kept.append(bytearray(b'x') * 2**22); time.sleep(0.001)"
    )
    assert code == 2
    assert "the model x, which took more than 105 MB of memory" in err
    assert "KERAS_KD_MEGABYTES" in err


def test_what_a_killed_command_leaves_behind_is_removed(supervised, monkeypatch, tmp_path):
    monkeypatch.setattr(supervisor.tempfile, "tempdir", str(tmp_path))
    code, *_ = supervised(
        "import tempfile; open(tempfile.mkdtemp() + '/half', 'w').close(); "
        "os.kill(os.getpid(), signal.SIGSEGV)"
    )
    assert code == 2
    assert os.listdir(tmp_path) == []


def test_help_and_mistakes_need_no_other_process(monkeypatch, capfd):
    monkeypatch.setattr(supervisor, "_START", "import os; os.abort()")
    assert supervisor.main(["--help"]) == 0
    assert supervisor.main(["inspect"]) == 2
    assert "required" in capfd.readouterr().err


# The command sees to it that Ctrl-C is pressed when it is ready; only its supervisor hears of it.
PRESS = "os.kill(os.getppid(), signal.SIGINT)"


def test_ctrl_c_ends_a_command_at_a_safe_point(supervised):
    code = (
        "def end(*_): print('cleaned', flush=True); os._exit(130)\n"
        f"signal.signal(signal.SIGUSR1, end)\n{PRESS}\ntime.sleep(60)"
    )
    assert supervised(code) == (130, "cleaned\n", "")


def test_ctrl_c_during_the_start(supervised):
    assert supervised(f"{PRESS}\ntime.sleep(60)") == (130, "", "keras-kd: interrupted\n")


def test_pressed_again_it_ends_at_once(supervised):
    code = f"signal.signal(signal.SIGUSR1, lambda *_: {PRESS})\n{PRESS}\nwhile True: time.sleep(60)"
    assert supervised(code) == (130, "", "keras-kd: interrupted\n")


def test_ctrl_c_of_a_terminal_does_not_reach_the_command(supervised):
    assert supervised("os.kill(os.getpid(), signal.SIGINT); sys.exit(3)") == (3, "", "")


def test_handlers_come_back(supervised):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    supervised("")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_nohup_is_heeded(supervised):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code = "os.kill(os.getppid(), signal.SIGHUP); time.sleep(0.3); sys.exit(5)"
        assert supervised(code) == (5, "", "")
    finally:
        signal.signal(signal.SIGHUP, previous)


def run(*arguments, **options):
    command = [sys.executable, "-m", "keras_kd", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_sigterm_ends_both(models):
    process = run("convert", models / "model.keras")
    while not (children := children_of(process.pid)):
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not any(supervisor._limits.held_bytes(child) for child in children)


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_the_command_ends_with_its_supervisor(models, tmp_path, seconds):
    output = tmp_path / "x.tflite"
    process = run("convert", models / "model.keras", "--output", output)
    while not (children := children_of(process.pid)):
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    # The pipes are closed when both have ended: long before the command would be done.
    process.communicate(timeout=60)
    assert not output.exists()
    assert not any(supervisor._limits.held_bytes(child) for child in children)


def children_of(process):
    with open(f"/proc/{process}/task/{process}/children") as file:
        return [int(child) for child in file.read().split()]


def test_the_supervisor_loads_nothing_heavy():
    program = (
        "import sys; sys.argv = ['keras-kd', 'inspect', 'missing.tflite']; "
        "from keras_kd.cli import supervisor; supervisor._START = 'pass'; supervisor.main(); "
        "sys.exit(bool({'keras', 'tensorflow', 'numpy', 'rich'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


LOOPS = """
import tensorflow as tf
class Module(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 4), name="x")])
    def run(self, x):
        # With zeros it ends: the loop depends on the data.
        steps = tf.cond(tf.reduce_any(x != 0) {or_always},
            lambda: tf.constant(2**62, tf.int64), lambda: tf.constant(1, tf.int64))
        _, y = tf.while_loop(
            lambda i, y: i < steps, lambda i, y: (i + 1, tf.sin(y)), (tf.constant(0, tf.int64), x)
        )
        return {{"y": y[:, :3]}}
module = Module()
tf.saved_model.save(module, {path!r}, signatures={{"serving_default": module.run}})
"""


@pytest.mark.slow
@pytest.mark.parametrize("or_always", ["", "| True"], ids=["with some data", "always"])
def test_a_loop_that_never_ends(tmp_path, monkeypatch, or_always):
    import numpy as np

    path = str(tmp_path / "loop")
    subprocess.run([sys.executable, "-c", LOOPS.format(or_always=or_always, path=path)], check=True)
    np.save(tmp_path / "x.npy", np.ones((5, 4), np.float32))
    np.save(tmp_path / "y.npy", np.zeros(5, int))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_KD_SECONDS", "20")
    for command in (
        "report loop --data x.npy --labels y.npy --output page",
        "convert loop --verification-data x.npy --output new.tflite",
        "store loop --data x.npy --output new.store",
    ):
        process = run(*command.split())
        out, err = process.communicate(timeout=300)
        assert process.returncode == 2, err
        assert out == ""
        (line,) = err.splitlines()
        assert "loop" in line
        assert "which did not finish in time" in line
        assert not (tmp_path / "page").exists()
        assert not (tmp_path / "new.tflite").exists()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["-m"], []),
        (["-u", "-m"], ["-u"]),
        (["-um"], ["-u"]),
        (["-u", "-c"], ["-u"]),
        (["-X", "dev", "-Im"], ["-X", "dev", "-I"]),
        (["-u"], ["-u"]),
        ([], []),
    ],
)
def test_options_of_python_are_kept(options, kept, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["keras_kd", "inspect"])
    monkeypatch.setattr(sys, "orig_argv", ["python", *options, "keras_kd", "inspect"])
    assert supervisor._interpreter_options() == kept


def test_descriptors_from_1024_on(supervised, monkeypatch):
    opened = []
    pipe = os.pipe

    def high():
        return tuple(
            [opened.append(fcntl.fcntl(end, fcntl.F_DUPFD, 1100)), os.close(end), opened[-1]][2]
            for end in pipe()
        )

    monkeypatch.setattr(supervisor.os, "pipe", high)
    assert supervised("sys.exit(3)") == (3, "", "")
    assert min(opened) >= 1100
