"""A folder for firmware: what is in it, and that it compiles, runs, and notices what is wrong."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from _disk import files_of_at_most

from keras_kd import tflite
from keras_kd.tflite import microcontroller

needs_tflm = pytest.mark.skipif(
    not microcontroller.is_installed(), reason="tflite-micro is not installed"
)
KINDS = ["int8", "uint8", "float32"]
FILES = [
    "CMakeLists.txt",
    "README.md",
    "digits.cc",
    "digits.h",
    "digits.mk",
    "digits_class_names.h",
    "digits_data.cc",
    "digits_data.h",
    "digits_ops.h",
    "digits_test.cc",
    "digits_test.h",
    "digits_vectors.cc",
    "digits_vectors.h",
    "idf_component.yml",
    "library.properties",
    "main.cc",
    "zephyr/CMakeLists.txt",
    "zephyr/Kconfig",
    "zephyr/module.yml",
]
FAULTS = {
    "output": "output .*: 1 of 10 values differ",
    "nan": "output .*: . of 10 values differ",
    "input size": "another size",
    "output size": "another size",
    "arena": "'missing: N' or 'Too many buffers' is an arena that is too small",
    "invoke": "vector 2: FAIL",
}
ROOT = Path(__file__).parents[3]
STATIC = "-DTF_LITE_STATIC_MEMORY"


def _sources(folder):
    return sorted(folder.glob("*.cc"))


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _arena(folder):
    return int(re.search(r"_ARENA_BYTES (\d+)", (folder / "digits_data.h").read_text()).group(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_is_complete(projects, kind):
    files = _files(projects[kind])
    assert [str(path.relative_to(projects[kind])) for path in files] == FILES
    for path in files:
        # Every gap of the templates is filled.
        assert not re.search(r"\$\{?(name|upper)", path.read_text())


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiler", ["g++", "arm-none-eabi-g++"])
def test_it_compiles_without_warnings(projects, kind, compiler, compile_strictly, tflm, tmp_path):
    folder = projects[kind]
    for source in _sources(folder):
        # TFLM wants C++17, libraries of the Arduino IDE are compiled as C++14.
        compile_strictly(
            "-c", source, f"-I{tflm}", STATIC, "-DDIGITS_PROFILE", "-Wshadow",
            "-o", tmp_path / "object.o", compiler=compiler,
        )  # fmt: skip
    header = tmp_path / "header.c"
    names = ["digits", "digits_data", "digits_class_names", "digits_test", "digits_vectors"]
    header.write_text("".join(f'#include "{name}.h"\n' for name in names) + "int unused;\n")
    compile_strictly(
        "-c", header, f"-I{folder}", "-Wno-unused-variable", "-o", tmp_path / "header.o",
        compiler=compiler.replace("g++", "gcc"), standard="c99",
    )  # fmt: skip


@needs_tflm
def test_a_full_disk_keeps_the_folder_before(micro_model, images, tmp_path):
    folder = tmp_path / "digits"
    microcontroller.write_project(micro_model, folder, "digits")
    before = {path: path.read_bytes() for path in _files(tmp_path)}
    # Room for the model, which is run first, but not for its bytes as text.
    size = micro_model.size + 1_000
    assert len(before[folder / "digits_data.cc"]) > size
    with (
        files_of_at_most(size),
        pytest.raises(OSError, match=f"too large' while writing '{folder}'. Expected a disk with"),
    ):
        microcontroller.write_project(micro_model, folder, "digits", images[:50])
    assert {path: path.read_bytes() for path in _files(tmp_path)} == before


@pytest.mark.parametrize(
    ("flag", "is_refused"), [("-Da", True), (STATIC, False), ("-DARDUINO", False)]
)
def test_without_the_layout_of_tflm_nothing_is_compiled(projects, tflm, flag, is_refused, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    for name in ("digits.cc", "digits_test.cc", "main.cc"):
        command = ["g++", "-c", projects["int8"] / name, f"-I{tflm}", flag, "-o", tmp_path / "o"]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (process.returncode != 0) == is_refused
        assert ("with -DTF_LITE_STATIC_MEMORY" in process.stderr) == is_refused


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


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        *((kind, []) for kind in KINDS),
        ("int8", ["-DTFLM_BEFORE_2026"]),
        pytest.param("uint8", ["-DTFLM_BEFORE_2026"], marks=pytest.mark.slow),
        pytest.param("float32", ["-DTFLM_BEFORE_2026"], marks=pytest.mark.slow),
    ],
)
def test_main_finds_the_expected_outputs(projects, kind, flag, compile_strictly, tflm, tmp_path):
    folder, program = projects[kind], tmp_path / "program"
    compile_strictly(
        *flag, STATIC, f"-I{tflm}", f"-I{folder}", *_sources(folder), tflm / "stub.cc",
        "-o", program, standard="c++17",
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


@pytest.mark.parametrize(
    "kind", ["int8", *(pytest.param(k, marks=pytest.mark.slow) for k in ("uint8", "float32"))]
)
def test_main_passes_in_the_real_tflm(projects, kind, run_in_tflm, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(projects[kind], folder)
    assert run_in_tflm(folder).splitlines()[-1] == "PASS"
    vectors = folder / "digits_vectors.cc"
    first_value = r"(_output_0\[[^{]*\{\s*\{\s*)[^,]+,"
    text, count = re.subn(first_value, r"\g<1>111,", vectors.read_text(), count=1)
    assert count == 1
    vectors.write_text(text)
    assert "vector 0: FAIL" in run_in_tflm(folder)


def test_the_measured_arena_is_enough_and_little_less_is_not(
    micro_model, images, run_in_tflm, tmp_path
):
    folder = tmp_path / "folder"
    microcontroller.write_project(micro_model, folder, "digits", images, margin=0)
    printed = run_in_tflm(folder, None, "-DDIGITS_MEASURE_ARENA")
    sizes = [int(size) for size in re.findall(r"an arena of (\d+) bytes is enough", printed)]
    assert sizes == sorted(sizes, reverse=True)
    smallest = int(re.search(r"the smallest arena: (\d+) bytes", printed).group(1))
    # Python's TFLM keeps books besides, which firmware does not.
    assert sizes[0] == _arena(folder) >= smallest == sizes[-1]
    printed = run_in_tflm(folder, None, f"-DDIGITS_ARENA_BYTES={smallest}")
    assert printed.splitlines()[-1] == "PASS"
    printed = run_in_tflm(folder, None, f"-DDIGITS_ARENA_BYTES={smallest - 16}")
    assert re.search(r"missing: \d+|Too many buffers", printed)
    assert "FAIL: AllocateTensors: see what is printed above. 'missing: N' or" in printed


def _cmake(*arguments):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    command = ["cmake", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_cmake_builds_the_library_and_the_test(projects, tflm, tmp_path):
    folder = projects["int8"]
    # TF_LITE_STATIC_MEMORY reaches whoever links the model, the headers of TFLM do not.
    (tmp_path / "firmware.c").write_text(
        '#include "digits.h"\n#ifndef TF_LITE_STATIC_MEMORY\n#error "missing"\n#endif\n'
        "int main(void) { return digits_init(); }\n"
    )
    (tmp_path / "CMakeLists.txt").write_text(f"""
        cmake_minimum_required(VERSION 3.13)
        project(firmware LANGUAGES C CXX)
        enable_testing()
        add_library(tflm STATIC {tflm / "stub.cc"})
        target_include_directories(tflm PUBLIC {tflm} {folder})
        set(TFLM_LIBRARY tflm)
        add_subdirectory({folder} digits)
        add_executable(firmware firmware.c {folder}/digits_vectors.cc)
        target_link_libraries(firmware PRIVATE digits_model)
    """)
    build = tmp_path / "build"
    for command in (["-S", tmp_path, "-B", build], ["--build", build]):
        process = _cmake(*command)
        assert process.returncode == 0, process.stderr
    command = ["ctest", "--test-dir", build, "--verbose"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 0
    assert "100% tests passed, 0 tests failed out of 1" in process.stdout
    assert re.search(r"\d: PASS", process.stdout)
    assert subprocess.run([build / "firmware"], check=False).returncode == 0
    process = subprocess.run(
        command, capture_output=True, check=False, env={**os.environ, "TFLM_FAULT": "output"}
    )
    assert process.returncode != 0


def test_cmake_finds_what_belongs_to_a_tree_of_tflm(projects, tmp_path):
    root = tmp_path / "tflite-micro"
    process = _cmake("-S", projects["int8"], "-B", tmp_path / "none")
    assert process.returncode != 0
    assert "set TFLM_ROOT to tflite-micro" in " ".join(process.stderr.split())
    downloads = root / "tensorflow/lite/micro/tools/make/downloads"
    for name in ("flatbuffers/include", "gemmlowp", "ruy"):
        (downloads / name).mkdir(parents=True)
    library = root / "gen/linux_x86_64_default_gcc/lib/libtensorflow-microlite.a"
    library.parent.mkdir(parents=True)
    library.touch()
    build = tmp_path / "build"
    process = _cmake("-S", projects["int8"], "-B", build, f"-DTFLM_ROOT={root}")
    assert process.returncode == 0, process.stderr
    flags = (build / "CMakeFiles/digits_model.dir/flags.make").read_text()
    for path in (root, *(downloads / name for name in ("flatbuffers/include", "gemmlowp", "ruy"))):
        assert re.search(rf"-(I|isystem ?){path}\b", flags)
    for flag in (
        "TF_LITE_STATIC_MEMORY",
        "-fno-rtti",
        "-fno-exceptions",
        "-fno-threadsafe-statics",
    ):
        assert flag in flags
    assert str(library) in (build / "CMakeFiles/digits_test.dir/link.txt").read_text()
    second = root / "gen/cortex_m_generic_default_gcc/lib/libtensorflow-microlite.a"
    second.parent.mkdir(parents=True)
    second.touch()
    process = _cmake("-S", projects["int8"], "-B", tmp_path / "two", f"-DTFLM_ROOT={root}")
    assert "choose one, with -DTFLM_LIBRARY" in " ".join(process.stderr.split())


def test_esp_idf_gets_a_component(projects, tmp_path):
    """CMake's side of ESP-IDF is one function, which is written down here."""
    (tmp_path / "CMakeLists.txt").write_text(f"""
        cmake_minimum_required(VERSION 3.13)
        project(firmware LANGUAGES CXX)
        set(ESP_PLATFORM 1)
        function(idf_component_register)
          message(NOTICE "component ${{ARGN}}")
        endfunction()
        add_subdirectory({projects["int8"]} digits)
    """)
    process = _cmake("-S", tmp_path, "-B", tmp_path / "build")
    assert process.returncode == 0
    registered = re.search(r"component (.*)", process.stderr + process.stdout).group(1)
    parts = re.split(r"[; ]", registered.strip())
    assert parts[0] == "SRCS"
    assert parts[-2:] == ["INCLUDE_DIRS", "."]
    sources = {path.name for path in _sources(projects["int8"])}
    assert set(parts[1:-2]) == sources - {"main.cc"}
    assert "espressif/esp-tflite-micro" in (projects["int8"] / "idf_component.yml").read_text()


