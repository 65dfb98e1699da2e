// Local attention: the operators that torch sees. Python's local.py brings every call to two space axes.
#include "local.h"

#include "isa.h"
#include "tensors.h"

FOVEAL_KERNELS(foveal::LocalKernels, local_kernels)

namespace foveal {
namespace {

Map map_of(const Tensor& x) {
  return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2), x.stride(3), x.stride(4)};
}

// The map that starts `heads` heads further on.
Map after(Map map, int64_t heads, const Tensor& x) {
  const int64_t bytes = x.scalar_type() == ScalarType::Float ? 4 : 2;
  map.data = static_cast<char*>(map.data) + heads * map.head * bytes;
  return map;
}

// A new map, laid out as (batch, rows, columns, heads, channels) where channels come last, and how to read it.
Tensor new_map(const Tensor& like, int64_t h, int64_t channels, bool channels_last, Map& map) {
  const int64_t b = like.size(0), y = like.size(3), x = like.size(4);
  if (channels_last) {
    Tensor made = torch::stable::new_empty(like, {b, y, x, h, channels});
    map = {made.data_ptr(), y * x * h * channels, channels, 1, x * h * channels, h * channels};
    return made;
  }
  Tensor made = torch::stable::new_empty(like, {b, h, channels, y, x});
  map = {made.data_ptr(), h * channels * y * x, channels * y * x, y * x, x, 1};
  return made;
}

// Without k and v, q holds the heads of all three, one after the other.
Local call_of(const Tensor& q, const std::optional<Tensor>& k, const std::optional<Tensor>& v,
              const std::optional<Tensor>& row_table, const std::optional<Tensor>& column_table,
              const std::optional<Tensor>& mask, int64_t window_rows, int64_t window_columns, int64_t step_rows,
              int64_t step_columns, double scale, bool masked_border) {
  STD_TORCH_CHECK(k.has_value() == v.has_value(), "foveal: expected keys and values, or neither");
  for (const Tensor* x : {&q, k ? &*k : &q, v ? &*v : &q})
    STD_TORCH_CHECK(x->dim() == 5 && x->scalar_type() == q.scalar_type(), "foveal: expected maps of one type");
  Local call;
  call.batch = q.size(0), call.heads = q.size(1) / (k ? 1 : 3), call.depth = q.size(2);
  call.q = map_of(q);
  call.k = k ? map_of(*k) : after(call.q, call.heads, q);
  call.v = v ? map_of(*v) : after(call.q, 2 * call.heads, q);
  call.value_depth = v ? v->size(2) : call.depth, call.rows = q.size(3), call.columns = q.size(4);
  call.window_rows = window_rows, call.window_columns = window_columns;
  // A step beyond the map leads outside from everywhere, however long it is; each residue is a unit of work.
  call.step_rows = std::min(step_rows, std::max<int64_t>(call.rows, 1));
  call.step_columns = std::min(step_columns, std::max<int64_t>(call.columns, 1));
  call.scale = (float)scale, call.masked_border = masked_border;
  call.bfloat16 = q.scalar_type() == ScalarType::BFloat16;
  if (row_table) call.row_table = {floats(*row_table), row_table->size(0), row_table->size(2), 0};
  if (column_table) {
    const int64_t depth = column_table->size(2);
    const bool split = call.row_table.depth + depth == call.depth;
    call.column_table = {floats(*column_table), column_table->size(0), depth, split ? call.row_table.depth : 0};
  }
  if (mask) call.mask = static_cast<const uint8_t*>(mask->data_ptr());
  return call;
}

std::tuple<Tensor, Tensor> forward(Tensor q, std::optional<Tensor> k, std::optional<Tensor> v,
                                   std::optional<Tensor> row_table, std::optional<Tensor> column_table,
                                   std::optional<Tensor> mask, int64_t window_rows, int64_t window_columns,
                                   int64_t step_rows, int64_t step_columns, double scale, bool masked_border,
                                   bool channels_last, bool with_lse) {
  Local call = call_of(q, k, v, row_table, column_table, mask, window_rows, window_columns, step_rows, step_columns,
                       scale, masked_border);
  Tensor out = new_map(q, call.heads, call.value_depth, channels_last, call.out);
  Tensor lse = with_lse ? torch::stable::new_empty(q, {call.batch, call.heads, call.rows, call.columns},
                                                   ScalarType::Float)
                        : torch::stable::new_empty(q, {0}, ScalarType::Float);
  call.lse = with_lse ? mutable_floats(lse) : nullptr;
  if (out.numel()) {
    const LocalPlan plan = local_kernels().plan(call, false);
    for_units(q, plan.units, plan.scratch,
              [&](int64_t unit, float* scratch) { local_kernels().forward(call, plan, unit, scratch); });
  }
  return {out, lse};
}

