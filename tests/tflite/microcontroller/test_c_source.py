import shutil
import subprocess

import pytest

from keras_kd import tflite
from keras_kd.tflite import microcontroller

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="gcc is not installed")
needs_tflm = pytest.mark.skipif(
    not microcontroller.is_installed(), reason="tflite-micro is not installed"
)
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]

MAIN = """
#include <stdint.h>
#include <stdio.h>
#include "digits_data.h"

int main(void) {
  printf("%u %d %u %u %d %d", digits_data_length, (int)((uintptr_t)digits_data % 16),
         digits_data[0], digits_data[digits_data_length - 1], DIGITS_ARENA_BYTES,
         DIGITS_OPERATOR_COUNT);
  return 0;
}
"""


@needs_gcc
def test_compiles_and_holds_the_model(micro_model, tmp_path):
    header, source = microcontroller.write_c_source(
        micro_model, tmp_path, "digits", arena_bytes=5000
    )
    assert (header, source) == (tmp_path / "digits_data.h", tmp_path / "digits_data.cc")
    # The header is used from C here, the data compiled as C++.
    main = tmp_path / "main.c"
    main.write_text(MAIN)
    for path, standard in ((main, "-std=c99"), (source, "-std=c++11")):
        command = [GCC, *STRICT, standard, "-c", path, "-o", path.with_suffix(".o")]
        subprocess.run(command, check=True)
    program = tmp_path / "program"
    objects = [tmp_path / "main.o", tmp_path / "digits_data.o"]
    subprocess.run([GCC, *objects, "-o", program], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    content = micro_model.content
    assert printed == f"{len(content)} 0 {content[0]} {content[-1]} 5000 4"


def test_holds_every_byte_and_what_the_firmware_needs(micro_model, tmp_path):
    header, source = microcontroller.write_c_source(micro_model, tmp_path, arena_bytes=5000)
    values = source.read_text().split("{")[1].split("}")[0].split(",")
    assert bytes(int(value, 16) for value in values if value.strip()) == micro_model.content
    text = header.read_text()
    for expected in (
        "CONV_2D\n",
        "SOFTMAX\n",
        "image int8[1, 8, 8, 1], scale",
        "output int8[1, 10], scale 0.00390625, zero point -128",
    ):
        assert expected in text


@needs_tflm
def test_the_arena_is_measured(micro_model, images, tmp_path):
    header, _ = microcontroller.write_c_source(micro_model, tmp_path / "new")
    arena_bytes = microcontroller.run(micro_model, images[:1]).arena_bytes
    assert f"#define MODEL_ARENA_BYTES {arena_bytes}\n" in header.read_text()


@needs_tflm
def test_a_model_that_tflm_refuses_leaves_nothing(student, tmp_path):
    with pytest.raises(ValueError, match="TensorFlow Lite Micro refuses"):
        microcontroller.write_c_source(tflite.convert(student, "float16"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["", "1st", "my-model", "../model", "_model", "é"])
def test_a_name_must_be_an_identifier(micro_model, tmp_path, name):
    with pytest.raises(ValueError, match=r"name=.*an identifier of C"):
        microcontroller.write_c_source(micro_model, tmp_path, name, arena_bytes=5000)
    assert list(tmp_path.iterdir()) == []
