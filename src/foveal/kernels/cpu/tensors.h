// What the bindings of all kernels share: torch's stable interface, and work shared out among its threads.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <optional>
#include <tuple>

namespace foveal {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline const float* floats(const Tensor& x) { return static_cast<const float*>(x.data_ptr()); }
inline float* mutable_floats(const Tensor& x) { return static_cast<float*>(x.data_ptr()); }

// `count` floats from torch's allocator, so that whoever measures memory sees them.
inline Tensor new_floats(const Tensor& like, int64_t count) {
  return torch::stable::new_empty(like, {count}, ScalarType::Float);
}

// run(unit, scratch) for every unit, on torch's threads. What a unit does must not depend on the number of threads.
template <class Run>
void for_units(const Tensor& like, int64_t units, int64_t scratch_floats, const Run& run) {
  if (units == 0) return;
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), units);
  const int64_t each = (scratch_floats + 15) / 16 * 16;
  const Tensor scratch = new_floats(like, threads * each);
  float* const memory = mutable_floats(scratch);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread)
      for (int64_t unit = units * thread / threads; unit < units * (thread + 1) / threads; ++unit)
        run(unit, memory + thread * each);
  });
}

}  // namespace foveal