def test_zephyr_gets_a_module(projects, tmp_path):
    """CMake's side of Zephyr are functions, which are written down here."""
    functions = ["zephyr_library", "zephyr_library_sources", "zephyr_library_compile_options"]
    functions += ["zephyr_compile_definitions", "zephyr_include_directories"]
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(firmware LANGUAGES CXX)\n"
        + "".join(
            f'function({name})\nmessage(NOTICE "{name} ${{ARGN}}")\nendfunction()\n'
            for name in functions
        )
        + f"add_subdirectory({projects['int8']}/zephyr off)\nmessage(NOTICE on)\n"
        + "set(CONFIG_KERAS_KD_DIGITS y)\n"
        + f"add_subdirectory({projects['int8']}/zephyr on)\n"
    )
    process = _cmake("-S", tmp_path, "-B", tmp_path / "build")
    assert process.returncode == 0
    before, after = (process.stderr + process.stdout).split("on\n", 1)
    assert "zephyr" not in before
    assert "zephyr_compile_definitions TF_LITE_STATIC_MEMORY" in after
    sources = re.findall(r"zephyr/\.\./(\w+\.cc)", after)
    assert set(sources) == {path.name for path in _sources(projects["int8"])} - {"main.cc"}
    kconfig = (projects["int8"] / "zephyr/Kconfig").read_text()
    assert "config KERAS_KD_DIGITS\n" in kconfig
    assert "depends on CPP && TENSORFLOW_LITE_MICRO\n" in kconfig
    module = (projects["int8"] / "zephyr/module.yml").read_text()
    assert "\nname: digits\nbuild:\n  cmake: zephyr\n  kconfig: zephyr/Kconfig\n" in module


