"""The functions of a folder, called from C, in the kernels of the real TFLM."""

import re

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import microcontroller

CALLS = """
#include <stdio.h>
#include <string.h>
#include "digits.h"
#include "digits_vectors.h"

static float real[DIGITS_INPUT_0_SIZE], scores[DIGITS_OUTPUT_0_SIZE];
static int8_t stored[DIGITS_OUTPUT_0_SIZE];
static const int shape[DIGITS_INPUT_0_RANK] = DIGITS_INPUT_0_SHAPE;

int main(void) {
  const float values[] = {-9.0f, -0.1f, 0.0f, 0.25f, 0.5f, 0.7f, 1.0f, 9.0f};
  const DIGITS_INPUT_0_TYPE *input = digits_vector;
  int i;
  printf("before: %d %d\\n", digits_predict(input, stored), digits_input_0_data() == NULL);
  printf("init: %d\\n", digits_init());
  printf("predict: %d\\n", digits_predict(input, stored));
  for (i = 0; i < DIGITS_OUTPUT_0_SIZE; ++i) printf("%d ", stored[i]);
  printf("\\nclass: %d\\n", digits_argmax_output_0(stored));
  for (i = 0; i < DIGITS_INPUT_0_SIZE; ++i) {
    real[i] = DIGITS_INPUT_0_SCALE * (float)(input[i] - DIGITS_INPUT_0_ZERO_POINT);
  }
  printf("float: %d\\n", digits_predict_float(real, scores));
  for (i = 0; i < DIGITS_OUTPUT_0_SIZE; ++i) printf("%.9g ", (double)scores[i]);
  printf("\\nquantize: ");
  for (i = 0; i < 8; ++i) printf("%d ", digits_quantize_input_0(values[i]));
  memcpy(digits_input_0_data(), input, DIGITS_INPUT_0_SIZE);
  printf("\\nwithout copies: %d ", digits_invoke());
  printf("%d\\n", memcmp(digits_output_0_data(), stored, sizeof(stored)));
  printf("no output: %d\\n", digits_predict(input, NULL));
  printf("reset: %d, state %d\\n", digits_reset(), DIGITS_HAS_STATE);
  printf("%d %d %s %s %d,%d,%d,%d %d %d\\n", DIGITS_INPUT_COUNT, DIGITS_OUTPUT_COUNT,
         DIGITS_INPUT_0_NAME, DIGITS_OUTPUT_0_DTYPE, shape[0], shape[1], shape[2], shape[3],
         DIGITS_OUTPUT_0_RANK, DIGITS_OUTPUT_0_CHANNELS);
  return 0;
}
""".replace("digits_vector;", "digits_input_0[1];")
STEPS = """
#include <stdio.h>
#include "digits.h"
#include "digits_vectors.h"

static float output[DIGITS_OUTPUT_0_SIZE];

static void Go(int i) {
  int k;
  for (k = 0; k < DIGITS_INPUT_0_SIZE; ++k) digits_input_0_data()[k] = digits_input_0[0][k];
  if (digits_invoke() == DIGITS_OK) printf("go %d %.9g\\n", i, (double)*digits_output_0_data());
}

int main(void) {
  int i;
  if (digits_init() != DIGITS_OK) return 1;
  for (i = 0; i < 3; ++i) {
    if (digits_predict(digits_input_0[0], output) != DIGITS_OK) return 1;
    printf("predict %.9g\\n", (double)output[0]);
  }
  if (digits_reset() != DIGITS_OK) return 1;
  for (i = 0; i < 3; ++i) Go(i);
  printf("state %d, reset %d\\n", DIGITS_HAS_STATE, digits_reset());
  Go(0);
  return 0;
}
"""


@pytest.fixture(scope="module")
def folder(projects, tmp_path_factory, micro_model, images):
    path = tmp_path_factory.mktemp("interface") / "digits"
    microcontroller.write_project(micro_model, path, "digits", images)
    return path


