"""A folder for firmware: what is in it, and that it compiles, runs, and notices what is wrong."""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import microcontroller

needs_tflm = pytest.mark.skipif(
    not microcontroller.is_installed(), reason="tflite-micro is not installed"
)
KINDS = ["int8", "uint8", "float32"]
FILES = [
    "CMakeLists.txt",
    "README.md",
    "digits.mk",
    "digits_data.cc",
    "digits_data.h",
    "digits_labels.h",
    "digits_ops.h",
    "digits_vectors.cc",
    "digits_vectors.h",
    "main.cc",
]
FAULTS = {
    "output": "output .*: 1 of 10 values differ",
    "nan": "output .*: . of 10 values differ",
    "input size": "vector 0: FAIL",
    "output size": "another size",
    "arena": "is too small",
    "invoke": "vector 2: FAIL",
}
# The library in this package can be linked with, but its headers are not in it: tflm.h has the
# layout of this version.
TESTED_TFLM = "0.dev20261023182759"
LOAD_AND_RUN = """
import ctypes, os, sys
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
from tflite_micro.python.tflite_micro import _runtime
sys.exit(ctypes.CDLL(sys.argv[1]).main())
"""


def _sources(folder):
    return [folder / "main.cc", folder / "digits_data.cc", folder / "digits_vectors.cc"]