def test_arduino_gets_a_library(projects, tflm, tmp_path):
    folder = projects["int8"]
    text = (folder / "library.properties").read_text()
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    properties = dict(line.split("=", 1) for line in rows)
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category"}
    assert required | {"url", "architectures"} <= properties.keys()
    assert (folder / properties["includes"]).exists()
    # All sources in the directory are compiled, and a sketch has no other `main`.
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    (tmp_path / "sketch.cc").write_text(
        '#include "digits_test.h"\nint main() { return digits_test(); }\n'
    )
    command = ["g++", "-std=gnu++14", "-DARDUINO=10819", f"-I{tflm}", f"-I{folder}"]
    command += [*_sources(folder), tmp_path / "sketch.cc", tflm / "stub.cc", "-o"]
    subprocess.run([*command, tmp_path / "sketch"], check=True, timeout=120)
    assert subprocess.run([tmp_path / "sketch"], capture_output=True, check=False).returncode == 0


def test_the_makefile_fragment_names_what_to_compile(projects, tflm, tmp_path):
    if shutil.which("make") is None or shutil.which("g++") is None:
        pytest.skip("make or g++ is not installed")
    for name in ("flatbuffers/include", "gemmlowp", "ruy"):
        (tmp_path / "tree/third_party" / name).mkdir(parents=True)
    makefile = tmp_path / "Makefile"
    makefile.write_text(
        "TFLM_ROOT := tree\n"
        f"include {projects['int8'] / 'digits.mk'}\n"
        "test: $(DIGITS_SRCS) $(DIGITS_TEST_SRCS)\n"
        f"\tg++ $(DIGITS_CXXFLAGS) -I{tflm} $^ {tflm / 'stub.cc'} -o $@\n"
    )
    process = subprocess.run(
        ["make", "-C", tmp_path, "test"], capture_output=True, text=True, check=True, timeout=120
    )
    assert subprocess.run([tmp_path / "test"], capture_output=True, check=False).returncode == 0
    for path in ("tree", *(f"tree/third_party/{n}" for n in ("flatbuffers/include", "gemmlowp"))):
        assert f"-I{path} " in process.stdout


