"""Compilers, and a folder written for one model."""

import importlib.metadata
import shutil
import subprocess
import sys
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
STATIC = "-DTF_LITE_STATIC_MEMORY"
# The library in this package can be linked with, but its headers are not in it: tflm.h has the
# layout of this version.
TESTED_TFLM = "0.dev20261023182759"
LOAD_AND_RUN = """
import ctypes, os, sys
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
from tflite_micro.python.tflite_micro import _runtime
sys.exit(ctypes.CDLL(sys.argv[1]).main())
"""


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
def run_in_tflm(compile_strictly, tflm):
    """A function that runs a folder in the library of TFLM's Python package, and what it printed.

    Its `main` is that of the folder, or that of a file in C.
    """
    if not microcontroller.is_installed() or (
        importlib.metadata.version("tflite-micro") != TESTED_TFLM
    ):
        pytest.skip(f"tflm.h has the layout of tflite-micro {TESTED_TFLM}")

    def run(folder, program=None, *flags):
        sources = [path for path in sorted(folder.glob("*.cc")) if path.name != "main.cc"]
        library, compiled = folder / "main.so", folder / "main.cc"
        if program is not None:
            compiled = folder / "program.o"
            (folder / "program.c").write_text(program)
            compile_strictly(
                "-c", "-fPIC", folder / "program.c", "-o", compiled, compiler="gcc", standard="c99"
            )
        compile_strictly(
            "-shared", "-fPIC", STATIC, *flags, f"-I{tflm}", f"-I{folder}", *sources, compiled,
            "-o", library, standard="c++17",
        )  # fmt: skip
        command = [sys.executable, "-c", LOAD_AND_RUN, library]
        process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert process.returncode in (0, 1), process.stderr
        return process.stderr + process.stdout

    return run


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
            model, folders[kind], "digits", images, class_names=[f"class {i}" for i in range(10)]
        )
    return folders
