import json
import os
import subprocess
import sys
import warnings

import pytest

from keras_kd import cli, tflite
from keras_kd.cli import terminal
from keras_kd.cli.terminal import Outcome


@pytest.mark.parametrize("level", [None, "0"])
def test_native_messages_are_shown_only_to_who_set_the_log_level(level, monkeypatch, capfd):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    with terminal.quiet(print_elsewhere=False):
        os.write(2, b"native\n")
        print("python", file=sys.stderr)
    os.write(2, b"afterwards\n")
    said = capfd.readouterr().err.splitlines()
    assert said == [*(["native"] if level else []), "python", "afterwards"]
    assert os.environ.get("TF_CPP_MIN_LOG_LEVEL") == level


def test_standard_output_is_kept_for_json(capfd):
    with terminal.quiet(print_elsewhere=True):
        print("somebody prints")
    terminal.show(Outcome("words", {"number": float("nan"), "list": [1.5, (2, None)]}), True)
    out, err = capfd.readouterr()
    assert json.loads(out) == {"number": None, "list": [1.5, [2, None]]}
    assert err == "somebody prints\n"


def test_warnings_of_this_package_are_told_once_and_those_of_others_not():
    with terminal.quiet(print_elsewhere=False) as lines:
        own = os.path.join(os.path.dirname(cli.__file__), "convert.py")
        for _ in range(2):
            warnings.warn_explicit("look\nhere", UserWarning, own, 1)
        warnings.warn_explicit("old", DeprecationWarning, own, 1)
        warnings.warn_explicit("noise", UserWarning, "/elsewhere.py", 1)
    assert lines == ["look here"]


def test_names_in_files_cannot_steer_the_terminal(capsys):
    terminal.show(Outcome("a\x1b[2Jb\nsecond \ud800 line µ", {}), False)
    assert capsys.readouterr().out == "a\\x1b[2Jb\nsecond \\ud800 line µ\n"


def test_a_terminal_sees_progress_and_a_file_does_not(capsys, monkeypatch):
    with terminal.working("reading") as say:
        say("converting [all] of it")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with terminal.working("reading") as say:
        say("converting [all] of it")
    out, err = capsys.readouterr()
    assert not out
    assert "converting [all] of it ..." in err


def test_unreadable_locale(tmp_path):
    """Where the terminal knows only ASCII, the rest is escaped and nothing fails."""
    process = subprocess.run(
        [sys.executable, "-m", "keras_kd", "inspect", str(tmp_path / "größe.tflite")],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert process.returncode == 2
    assert b"gr\\xf6\\xdfe.tflite" in process.stderr


def test_commands_return_what_show_prints(models, run):
    text = run("inspect", models / "model.tflite")
    assert text == f"{tflite.TFLiteModel.load(models / 'model.tflite').inspect()}\n"
