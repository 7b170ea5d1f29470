import socket

from keras_kd.evaluation.machine import machine, versions


def test_what_computed_is_told_and_not_whose_it_is():
    found = machine()
    assert found["processor"]
    assert found["cores"] >= 1
    assert found["packages"]["keras"].startswith("3.")
    assert found["packages"]["ai-edge-litert"]
    assert socket.gethostname() not in str(found)


def test_what_is_not_installed_has_no_version():
    assert versions(("no-such-package", "numpy")).keys() == {"numpy"}