// The sum of the units' slices, always in the same order; a table that heads share sums over them too.
void sum_tables(const Local& call, const LocalPlan& plan, const float* slices, const Table& table, int64_t offsets,
                int64_t start, float* to) {
  const int64_t size = offsets * table.depth;
  const int64_t groups = call.heads / plan.head_group, per_head = plan.table_size / plan.head_group;
  for (int64_t i = 0; i < table.heads * size; ++i) to[i] = 0.0f;
  for (int64_t unit = 0; unit < plan.units; ++unit)
    for (int64_t h = 0; h < plan.head_group; ++h) {
      const float* from = slices + unit * plan.table_size + h * per_head + start;
      float* at = to + (table.heads > 1 ? unit % groups * plan.head_group + h : 0) * size;
      for (int64_t i = 0; i < size; ++i) at[i] += from[i];
    }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    Tensor grad, Tensor lse, Tensor q, std::optional<Tensor> k, std::optional<Tensor> v,
    std::optional<Tensor> row_table, std::optional<Tensor> column_table, std::optional<Tensor> mask,
    int64_t window_rows, int64_t window_columns, int64_t step_rows, int64_t step_columns, double scale,
    bool masked_border, bool channels_last) {
  Local call = call_of(q, k, v, row_table, column_table, mask, window_rows, window_columns, step_rows, step_columns,
                       scale, masked_border);
  call.grad = map_of(grad), call.lse = mutable_floats(lse);
  Tensor q_grad = new_map(q, q.size(1), call.depth, channels_last, call.q_grad);
  Tensor k_grad = k ? new_map(q, call.heads, call.depth, channels_last, call.k_grad)
                    : torch::stable::new_empty(q, {0});
  Tensor v_grad = v ? new_map(q, call.heads, call.value_depth, channels_last, call.v_grad)
                    : torch::stable::new_empty(q, {0});
  if (!k) call.k_grad = after(call.q_grad, call.heads, q), call.v_grad = after(call.q_grad, 2 * call.heads, q);
  const auto table_like = [&](const std::optional<Tensor>& table) {
    return table ? torch::stable::new_empty(*table, table->sizes()) : torch::stable::new_empty(lse, {0});
  };
  Tensor row_grad = table_like(row_table), column_grad = table_like(column_table);
  LocalPlan plan{};
  plan.head_group = 1;
  if (q_grad.numel() || v_grad.numel()) plan = local_kernels().plan(call, true);
  const Tensor slices = new_floats(q, plan.units * plan.table_size);
  call.table_grads = mutable_floats(slices);
  for_units(q, plan.units, plan.scratch,
            [&](int64_t unit, float* scratch) { local_kernels().backward(call, plan, unit, scratch); });
  if (row_table) sum_tables(call, plan, floats(slices), call.row_table, window_rows, 0, mutable_floats(row_grad));
  if (column_table)
    sum_tables(call, plan, floats(slices), call.column_table, window_columns, window_rows * call.row_table.depth,
               mutable_floats(column_grad));
  return {q_grad, k_grad, v_grad, row_grad, column_grad};
}

}  // namespace
}  // namespace foveal

STABLE_TORCH_LIBRARY_FRAGMENT(foveal, m) {
  m.def(
      "cpu_local_attention(Tensor q, Tensor? k, Tensor? v, Tensor? row_table, Tensor? column_table, Tensor? mask, "
      "int window_rows, int window_columns, int step_rows, int step_columns, float scale, bool masked_border, "
      "bool channels_last, bool with_lse) -> (Tensor, Tensor)");
  m.def(
      "cpu_local_attention_backward(Tensor grad, Tensor lse, Tensor q, Tensor? k, Tensor? v, Tensor? row_table, "
      "Tensor? column_table, Tensor? mask, int window_rows, int window_columns, int step_rows, int step_columns, "
      "float scale, bool masked_border, bool channels_last) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(foveal, CPU, m) {
  m.impl("cpu_local_attention", TORCH_BOX(&foveal::forward));
  m.impl("cpu_local_attention_backward", TORCH_BOX(&foveal::backward));
}
