// Efficient and external attention on CPUs: what a call is, and the functions that every instruction set provides.
//
// Both are two parts. Scores: a linear map of the features of a position (or a map of scores itself), whose rows meet
// all positions: statistics of each row, and for efficient attention the context. Reading: scores of a position,
// normalised over the rows, times a small matrix.
#pragma once

#include <cstdint>

namespace foveal {

// A map (batch, heads, channels, positions); strides in elements.
struct FlatMap {
  void* data = nullptr;
  int64_t batch = 0, head = 0, channel = 0, position = 0;
  bool bfloat16 = false;
};

// Small matrices in float32, (batch or 1, heads or 1, rows, columns), each contiguous; steps of 0 where shared.
struct Small {
  float* data = nullptr;
  int64_t batch = 0, head = 0;
};

enum Weights : int64_t {
  PLAIN = 0,   // the scores themselves
  SOFTMAX = 1, // context: over positions; reading: over rows
  DOUBLE = 2,  // reading: over positions by the statistics, then divided by the sum over rows
};

struct Efficient {
  FlatMap x, v, out;               // v equals x where they are shared
  FlatMap other;                   // reading: a map that is added to the result
  FlatMap grad, x_grad, v_grad;    // backward
  FlatMap scores, scores_grad;     // external: kept scores
  Small weight, bias;              // (depth, channels) and (depth); without weight, x has `depth` channels: scores
  Small read, read_bias;           // (depth, values), (values)
  Small stats;                     // (2, depth): greatest score and sum of exponentials, over positions
  Small held, held_grad;           // the context (depth, values) and its gradient
  Small stats_grad;                // (2, depth): of the logarithm of the sum, then zeros
  const uint8_t* mask = nullptr;   // bool (batch, positions), contiguous
  int64_t batch, heads, channels, depth, values, positions, groups = 1;
  Weights weights = SOFTMAX;
  bool shared = false;
  bool residual = false, activation = false;  // reading: x itself is added; ReLU at the end
  bool add = false;                           // x_grad holds gradients that these are added to
  float* parts = nullptr;          // what each unit of work sums, plan.part floats a unit

  int64_t features() const { return weight.data ? channels : depth; }
};

// How a call is cut into units of work, which never depends on the number of threads.
struct EfficientPlan {
  int64_t length, chunks;  // positions of a unit, units of a map
  int64_t units;
  int64_t scratch;         // floats that a thread needs
  int64_t part;            // floats that a unit sums
  int64_t weights_at;      // in a part, where the gradients of weight and bias lie; before them that of `read`
  int64_t padded;          // depth in whole vectors: parts are (columns, padded)
};

enum EfficientJob { CONTEXT, CONTEXT_BACKWARD, READ, READ_BACKWARD, SLOTS, SLOTS_BACKWARD };

struct EfficientKernels {
  EfficientPlan (*plan)(const Efficient&, EfficientJob);
  void (*run)(const Efficient&, const EfficientPlan&, EfficientJob, int64_t unit, float* scratch);
  // The parts of the units of a map (batch, head), summed in their order: the context and the statistics.
  void (*join)(const Efficient&, const EfficientPlan&, int64_t map);
  // Floats begin to end of the first of `count` parts, `step` units apart, becomes their sum.
  void (*sum)(const EfficientPlan&, float* parts, int64_t count, int64_t step, int64_t begin, int64_t end);
  // (columns, padded) to (depth, columns).
  void (*turn)(const EfficientPlan&, const float* part, int64_t depth, int64_t columns, float* to);
};

}  // namespace foveal
