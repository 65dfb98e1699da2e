// The exponential of the kernels by itself.
#pragma once

#include <cstdint>

namespace foveal {

struct ExpKernels {
  void (*apply)(const float* x, float* y, int64_t count, bool logarithm);
};

}  // namespace foveal