def test_the_time_of_each_operator_is_printed(projects, compile_strictly, tflm, tmp_path):
    folder, program = projects["int8"], tmp_path / "program"
    compile_strictly(
        STATIC, "-DDIGITS_PROFILE", f"-I{tflm}", f"-I{folder}", *_sources(folder),
        tflm / "stub.cc", "-o", program, standard="c++17",
    )  # fmt: skip
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert "operator, ticks (1000 ticks are a second)\nCONV_2D, 7\nPASS\n" in printed


def _blocks(page):
    """The code of a page by the names that stand before it."""
    text = (ROOT / "docs" / page).read_text()
    found = re.findall(r"\n`([\w.]+)`[^\n]*\n\n```\w+\n(.*?)```", text, re.DOTALL)
    return dict(found)


@pytest.mark.parametrize(
    ("machine", "cpu"),
    [
        ("mps2-an385", ["-mcpu=cortex-m3"]),
        ("mps2-an386", ["-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]),
    ],
)
def test_the_page_has_all_that_a_bare_board_needs(projects, tflm, machine, cpu, tmp_path):
    """What stands in for TFLM runs on an emulated Cortex-M, as the page says."""
    for tool in ("arm-none-eabi-g++", "qemu-system-arm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    blocks = _blocks("firmware.md")
    for name in ("startup.c", "board.ld", "debug_log.cc"):
        (tmp_path / name).write_text(blocks[name])
    folder, strict = projects["int8"], ["-Wall", "-Wextra", "-Werror", "-Os", "-mthumb", *cpu]
    subprocess.run(
        ["arm-none-eabi-gcc", *strict, "-std=c99", "-c", "startup.c"], cwd=tmp_path, check=True
    )
    command = ["arm-none-eabi-g++", *strict, "-std=c++17", STATIC, "-fno-rtti", "-fno-exceptions"]
    command += ["-fno-threadsafe-statics", "-ffunction-sections", "-fdata-sections", f"-I{tflm}"]
    command += [f"-I{folder}", *_sources(folder), tflm / "stub.cc", "debug_log.cc", "startup.o"]
    command += ["--specs=rdimon.specs", "-nostartfiles", "-T", "board.ld", "-Wl,--gc-sections"]
    subprocess.run([*command, "-lm", "-o", "digits.elf"], cwd=tmp_path, check=True, timeout=120)
    emulator = ["qemu-system-arm", "-M", machine, "-nographic", "-semihosting", "-kernel"]
    process = subprocess.run(
        [*emulator, "digits.elf"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert (process.stdout + process.stderr).splitlines()[-1] == "PASS"


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
        "| core of TFLM, about | 27776 |",
        # What nine operators share, and those of CONV_2D, FULLY_CONNECTED, RESHAPE and SOFTMAX.
        f"| kernels of the operators, about | {6421 + 6784 + 5208 + 1972 + 6007} |",
        f"With CMSIS-NN the kernels take about {9037 + 26864 + 17414 + 1972 + 8119}.",
        f"| test vectors, for the test only | {3 * (64 + 10)} |",
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


@pytest.mark.fast_rows(1)
@needs_tflm
@pytest.mark.parametrize(
    ("kind", "words"),
    [("lstm", "and `digits_reset` before each new"), ("none", "None: the outputs of a call")],
)
def test_the_readme_says_what_to_do_with_state(fused_lstm, float_model, kind, words, tmp_path):
    model = fused_lstm if kind == "lstm" else float_model
    microcontroller.write_project(model, tmp_path / "folder", "digits")
    assert words in (tmp_path / "folder" / "README.md").read_text()


@needs_tflm
def test_without_examples_the_vectors_are_random(micro_model, tmp_path):
    paths = microcontroller.write_project(micro_model, tmp_path / "new")
    assert list(paths) == sorted(paths) == _files(tmp_path / "new")
    assert "random values" in (tmp_path / "new" / "README.md").read_text()
    assert not (tmp_path / "new" / "model_class_names.h").exists()


@needs_tflm
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "my-model"}, "an identifier of C"),
        ({"name": "Math"}, r"'Math'.*whose header Math\.h does not belong to C.*'Math_model'"),
        ({"margin": -0.1}, r"margin=-0\.1.*at least 0"),
        ({"class_names": ["a", "b"]}, "2 class names for .* a name for each value"),
        ({"x": np.zeros((5, 8, 8, 1), np.float32)}, "1 different examples .* at least 3"),
        ({"x": np.zeros((5, 9, 9, 1), np.float32)}, "of shape"),
    ],
)
def test_wrong_arguments_leave_nothing(micro_model, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        microcontroller.write_project(micro_model, tmp_path / "new", **arguments)
    assert list(tmp_path.iterdir()) == []


@needs_tflm
def test_a_stream_has_class_names_for_the_output_that_is_no_state(tmp_path):
    steps = keras.Input((1, 3), batch_size=1)
    memory = keras.layers.GRU(4, stateful=True)(steps)
    student = keras.Model(steps, keras.layers.Dense(2, name="scores")(memory))
    model = tflite.convert(student, target="microcontroller")
    microcontroller.write_project(model, tmp_path / "new", "wake", class_names=["yes", "no"])
    assert "WAKE_CLASS_COUNT 2" in (tmp_path / "new" / "wake_class_names.h").read_text()
    with pytest.raises(ValueError, match=r"4 class names for the outputs scores"):
        microcontroller.write_project(model, tmp_path / "other", class_names=["a", "b", "c", "d"])


def test_class_names_must_be_text(micro_model, tmp_path):
    with pytest.raises(TypeError, match=r"class_names='abc'.*a list of names"):
        microcontroller.write_project(micro_model, tmp_path / "new", class_names="abc")


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
    with pytest.raises(FileExistsError, match=r"whose README.md was not written by keras_kd"):
        tflite.microcontroller.write_project(micro_model, tmp_path)
    assert (tmp_path / "README.md").read_text() == "My own notes."
    with pytest.raises(TypeError, match=r"model='x.tflite'.*a TFLiteModel.*TFLiteModel.load"):
        tflite.microcontroller.write_project("x.tflite", tmp_path)