def _arena(folder):
    return int(re.search(r"_ARENA_BYTES (\d+)", (folder / "digits_data.h").read_text()).group(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_is_complete(projects, kind):
    assert sorted(path.name for path in projects[kind].iterdir()) == FILES
    for path in projects[kind].iterdir():
        # Every gap of the templates is filled.
        assert not re.search(r"\$\{?(name|upper)", path.read_text())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiler", ["g++", "arm-none-eabi-g++"])
def test_it_compiles_without_warnings(projects, kind, compiler, compile_strictly, tflm, tmp_path):
    for name in ("digits_data", "digits_vectors"):
        compile_strictly(
            "-c", projects[kind] / f"{name}.cc", "-o", tmp_path / f"{name}.o", compiler=compiler
        )
        header = tmp_path / "header.c"
        header.write_text(f'#include "{name}.h"\n#include "digits_labels.h"\nint unused;\n')
        c_compiler = compiler.replace("g++", "gcc")
        arguments = ["-c", header, "-o", tmp_path / "header.o", f"-I{projects[kind]}"]
        arguments.append("-Wno-unused-variable")
        compile_strictly(*arguments, compiler=c_compiler, standard="c99")
    compile_strictly(
        "-c", projects[kind] / "main.cc", f"-I{tflm}", "-o", tmp_path / "main.o",
        compiler=compiler, standard="c++17",
    )  # fmt: skip


def test_the_array_is_aligned_and_has_the_bytes(projects, micro_model, compile_strictly, tmp_path):
    main = tmp_path / "hash.c"
    main.write_text("""
        #include <stdint.h>
        #include <stdio.h>
        #include "digits_data.h"
        int main(void) {
          uint32_t hash = 2166136261u;
          for (unsigned int i = 0; i < digits_data_length; ++i) {
            hash = (hash ^ digits_data[i]) * 16777619u;
          }
          printf("%u %u %u", digits_data_length, hash, (unsigned)((uintptr_t)digits_data % 16));
          return 0;
        }
    """)
    folder = projects["int8"]
    compile_strictly("-c", folder / "digits_data.cc", "-o", tmp_path / "data.o")
    compile_strictly(
        main, tmp_path / "data.o", f"-I{folder}", "-o", tmp_path / "hash",
        compiler="gcc", standard="c99",
    )  # fmt: skip
    printed = subprocess.run([tmp_path / "hash"], capture_output=True, text=True, check=True).stdout
    expected = 2166136261
    for byte in micro_model.content:
        expected = (expected ^ byte) * 16777619 % 2**32
    assert printed == f"{len(micro_model.content)} {expected} 0"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flag", [[], ["-DTFLM_BEFORE_2026"]])
def test_main_finds_the_expected_outputs(projects, kind, flag, compile_strictly, tflm, tmp_path):
    folder, program = projects[kind], tmp_path / "program"
    compile_strictly(
        *flag, f"-I{tflm}", f"-I{folder}", *_sources(folder), tflm / "stub.cc", "-o", program,
        standard="c++17",
    )  # fmt: skip
    process = subprocess.run([program], capture_output=True, text=True, check=False)
    assert process.returncode == 0
    assert process.stdout.splitlines()[1:] == [*(f"vector {i}: PASS" for i in range(3)), "PASS"]
    for fault, said in FAULTS.items():
        if (kind, fault) in (("float32", "output"), ("int8", "nan"), ("uint8", "nan")):
            continue
        environment = {**os.environ, "TFLM_FAULT": fault}
        process = subprocess.run(
            [program], capture_output=True, text=True, env=environment, check=False
        )
        assert process.returncode == 1, fault
        assert re.search(said, process.stdout), process.stdout
        assert "FAIL" in process.stdout.splitlines()[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_main_passes_in_the_real_tflm(projects, kind, compile_strictly, tflm, tmp_path):
    if importlib.metadata.version("tflite-micro") != TESTED_TFLM:
        pytest.skip(f"tflm.h has the layout of tflite-micro {TESTED_TFLM}")
    folder = tmp_path / "folder"
    shutil.copytree(projects[kind], folder)
    assert _run_in_tflm(folder, compile_strictly, tflm).splitlines()[-1] == "PASS"
    vectors = folder / "digits_vectors.cc"
    first_value = r"(_output_0\[[^{]*\{\s*\{\s*)[^,]+,"
    text, count = re.subn(first_value, r"\g<1>111,", vectors.read_text(), count=1)
    assert count == 1
    vectors.write_text(text)
    assert "vector 0: FAIL" in _run_in_tflm(folder, compile_strictly, tflm)


def test_the_measured_arena_is_enough_and_little_less_is_not(
    micro_model, images, compile_strictly, tflm, tmp_path
):
    if not microcontroller.is_installed() or (
        importlib.metadata.version("tflite-micro") != TESTED_TFLM
    ):
        pytest.skip(f"tflm.h has the layout of tflite-micro {TESTED_TFLM}")
    folder = tmp_path / "folder"
    microcontroller.write_project(micro_model, folder, "digits", images, margin=0)
    assert _run_in_tflm(folder, compile_strictly, tflm).splitlines()[-1] == "PASS"
    header, arena = folder / "digits_data.h", _arena(folder)
    header.write_text(header.read_text().replace(f"BYTES {arena}", f"BYTES {arena // 2}"))
    assert "is too small" in _run_in_tflm(folder, compile_strictly, tflm)


def _run_in_tflm(folder, compile_strictly, tflm):
    """What main.cc prints, run by the library of the Python package in a process of its own."""
    library = folder / "main.so"
    compile_strictly(
        "-shared", "-fPIC", f"-I{tflm}", f"-I{folder}", *_sources(folder), "-o", library,
        standard="c++17",
    )  # fmt: skip
    command = [sys.executable, "-c", LOAD_AND_RUN, library]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode in (0, 1)
    return process.stderr


def test_cmake_builds_the_library_and_the_test(projects, tflm, tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    folder = projects["int8"]
    (tmp_path / "CMakeLists.txt").write_text(f"""
        cmake_minimum_required(VERSION 3.13)
        project(firmware LANGUAGES CXX)
        add_library(tflm STATIC {tflm / "stub.cc"})
        target_include_directories(tflm PUBLIC {tflm} {folder})
        set(TFLM_LIBRARY tflm)
        add_subdirectory({folder} digits)
    """)
    for command in (["-S", tmp_path, "-B", tmp_path / "build"], ["--build", tmp_path / "build"]):
        subprocess.run(["cmake", *command], check=True, capture_output=True, timeout=120)
    program = tmp_path / "build" / "digits" / "digits_test"
    assert subprocess.run([program], capture_output=True, check=False).returncode == 0


def test_the_makefile_fragment_names_what_to_compile(projects, tflm, tmp_path):
    if shutil.which("make") is None or shutil.which("g++") is None:
        pytest.skip("make or g++ is not installed")
    makefile = tmp_path / "Makefile"
    makefile.write_text(
        f"include {projects['int8'] / 'digits.mk'}\n"
        "test: $(DIGITS_SRCS) $(DIGITS_TEST_SRCS)\n"
        f"\tg++ $(DIGITS_CXXFLAGS) -I{tflm} $^ {tflm / 'stub.cc'} -o $@\n"
    )
    subprocess.run(["make", "-C", tmp_path, "test"], check=True, capture_output=True, timeout=120)
    assert subprocess.run([tmp_path / "test"], capture_output=True, check=False).returncode == 0


def test_the_resolver_has_exactly_the_operators(projects):
    text = (projects["int8"] / "digits_ops.h").read_text()
    calls = re.findall(r"resolver\.(\w+)\(\)", text)
    assert calls == ["AddConv2D", "AddFullyConnected", "AddReshape", "AddSoftmax"]
    assert "MicroMutableOpResolver<4>" in text


def test_the_readme_counts_flash_and_ram(projects, micro_model, images):
    text = (projects["int8"] / "README.md").read_text()
    measured = microcontroller.run(micro_model, images[:1]).arena_bytes
    arena = _arena(projects["int8"])
    assert measured * 1.2 <= arena < measured * 1.2 + 16
    assert arena % 16 == 0
    weights, model = (
        int(re.search(rf"\| {part} \| (\d+) \|", text).group(1))
        for part in ("model: weights", "model")
    )
    assert 0 < weights < model == len(micro_model.content)
    for expected in (
        f"computer | {measured} |",
        f"| margin of 20 % | {arena - measured} |",
        f"| arena | {arena} |",
        f"| test vectors, for `main.cc` only | {3 * (64 + 10)} |",
        "| `image` | int8[1, 8, 8, 1] |",
        hashlib.sha256(micro_model.content).hexdigest(),
        "100.00% of the values bit-equal",
        "1 CONV_2D, 1 FULLY_CONNECTED, 1 RESHAPE, 1 SOFTMAX",
    ):
        assert expected in text


def test_the_readme_names_the_oldest_tflm(projects, student, images, tmp_path):
    assert "Any that has the operators" in (projects["int8"] / "README.md").read_text()
    model = tflite.convert(student, "int8", images, "microcontroller", per_tensor=False)
    microcontroller.write_project(model, tmp_path / "digits", "digits", images)
    assert (
        "TFLM of 2024-09-27 (commit 47b545074) or later"
        in (tmp_path / "digits" / "README.md").read_text()
    )
    # Each vector finds a runtime that knows the first scale only.
    old = tflite.TFLiteModel(model.flatbuffer.with_first_scale("FULLY_CONNECTED"))
    assert old.flatbuffer.most_scales("FULLY_CONNECTED") == 1
    stored = model.quantize_inputs(images)
    [new_outputs], [old_outputs] = (
        each.run_stored(stored, "builtin").values() for each in (model, old)
    )
    text = (tmp_path / "digits" / "digits_vectors.cc").read_text()
    rows = [
        tuple(int(value) for value in row.split(",") if value.strip())
        for row in re.findall(r"\{\n([-\d,\s]+)\}", text)
    ]
    flat = [tuple(row) for row in stored["image"].reshape(len(images), -1).tolist()]
    chosen = [flat.index(row) for row in rows[:3]]
    assert (new_outputs[chosen] != old_outputs[chosen]).any(axis=-1).all()


def test_vectors_are_real_examples(projects, micro_model, images):
    text = (projects["int8"] / "digits_vectors.cc").read_text()
    rows = [
        np.array([int(value) for value in row.split(",") if value.strip()])
        for row in re.findall(r"\{\n([-\d,\s]+)\}", text)
    ]
    stored = micro_model.quantize_inputs(images)["image"].reshape(len(images), -1)
    chosen = [
        next(i for i, row in enumerate(stored) if (row == vector).all()) for vector in rows[:3]
    ]
    assert len(set(chosen)) == 3
    expected = microcontroller.run(micro_model, images[chosen]).stored_outputs["output"]
    np.testing.assert_array_equal(np.stack(rows[3:]), expected)


@needs_tflm
@pytest.mark.slow
def test_an_lstm_starts_each_vector_anew(compile_strictly, tflm, tmp_path):
    import tf_keras

    student = tf_keras.Sequential([tf_keras.Input((5, 3)), tf_keras.layers.LSTM(4)])
    model = tflite.convert(student, target="microcontroller")
    data = np.random.default_rng(0).random((8, 5, 3), np.float32)
    # Planning an LSTM's memory takes more than stays allocated; without it the process would end.
    microcontroller.write_project(model, tmp_path / "folder", "digits", data, margin=0)
    assert "AddUnidirectionalSequenceLSTM" in (tmp_path / "folder/digits_ops.h").read_text()
    if importlib.metadata.version("tflite-micro") == TESTED_TFLM:
        assert _run_in_tflm(tmp_path / "folder", compile_strictly, tflm).endswith("PASS\n")


@needs_tflm
def test_resource_variables_get_room_and_their_first_values(
    with_variables, compile_strictly, tflm, tmp_path
):
    model, data = with_variables(), np.random.default_rng(0).random((8, 4), np.float32)
    folder = tmp_path / "folder"
    microcontroller.write_project(model, folder, "digits", data)
    main = (folder / "main.cc").read_text()
    assert "MicroResourceVariables::Create(allocator, 1)" in main
    assert "1 variable kept between calls" in (folder / "README.md").read_text()
    if importlib.metadata.version("tflite-micro") != TESTED_TFLM:
        pytest.skip(f"tflm.h has the layout of tflite-micro {TESTED_TFLM}")
    assert _run_in_tflm(folder, compile_strictly, tflm).endswith("PASS\n")
    # With a mere Reset() the second vector would begin with zeros.
    begin = main.index("  interpreter.~MicroInterpreter();")
    end = main.index("AllocateTensors()", begin)
    check = "  if (static_cast<int>(interpreter."
    reset = f"{main[:begin]}{check}Reset(){main[end + len('AllocateTensors()') :]}"
    (folder / "main.cc").write_text(reset)
    assert "vector 1: FAIL" in _run_in_tflm(folder, compile_strictly, tflm)


@needs_tflm
@pytest.mark.parametrize(("kind", "words"), [("lstm", "Call `Reset()`"), ("none", "None: the out")])
def test_the_readme_says_what_to_do_with_state(fused_lstm, float_model, kind, words, tmp_path):
    model = fused_lstm if kind == "lstm" else float_model
    microcontroller.write_project(model, tmp_path / "folder", "digits")
    assert words in (tmp_path / "folder" / "README.md").read_text()


@needs_tflm
def test_without_examples_the_vectors_are_random(micro_model, tmp_path):
    paths = microcontroller.write_project(micro_model, tmp_path / "new")
    assert [path.name for path in paths] == sorted(path.name for path in paths)
    assert "random values" in (tmp_path / "new" / "README.md").read_text()
    assert not (tmp_path / "new" / "model_labels.h").exists()


@needs_tflm
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "my-model"}, "an identifier of C"),
        ({"margin": -0.1}, r"margin=-0\.1.*at least 0"),
        ({"labels": ["a", "b"]}, "2 labels for the outputs .* a label for each value"),
        ({"x": np.zeros((5, 8, 8, 1), np.float32)}, "1 different examples .* at least 3"),
        ({"x": np.zeros((5, 9, 9, 1), np.float32)}, "of shape"),
    ],
)
def test_wrong_arguments_leave_nothing(micro_model, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        microcontroller.write_project(micro_model, tmp_path / "new", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_labels_must_be_names(micro_model, tmp_path):
    with pytest.raises(TypeError, match=r"labels='abc'.*a list of names"):
        microcontroller.write_project(micro_model, tmp_path / "new", labels="abc")


@needs_tflm
def test_what_tflm_refuses_leaves_nothing(student, tmp_path):
    with pytest.raises(ValueError, match="TensorFlow Lite Micro refuses"):
        microcontroller.write_project(tflite.convert(student, "float16"), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_tflm_does_not_know_is_refused(micro_model, monkeypatch, tmp_path):
    monkeypatch.setattr(micro_model, "operators", {"GELU": 1}, raising=False)
    with pytest.raises(ValueError, match="operators GELU"):
        microcontroller.write_project(micro_model, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@needs_tflm
def test_a_project_takes_the_place_of_an_older_one_and_of_nothing_else(micro_model, tmp_path):
    files = tflite.microcontroller.write_project(micro_model, tmp_path)
    assert tflite.microcontroller.write_project(micro_model, tmp_path) == files
    (tmp_path / "README.md").write_text("My own notes.")
    with pytest.raises(FileExistsError, match=r"whose README.md is not of keras_kd"):
        tflite.microcontroller.write_project(micro_model, tmp_path)
    assert (tmp_path / "README.md").read_text() == "My own notes."
    with pytest.raises(TypeError, match=r"model='x.tflite'.*a TFLiteModel.*TFLiteModel.load"):
        tflite.microcontroller.write_project("x.tflite", tmp_path)
