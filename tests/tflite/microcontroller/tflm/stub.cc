// Stands in for TensorFlow Lite Micro in tests: it knows the answers to the test vectors of a model
// "digits" with one input and one output, and goes wrong where TFLM_FAULT says.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "digits_vectors.h"
#include "tflm.h"

void MicroPrintf(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::printf("\n");
}

namespace tflite {
namespace micro {

namespace {

char input_values[sizeof(digits_input_0[0])];
char output_values[sizeof(digits_output_0[0])];

bool IsFaulty(const char* place) {
  const char* fault = std::getenv("TFLM_FAULT");
  return fault != nullptr && std::strcmp(fault, place) == 0;
}

struct Members {
  TfLiteTensor input;
  TfLiteTensor output;
  MicroProfilerInterface* profiler;
};

}  // namespace

MicroInterpreter::MicroInterpreter(const Model*, const MicroOpResolver&, uint8_t*, size_t,
                                   MicroResourceVariables*, MicroProfilerInterface* profiler,
                                   bool) {
  Members* members = new (members_) Members();
  members->profiler = profiler;
  members->input.data.raw = input_values;
  members->input.bytes = sizeof(input_values) + IsFaulty("input size");
  members->output.data.raw = output_values;
  members->output.bytes = sizeof(output_values) + IsFaulty("output size");
}

MicroInterpreter::~MicroInterpreter() {}

TfLiteStatus MicroInterpreter::AllocateTensors() {
  return IsFaulty("arena") ? kTfLiteError : kTfLiteOk;
}

TfLiteStatus MicroInterpreter::Reset() { return kTfLiteOk; }

TfLiteStatus MicroInterpreter::Invoke() {
  MicroProfilerInterface* profiler = reinterpret_cast<Members*>(members_)->profiler;
  if (profiler != nullptr) profiler->EndEvent(profiler->BeginEvent("CONV_2D"));
  if (IsFaulty("invoke")) return kTfLiteError;
  std::memset(output_values, 0, sizeof(output_values));
  for (int vector = 0; vector < DIGITS_VECTOR_COUNT; ++vector) {
    if (std::memcmp(input_values, digits_input_0[vector], sizeof(input_values)) == 0) {
      std::memcpy(output_values, digits_output_0[vector], sizeof(output_values));
      if (IsFaulty("output") && vector == 1) output_values[0] ^= 1;
      if (IsFaulty("nan") && vector == 1) std::memset(output_values, 0xff, 4);
    }
  }
  return kTfLiteOk;
}

uint32_t ticks_per_second() { return 1000; }
uint32_t GetCurrentTimeTicks() {
  static uint32_t ticks = 0;
  return ticks += 7;
}

TfLiteTensor* MicroInterpreter::input(size_t index) {
  return index == 0 ? &reinterpret_cast<Members*>(members_)->input : nullptr;
}

TfLiteTensor* MicroInterpreter::output(size_t index) {
  return index == 0 ? &reinterpret_cast<Members*>(members_)->output : nullptr;
}

#define TFLM_OPERATOR(code, name, method, parser)                              \
  Registration Register_##name() { return Registration(); }                    \
  TfLiteStatus Parse##parser(const Operator*, BuiltinDataAllocator*, void**) { \
    return kTfLiteOk;                                                          \
  }
#include "tflm_operators.inc"
#undef TFLM_OPERATOR

}  // namespace micro
}  // namespace tflite
