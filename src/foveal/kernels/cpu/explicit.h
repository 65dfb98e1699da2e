// Explicit attention on CPUs: what a call is, and the functions that every instruction set provides.
#pragma once

#include <cstdint>

namespace foveal {

// A map (batch, heads, channels, rows, columns); strides in elements.
struct DecayMap {
  void* data = nullptr;
  int64_t batch = 0, head = 0, channel = 0, row = 0, column = 0;
};

// How one head mixes along one axis: by a matrix (first), by two (first: rank x length, then second: length x rank), or
// by the recursion of an exponential. Each with its derivative by the radius.
struct DecayAxis {
  int64_t length = 1, rank = 1;                             // rank: positions after the first matrix
  const float *first = nullptr, *second = nullptr;          // absent where the recursion runs
  const float *first_slope = nullptr, *second_slope = nullptr;
  const float *weights = nullptr, *weights_slope = nullptr;  // row sums
  float step = 0, step_rest = 0, step_slope = 0;             // of the recursion: a = step + step_rest; (da / dradius) / a
  bool recursive() const { return first == nullptr; }
};

struct Explicit {
  DecayMap v, out, grad;          // out: the result, or in the backward the gradient of v
  const DecayAxis* axes;          // (heads or 1, 2): rows, columns
  double* radius_grad = nullptr;  // one a unit; absent where nobody asks
  int64_t batch, heads, channels, rows, columns;
  float offset;                   // times the number of positions it is what every row sum has more
  bool bfloat16, one_radius, with_map;  // with_map: the backward writes the gradient of v
};

struct ExplicitKernels {
  int64_t (*units)(const Explicit&);
  int64_t (*scratch)(const Explicit&, bool backward);
  void (*forward)(const Explicit&, int64_t unit, float* scratch);
  void (*backward)(const Explicit&, int64_t unit, float* scratch);
};

}  // namespace foveal
