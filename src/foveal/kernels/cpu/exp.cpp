// Operators that tell about the kernels themselves: the instruction set, and the exponential for its test.
#include "exp.h"

#include "isa.h"
#include "tensors.h"

FOVEAL_KERNELS(foveal::ExpKernels, exp_kernels)

namespace foveal {
namespace {

Tensor exp2(Tensor x, bool logarithm) {
  STD_TORCH_CHECK(x.is_contiguous() && x.scalar_type() == ScalarType::Float, "foveal: expected contiguous float32");
  Tensor y = torch::stable::empty_like(x);
  exp_kernels().apply(floats(x), mutable_floats(y), x.numel(), logarithm);
  return y;
}

int64_t instruction_set() { return isa(); }

}  // namespace
}  // namespace foveal

STABLE_TORCH_LIBRARY_FRAGMENT(foveal, m) {
  m.def("cpu_exp2(Tensor x, bool logarithm) -> Tensor");
  m.def("cpu_instruction_set() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(foveal, CPU, m) { m.impl("cpu_exp2", TORCH_BOX(&foveal::exp2)); }

STABLE_TORCH_LIBRARY_IMPL(foveal, CompositeExplicitAutograd, m) {
  m.impl("cpu_instruction_set", TORCH_BOX(&foveal::instruction_set));
}
