// Local attention on CPUs: what a call is, and the functions that every instruction set provides.
#pragma once

#include <cstdint>

namespace foveal {

// A map (batch, heads, channels, rows, columns); strides in elements.
struct Map {
  void* data = nullptr;
  int64_t batch = 0, head = 0, channel = 0, row = 0, column = 0;
};

// Relative embeddings of one axis: (heads or 1, offsets, depth), contiguous; they meet the query's channels from `start`.
struct Table {
  const float* data = nullptr;
  int64_t heads = 0, depth = 0, start = 0;
};

struct Local {
  Map q, k, v, out;                    // forward; out may be absent in the backward
  Map grad, q_grad, k_grad, v_grad;    // backward
  const uint8_t* mask = nullptr;       // bool (batch, rows, columns), contiguous
  float* lse = nullptr;                // (batch, heads, rows, columns): log2 of the sum of 2^logit; may be absent
  Table row_table, column_table;
  float* table_grads = nullptr;        // a slice of table_size() floats for every unit of work
  int64_t batch, heads, depth, value_depth, rows, columns;
  int64_t window_rows, window_columns, step_rows, step_columns;  // window and dilation
  float scale;
  bool bfloat16, masked_border;

  bool drops_keys() const { return mask != nullptr || masked_border; }
};

// How a call is cut into units of work, which never depends on the number of threads.
struct LocalPlan {
  int64_t head_group;   // heads of a unit
  int64_t side_by_side; // images of a unit, one beside the other in a row
  int64_t tiles;        // runs of columns
  int64_t stripes;      // runs of rows
  int64_t units;
  int64_t scratch;      // floats that a thread needs
  int64_t table_size;   // floats of a unit's gradient of the tables
};

struct LocalKernels {
  LocalPlan (*plan)(const Local&, bool backward);
  void (*forward)(const Local&, const LocalPlan&, int64_t unit, float* scratch);
  void (*backward)(const Local&, const LocalPlan&, int64_t unit, float* scratch);
};

}  // namespace foveal
