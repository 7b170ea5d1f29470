// The interface of TensorFlow Lite Micro (TFLM) as far as the generated main.cc uses it, written for
// tests: the package of TFLM for Python has no headers. Types are laid out as in its library, so
// that what is compiled with this runs with stub.cc, or with the kernels of the real TFLM.
#ifndef TFLM_H_
#define TFLM_H_

#include <cstddef>
#include <cstdint>

void MicroPrintf(const char* format, ...);

namespace tflite {

struct Model;
struct Operator;

inline const Model* GetModel(const void* content) {
  const unsigned char* bytes = static_cast<const unsigned char*>(content);
  return reinterpret_cast<const Model*>(bytes + *static_cast<const uint32_t*>(content));
}

// Since 2026 the classes are in a namespace of their own.
#ifdef TFLM_BEFORE_2026
inline
#endif
namespace micro {

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };

struct TfLiteTensor {
  int32_t quantization_type;
  void* quantization_parameters;
  float scale;
  int32_t zero_point;
  union {
    char* raw;
    float* f;
    int8_t* int8;
  } data;
  void* dims;
  size_t bytes;
  int32_t type;
};

struct Registration {
  void* functions[5];
  int32_t builtin_code;
  const char* custom_name;
};

class BuiltinDataAllocator;
using Parser = TfLiteStatus (*)(const Operator*, BuiltinDataAllocator*, void**);

class MicroOpResolver {
 public:
  virtual const Registration* FindOp(int32_t builtin_code) const = 0;
  virtual const Registration* FindOp(const char* custom_name) const = 0;
  virtual Parser GetOpDataParser(int32_t builtin_code) const = 0;
  virtual ~MicroOpResolver() {}
};

enum class MemoryPlannerType { kGreedy, kLinear };

class MicroAllocator {
 public:
  static MicroAllocator* Create(uint8_t* arena, size_t arena_bytes,
                                MemoryPlannerType planner = MemoryPlannerType::kGreedy);
};

class MicroResourceVariables {
 public:
  static MicroResourceVariables* Create(MicroAllocator* allocator, int count);
};

class MicroProfilerInterface;

class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver& resolver, uint8_t* arena,
                   size_t arena_bytes, MicroResourceVariables* variables = nullptr,
                   MicroProfilerInterface* profiler = nullptr, bool preserve = false);
  MicroInterpreter(const Model* model, const MicroOpResolver& resolver, MicroAllocator* allocator,
                   MicroResourceVariables* variables = nullptr,
                   MicroProfilerInterface* profiler = nullptr);
  ~MicroInterpreter();
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteStatus Reset();
  TfLiteTensor* input(size_t index);
  TfLiteTensor* output(size_t index);
  // In the library it is inline.
  size_t arena_used_bytes() const { return 0; }

 private:
  // More than enough for its members.
  alignas(16) unsigned char members_[4096];
};

#define TFLM_OPERATOR(code, name, method, parser)                              \
  Registration Register_##name();                                              \
  TfLiteStatus Parse##parser(const Operator*, BuiltinDataAllocator*, void**);
#include "tflm_operators.inc"
#undef TFLM_OPERATOR

template <unsigned int capacity>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
  const Registration* FindOp(int32_t builtin_code) const override {
    for (unsigned int i = 0; i < count_; ++i) {
      if (registrations_[i].builtin_code == builtin_code) return &registrations_[i];
    }
    return nullptr;
  }
  const Registration* FindOp(const char*) const override { return nullptr; }
  Parser GetOpDataParser(int32_t builtin_code) const override {
    for (unsigned int i = 0; i < count_; ++i) {
      if (registrations_[i].builtin_code == builtin_code) return parsers_[i];
    }
    return nullptr;
  }

#define TFLM_OPERATOR(code, name, method, parser) \
  TfLiteStatus method() { return Add(code, Register_##name(), Parse##parser); }
#include "tflm_operators.inc"
#undef TFLM_OPERATOR

 private:
  TfLiteStatus Add(int32_t code, const Registration& registration, Parser parser) {
    if (count_ >= capacity || FindOp(code) != nullptr) return kTfLiteError;
    registrations_[count_] = registration;
    registrations_[count_].builtin_code = code;
    parsers_[count_] = parser;
    ++count_;
    return kTfLiteOk;
  }

  Registration registrations_[capacity];
  Parser parsers_[capacity];
  unsigned int count_ = 0;
};

inline void InitializeTarget() {}

}  // namespace micro
}  // namespace tflite

#endif  // TFLM_H_