def test_every_function_from_c(folder, run_in_tflm, micro_model):
    printed = run_in_tflm(folder, CALLS)
    lines = printed.splitlines()
    text = (folder / "digits_vectors.cc").read_text()
    rows = [
        np.array([int(value) for value in row.split(",") if value.strip()], np.int8)
        for row in re.findall(r"\{\n([-\d,\s]+)\}", text)
    ]
    stored = rows[3 + 1]
    real = micro_model.outputs[0].dequantize(stored)
    values = np.array([-9, -0.1, 0, 0.25, 0.5, 0.7, 1, 9], np.float32)
    quantized = micro_model.inputs[0].quantize(values)
    assert lines == [
        "before: 1 1",
        "init: 0",
        "predict: 0",
        "".join(f"{value} " for value in stored),
        f"class: {stored.argmax()}",
        "float: 0",
        "".join(f"{value:.9g} " for value in real),
        "quantize: " + "".join(f"{value} " for value in quantized),
        "without copies: 0 0",
        "no output: 0",
        "reset: 0, state 0",
        "1 1 image int8 1,8,8,1 2 10",
    ]


def test_values_are_rounded_as_in_python(folder, micro_model, run_in_tflm):
    scale = micro_model.inputs[0].scale
    halves = np.float32(scale) * (np.arange(-300, 300, dtype=np.float32) / 2)
    program = """
        #include <stdio.h>
        #include "digits.h"
        int main(void) {
          int i;
          for (i = -300; i < 300; ++i) {
            printf("%d ", digits_quantize_input_0(DIGITS_INPUT_0_SCALE * ((float)i / 2)));
          }
          return digits_quantize_input_0(NAN) != -128;
        }
    """
    received = [int(value) for value in run_in_tflm(folder, program).split()]
    assert received == micro_model.inputs[0].quantize(halves).tolist()


def test_several_inputs_and_outputs_of_several_types(make_student, run_in_tflm, tmp_path):
    student, data = make_student("several inputs and outputs")
    model = tflite.convert(student, "int8", data, "microcontroller")
    microcontroller.write_project(model, tmp_path / "digits", "digits", data)
    header = (tmp_path / "digits" / "digits.h").read_text()
    inputs = ", ".join(f"const int8_t* input_{i}" for i in range(len(model.inputs)))
    outputs = ", ".join(f"int8_t* output_{i}" for i in range(len(model.outputs)))
    assert f"digits_predict({inputs}, {outputs});" in header
    assert f"digits_predict_float({inputs}, {outputs});".replace("int8_t", "float") in header
    assert run_in_tflm(tmp_path / "digits").splitlines()[-1] == "PASS"


@pytest.mark.parametrize("kind", ["variables", "tensors"])
def test_predict_begins_anew_and_invoke_goes_on(
    with_variables, fused_lstm, kind, run_in_tflm, tmp_path
):
    model = with_variables() if kind == "variables" else fused_lstm
    shape = (3, *model.inputs[0].shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    folder = tmp_path / "digits"
    microcontroller.write_project(model, folder, "digits", x, margin=0.5)
    assert run_in_tflm(folder).splitlines()[-1] == "PASS"
    first, *others = run_in_tflm(folder, STEPS).splitlines()
    assert others[:2] == [first, first]
    steps = [float(line.split()[-1]) for line in others[2:5]]
    assert len(set(steps)) == 3
    assert others[5:] == ["state 1, reset 0", others[2]]
    assert float(first.split()[-1]) == steps[0]
    same = np.repeat(x[:1], 3, axis=0)
    expected = microcontroller.run(model, same, stream=True).outputs[model.outputs[0].name]
    np.testing.assert_allclose(steps, expected.reshape(3, -1)[:, 0], rtol=1e-6)


def test_states_that_are_inputs_and_outputs_are_named(tmp_path):
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((1, 4), batch_size=1),
            keras.layers.LSTM(6, stateful=True, name="memory"),
            keras.layers.Dense(3, name="scores"),
        ]
    )
    model = tflite.convert(student, target="microcontroller")
    microcontroller.write_project(model, tmp_path / "digits", "digits")
    header = (tmp_path / "digits" / "digits.h").read_text()
    assert len(model.feedback) == 2
    for into, source in model.feedback:
        assert (
            f"input_{into} is a state: give the same array for it and for output_{source}" in header
        )
    assert "#define DIGITS_HAS_STATE 0" in header
    readme = (tmp_path / "digits" / "README.md").read_text()
    assert "Give the same array" in readme
    assert "`memory_h` and `memory_h_next`" in readme
