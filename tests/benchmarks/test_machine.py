import platform
import re

import pytest


@pytest.fixture(scope="module")
def machine(scripts):
    return scripts("machine")


def test_a_line_says_where_and_with_what(machine):
    line = machine.describe()
    assert "\n" not in line
    assert re.search(r", \d+ cores?, \d+ GiB of memory; ", line)
    assert f"Python {platform.python_version()}, TensorFlow 2." in line
    assert re.search(r", Keras 3\.[\d.]+", line)
    assert re.search(r"; \d{4}-\d\d-\d\d$", line)


def test_a_machine_that_says_nothing_of_its_processor_is_described(machine, monkeypatch):
    monkeypatch.setattr(machine, "_processor_facts", dict)
    assert machine.instructions() == set()
    assert machine.processor()


def test_a_framework_that_is_not_installed_is_left_out(machine, monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", {"keras": "Keras", "no-such-package": "Nothing"})
    assert [line.split()[0] for line in machine.versions()] == ["Keras"]
