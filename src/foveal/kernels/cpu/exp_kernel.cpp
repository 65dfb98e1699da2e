// The exponential and the logarithm of the kernels by themselves, so that their stated errors can be tested.
#include "exp.h"

#include "vec.h"

namespace FOVEAL_ISA {

static void apply(const float* x, float* y, int64_t count, bool logarithm) {
  for (int64_t i = 0; i < count; i += N) {
    float some[N] = {};
    const int64_t few = count - i < N ? count - i : N;
    for (int64_t j = 0; j < few; ++j) some[j] = x[i + j];
    store(some, logarithm ? log2(load(some)) : exp2(load(some)));
    for (int64_t j = 0; j < few; ++j) y[i + j] = some[j];
  }
}

extern const foveal::ExpKernels exp_kernels;
const foveal::ExpKernels exp_kernels = {apply};

}  // namespace FOVEAL_ISA
