"""Small stores, whose records follow from their numbers."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import keras_kd
from keras_kd.teachers.stored import database

PROGRAMS = Path(__file__).parent / "programs"


def program(name):
    """A program of this directory as a module."""
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def light():
    """What the programs share: `new`, `records`, `write`, `check`."""
    return program("light")


@pytest.fixture
def start():
    """Start a program of this directory; it gets where keras_kd is, and these arguments."""
    processes = []

    def start(name, *arguments):
        root = Path(keras_kd.__file__).parent.parent
        command = [sys.executable, PROGRAMS / f"{name}.py", root, *arguments]
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    """Run a program of this directory to its end; what it printed, as JSON."""

    def run(name, *arguments):
        process = start(name, *arguments)
        out, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        return json.loads(out)

    return run


@pytest.fixture
def quick_disk(tmp_path):
    """A directory in memory where there is one: on a disk, most of the time is waiting for it."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture
def every_append(monkeypatch):
    """A commit after each append."""
    monkeypatch.setattr(database, "COMMIT_SECONDS", 0.0)


@pytest.fixture
def store(quick_disk, light, monkeypatch):
    """A complete store of 40 records, in small pages."""
    monkeypatch.setattr(database, "PAGE_BYTES", 512)
    with light.new(database, quick_disk / "store") as writer:
        light.write(writer, 40)
    return quick_disk / "store"
