"""Compilers, and a folder written for one model."""

import shutil
import subprocess
from pathlib import Path

import pytest

from keras_kd import tflite
from keras_kd._worker import Worker
from keras_kd.tflite import microcontroller
from keras_kd.tflite.microcontroller import running

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
# The interface of TFLM for main.cc, see tflm/tflm.h.
TFLM = Path(__file__).with_name("tflm")
CROSS = "arm-none-eabi-g++"


@pytest.fixture
def replace_worker(monkeypatch, tmp_path):
    """A function that puts other code in the place of what runs TFLM."""
    workers = []

    def replace(code):
        (tmp_path / "another_worker.py").write_text(f"def run_examples(*arguments):\n    {code}\n")
        monkeypatch.syspath_prepend(tmp_path)
        workers.append(Worker("another_worker"))
        monkeypatch.setattr(running, "_worker", workers[0])

    yield replace
    for worker in workers:
        worker.close()


@pytest.fixture(scope="session")
def compile_strictly():
    """A function that compiles or links with g++ (or another compiler) and every warning an error.

    It skips the test where the compiler is not installed.
    """

    def compile_files(*arguments, compiler="g++", standard="c++11"):
        if shutil.which(compiler) is None:
            pytest.skip(f"{compiler} is not installed")
        command = [compiler, *STRICT, f"-std={standard}", *map(str, arguments)]
        process = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert process.returncode == 0, process.stderr

    return compile_files


@pytest.fixture(scope="session")
def tflm():
    """The directory of headers that stand in for those of TFLM, and of what implements them."""
    return TFLM


@pytest.fixture(scope="session")
def projects(tmp_path_factory, micro_model, float_model, student, images):
    """Folders written for models with int8, uint8 and float32 at their ends, by that type."""
    if not microcontroller.is_installed():
        pytest.skip("tflite-micro is not installed")
    folders = {}
    ends = {"input_type": "uint8", "output_type": "uint8"}
    byte_model = tflite.convert(student, "int8", images, "microcontroller", **ends)
    models = {"int8": micro_model, "uint8": byte_model, "float32": float_model}
    for kind, model in models.items():
        folders[kind] = tmp_path_factory.mktemp("firmware") / "digits"
        microcontroller.write_project(
            model, folders[kind], "digits", images, labels=[f"label {i}" for i in range(10)]
        )
    return folders
