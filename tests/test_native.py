import os
import sys

import pytest

from keras_kd._native import captured_stderr


def test_collects_what_c_code_writes_and_gives_the_descriptor_back(capfd):
    with captured_stderr() as captured:
        os.write(2, b"first\n\n second \n")
        print("standard output goes on")
    os.write(2, b"after\n")
    assert captured.text == "first\n\n second \n"
    assert captured.last_lines(2) == "first; second"
    assert capfd.readouterr() == ("standard output goes on\n", "after\n")


def test_gives_the_descriptor_back_after_an_error(capfd):
    with pytest.raises(FileNotFoundError), captured_stderr():
        os.stat("no such file")
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "after\n"


def test_what_tensorflow_says_of_itself_is_no_reason():
    with captured_stderr() as captured:
        os.write(2, b"W0000 00:00:1795296727.525442 10342 loader.cc:1] slow\nerror: no kernel\n")
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called\n")
        os.write(2, b"I0000 00:00:1795296727.525442 10342 reader.cc:83] Reading SavedModel\n")
    assert captured.last_lines(3) == "error: no kernel"
