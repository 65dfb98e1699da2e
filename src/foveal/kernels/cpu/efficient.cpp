// Efficient and external attention: the operators that torch sees. Positions are flat: maps are (batch, heads,
// channels, positions), small matrices float32.
#include "efficient.h"

#include "isa.h"
#include "tensors.h"

FOVEAL_KERNELS(foveal::EfficientKernels, efficient_kernels)

namespace foveal {
namespace {

using Maybe = std::optional<Tensor>;

FlatMap map_of(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4, "foveal: expected maps (batch, heads, channels, positions)");
  return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2), x.stride(3), x.scalar_type() == ScalarType::BFloat16};
}

// A new map, laid out as (batch, positions, heads, channels) where channels come last.
Tensor new_map(const Tensor& like, int64_t channels, bool channels_last, std::optional<ScalarType> type,
               FlatMap& map) {
  const int64_t b = like.size(0), h = like.size(1), n = like.size(3);
  const ScalarType dtype = type ? *type : like.scalar_type();
  const bool bfloat16 = dtype == ScalarType::BFloat16;
  if (channels_last) {
    Tensor made = torch::stable::new_empty(like, {b, n, h, channels}, dtype);
    map = {made.data_ptr(), n * h * channels, channels, 1, h * channels, bfloat16};
    return made;
  }
  Tensor made = torch::stable::new_empty(like, {b, h, channels, n}, dtype);
  map = {made.data_ptr(), h * channels * n, channels * n, n, 1, bfloat16};
  return made;
}

// (batch or 1, heads or 1, rows, columns), a matrix or vector each; `dims` leading axes: 2 or 1 (heads alone).
Small small_of(const Maybe& x, int leading) {
  if (!x) return {};
  STD_TORCH_CHECK(x->is_contiguous() && x->scalar_type() == ScalarType::Float, "foveal: expected contiguous float32");
  Small s{mutable_floats(*x), 0, 0};
  int64_t size = 1;
  for (int64_t i = leading; i < x->dim(); ++i) size *= x->size(i);
  const int64_t heads = x->size(leading - 1);
  s.head = heads > 1 ? size : 0;
  if (leading == 2) s.batch = x->size(0) > 1 ? heads * size : 0;
  return s;
}

Efficient call_of(const Tensor& x, const Maybe& weight, const Maybe& bias, const Maybe& mask) {
  Efficient call;
  call.x = map_of(x);
  call.weight = small_of(weight, 1), call.bias = small_of(bias, 1);
  call.batch = x.size(0), call.heads = x.size(1), call.channels = x.size(2), call.positions = x.size(3);
  call.depth = weight ? weight->size(1) : x.size(2);
  if (mask) call.mask = static_cast<const uint8_t*>(mask->data_ptr());
  return call;
}

void values_of(Efficient& call, const Tensor& x, const Maybe& v) {
  call.shared = !v;
  call.v = map_of(v ? *v : x);
  call.values = v ? v->size(2) : x.size(2);
}

Tensor new_small(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return torch::stable::new_empty(like, sizes, ScalarType::Float);
}
Tensor like_small(const Tensor& like, const Maybe& x) {
  return x ? torch::stable::empty_like(*x) : new_small(like, {0});
}

// The parts of all units of a call.
Tensor run(const Tensor& like, Efficient& call, EfficientPlan& plan, EfficientJob job) {
  plan = efficient_kernels().plan(call, job);
  Tensor parts = new_floats(like, plan.units * plan.part);
  call.parts = mutable_floats(parts);
  for_units(like, plan.units, plan.scratch,
            [&](int64_t unit, float* scratch) { efficient_kernels().run(call, plan, job, unit, scratch); });
  return parts;
}

void zero(const Tensor& x) {
  float* to = mutable_floats(x);
  for (int64_t i = 0; i < x.numel(); ++i) to[i] = 0.0f;
}

constexpr int64_t SLICE = 4096;

// Sum parts into the first of each of `groups`; a group's are `count` parts, `step` apart, from `group * apart` on.
void sum_parts(const Tensor& like, const Efficient& call, const EfficientPlan& plan, int64_t groups, int64_t apart,
               int64_t count, int64_t step, int64_t begin, int64_t end) {
  const int64_t slices = (end - begin + SLICE - 1) / SLICE;
  for_units(like, groups * slices, 16, [&](int64_t unit, float*) {
    const int64_t from = begin + unit % slices * SLICE;
    efficient_kernels().sum(plan, call.parts + unit / slices * apart * plan.part, count, step, from,
                            std::min(end, from + SLICE));
  });
}

// Gradients of weight and bias: sums over all units, or over those of a head each.
void weight_grads(const Tensor& x, const Efficient& call, const EfficientPlan& plan, const Maybe& weight,
                  const Maybe& bias, const Tensor& weight_grad, const Tensor& bias_grad) {
  if (!plan.units) {
    if (weight) zero(weight_grad);
    if (bias) zero(bias_grad);
    return;
  }
  const int64_t begin = plan.weights_at, bias_at = begin + (weight ? call.channels * plan.padded : 0);
  const int64_t end = bias_at + plan.padded;
  const bool by_head = weight && weight->size(0) > 1, bias_by_head = bias && bias->size(0) > 1;
  // Each head over its chunks and the batch, then over heads where they share.
  sum_parts(x, call, plan, call.batch * call.heads, plan.chunks, plan.chunks, 1, begin, end);
  sum_parts(x, call, plan, call.heads, plan.chunks, call.batch, call.heads * plan.chunks, begin, end);
  const int64_t step = plan.chunks * plan.part, size = call.depth * call.channels;
  if (bias && bias_by_head)
    for (int64_t h = 0; h < call.heads; ++h)
      efficient_kernels().turn(plan, call.parts + h * step + bias_at, call.depth, 1,
                               mutable_floats(bias_grad) + h * call.depth);
  if (weight && by_head)
    for (int64_t h = 0; h < call.heads; ++h)
      efficient_kernels().turn(plan, call.parts + h * step + begin, call.depth, call.channels,
                               mutable_floats(weight_grad) + h * size);
  if (call.heads > 1) sum_parts(x, call, plan, 1, 0, call.heads, plan.chunks, begin, end);
  if (bias && !bias_by_head)
    efficient_kernels().turn(plan, call.parts + bias_at, call.depth, 1, mutable_floats(bias_grad));
  if (weight && !by_head)
    efficient_kernels().turn(plan, call.parts + begin, call.depth, call.channels, mutable_floats(weight_grad));
}

void join(const Tensor& x, const Efficient& call, const EfficientPlan& plan) {
  if (plan.units)
    for_units(x, call.batch * call.heads, 16, [&](int64_t map, float*) { efficient_kernels().join(call, plan, map); });
}

std::tuple<Tensor, Tensor> context(Tensor x, Maybe weight, Maybe bias, Maybe v, Maybe mask, bool scaling) {
  Efficient call = call_of(x, weight, bias, mask);
  values_of(call, x, v);
  call.weights = scaling ? PLAIN : SOFTMAX;
  Tensor held = new_small(x, {call.batch, call.heads, call.depth, call.values});
  Tensor stats = new_small(x, {call.batch, call.heads, 2, call.depth});
  call.held = small_of(held, 2), call.stats = small_of(stats, 2);
  EfficientPlan plan;
  const Tensor parts = run(x, call, plan, CONTEXT);
  join(x, call, plan);
  return {held, stats};
}

// Into x_grad, to which it adds or not.
std::tuple<Tensor, Tensor, Tensor> context_grads(const Tensor& held_grad, const Tensor& held, const Tensor& stats,
                                                 const Tensor& x, const Maybe& weight, const Maybe& bias,
                                                 const Maybe& v, const Maybe& mask, bool scaling, bool channels_last,
                                                 FlatMap x_grad, bool add) {
  Efficient call = call_of(x, weight, bias, mask);
  values_of(call, x, v);
  call.weights = scaling ? PLAIN : SOFTMAX;
  call.held_grad = small_of(held_grad, 2), call.held = small_of(held, 2), call.stats = small_of(stats, 2);
  call.x_grad = x_grad, call.add = add;
  Tensor v_grad = v ? new_map(*v, call.values, channels_last, {}, call.v_grad) : new_small(x, {0});
  Tensor weight_grad = like_small(x, weight), bias_grad = like_small(x, bias);
  EfficientPlan plan;
  const Tensor parts = run(x, call, plan, CONTEXT_BACKWARD);
  if (weight) weight_grads(x, call, plan, weight, bias, weight_grad, bias_grad);
  return {weight_grad, bias_grad, v_grad};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> context_backward(Tensor held_grad, Tensor held, Tensor stats, Tensor x,
                                                            Maybe weight, Maybe bias, Maybe v, Maybe mask,
                                                            bool scaling, bool channels_last) {
  FlatMap map;
  Tensor x_grad = new_map(x, x.size(2), channels_last, {}, map);
  auto [weight_grad, bias_grad, v_grad] =
      context_grads(held_grad, held, stats, x, weight, bias, v, mask, scaling, channels_last, map, false);
  return {x_grad, weight_grad, bias_grad, v_grad};
}

std::tuple<Tensor, Tensor> context_backward_add(Tensor x_grad, Tensor held_grad, Tensor held, Tensor stats, Tensor x,
                                                Tensor weight, Maybe bias, bool scaling) {
  auto [weight_grad, bias_grad, v_grad] =
      context_grads(held_grad, held, stats, x, weight, bias, {}, {}, scaling, false, map_of(x_grad), true);
  return {weight_grad, bias_grad};
}

Tensor read(Tensor x, Maybe weight, Maybe bias, Maybe stats, Tensor read, Maybe read_bias, Maybe mask, int64_t groups,
            int64_t weights, bool residual, bool bfloat16, bool channels_last) {
  Efficient call = call_of(x, weight, bias, mask);
  call.stats = small_of(stats, 2), call.read = small_of(read, 2), call.read_bias = small_of(read_bias, 1);
  call.groups = groups, call.weights = (Weights)weights, call.residual = residual;
  call.values = read.size(3);
  Tensor out =
      new_map(x, call.values, channels_last, bfloat16 ? ScalarType::BFloat16 : ScalarType::Float, call.out);
  EfficientPlan plan;
  run(x, call, plan, READ);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> read_backward(Tensor grad, Tensor x, Maybe weight, Maybe bias,
                                                                 Maybe stats, Tensor read, Maybe read_bias, Maybe mask,
                                                                 int64_t groups, int64_t weights, bool residual,
                                                                 bool channels_last) {
  Efficient call = call_of(x, weight, bias, mask);
  call.grad = map_of(grad);
  call.stats = small_of(stats, 2), call.read = small_of(read, 2), call.read_bias = small_of(read_bias, 1);
  call.groups = groups, call.weights = (Weights)weights, call.residual = residual;
  call.values = read.size(3);
  Tensor x_grad = new_map(x, x.size(2), channels_last, {}, call.x_grad);
  Tensor weight_grad = like_small(x, weight), bias_grad = like_small(x, bias);
  Tensor read_grad = torch::stable::empty_like(read), read_bias_grad = like_small(x, read_bias);
  Tensor stats_grad = like_small(x, stats);
  EfficientPlan plan;
  const Tensor parts = run(x, call, plan, READ_BACKWARD);
  if (stats) zero(stats_grad);
  if (!plan.units) {
    zero(read_grad);
    if (read_bias) zero(read_bias_grad);
  }
  if (weight) weight_grads(x, call, plan, weight, bias, weight_grad, bias_grad);
  if (!plan.units) return {x_grad, weight_grad, stats ? stats_grad : bias_grad, read_grad, read_bias_grad};
  const int64_t chunks = plan.chunks, bias_at = call.values * plan.padded, size = call.depth * call.values;
  sum_parts(x, call, plan, call.batch * call.heads, chunks, chunks, 1, 0, plan.weights_at);
  if (stats) {
    // The scores' gradients, summed over positions, leave through the statistics.
    sum_parts(x, call, plan, call.batch * call.heads, chunks, chunks, 1, plan.weights_at,
              plan.weights_at + plan.padded);
    for (int64_t m = 0; m < call.batch * call.heads; ++m)
      for (int64_t r = 0; r < call.depth; ++r)
        mutable_floats(stats_grad)[m * 2 * call.depth + r] = -call.parts[m * chunks * plan.part + plan.weights_at + r];
  }
  // Over the axes that share: batch, then heads.
  const int64_t batch = read.size(0), heads = read.size(1);
  const auto give = [&](int64_t b, int64_t h, int64_t to) {
    efficient_kernels().turn(plan, call.parts + (b * call.heads + h) * chunks * plan.part, call.depth, call.values,
                             mutable_floats(read_grad) + to * size);
  };
  if (batch > 1)
    for (int64_t b = 0; b < batch; ++b) {
      if (heads == 1 && call.heads > 1)
        efficient_kernels().sum(plan, call.parts + b * call.heads * chunks * plan.part, call.heads, chunks, 0, bias_at);
      for (int64_t h = 0; h < heads; ++h) give(b, h, b * heads + h);
    }
  sum_parts(x, call, plan, call.heads, chunks, call.batch, call.heads * chunks, batch > 1 ? bias_at : 0,
            plan.weights_at);
  if (batch <= 1) {
    if (heads == 1 && call.heads > 1) efficient_kernels().sum(plan, call.parts, call.heads, chunks, 0, bias_at);
    for (int64_t h = 0; h < heads; ++h) give(0, h, h);
  }
  if (read_bias) {
    const bool by_head = read_bias->size(0) > 1;
    for (int64_t e = 0; e < read_bias->numel(); ++e) mutable_floats(read_bias_grad)[e] = 0.0f;
    for (int64_t h = 0; h < call.heads; ++h)
      for (int64_t e = 0; e < call.values; ++e)
        mutable_floats(read_bias_grad)[(by_head ? h * call.values : 0) + e] +=
            call.parts[h * chunks * plan.part + bias_at + e];
  }
  return {x_grad, weight_grad, stats ? stats_grad : bias_grad, read_grad, read_bias_grad};
}

std::tuple<Tensor, Tensor> slots(Tensor x, Tensor weight, Maybe bias, Maybe mask) {
  Efficient call = call_of(x, weight, bias, mask);
  call.values = 0;
  Tensor scores = new_map(x, call.depth, false, ScalarType::Float, call.scores);
  Tensor stats = new_small(x, {call.batch, call.heads, 2, call.depth});
  call.stats = small_of(stats, 2);
  EfficientPlan plan;
  const Tensor parts = run(x, call, plan, SLOTS);
  join(x, call, plan);
  return {scores, stats};
}

std::tuple<Tensor, Tensor, Tensor> slots_backward(Tensor scores_grad, Tensor stats_grad, Tensor scores, Tensor stats,
                                                  Tensor x, Tensor weight, Maybe bias, Maybe mask,
                                                  bool channels_last) {
  Efficient call = call_of(x, weight, bias, mask);
  call.values = 0;
  call.scores = map_of(scores), call.scores_grad = map_of(scores_grad);
  call.stats = small_of(stats, 2), call.stats_grad = small_of(stats_grad, 2);
  Tensor x_grad = new_map(x, x.size(2), channels_last, {}, call.x_grad);
  Tensor weight_grad = torch::stable::empty_like(weight), bias_grad = like_small(x, bias);
  EfficientPlan plan;
  const Tensor parts = run(x, call, plan, SLOTS_BACKWARD);
  weight_grads(x, call, plan, weight, bias, weight_grad, bias_grad);
  return {x_grad, weight_grad, bias_grad};
}

// Features that cost less to meet the slots again than their scores cost to store.
constexpr int64_t FEW_CHANNELS = 128;

// Both passes for the result alone: scores are stored only where the features are many.
Tensor external_unit(Tensor x, Tensor weight, Maybe bias, Tensor read, Maybe read_bias, int64_t groups, int64_t weights,
                     bool residual, bool activation, bool channels_last) {
  Efficient call = call_of(x, weight, bias, {});
  call.read = small_of(read, 2), call.read_bias = small_of(read_bias, 1);
  call.groups = groups, call.weights = (Weights)weights, call.activation = activation;
  call.values = read.size(3);
  Tensor out = new_map(x, call.values, channels_last, {}, call.out), stats, scores;
  EfficientPlan plan;
  if (call.weights == DOUBLE) {
    Efficient first = call;
    first.values = 0;
    if (call.channels > FEW_CHANNELS) scores = new_map(x, call.depth, false, ScalarType::Float, first.scores);
    stats = new_small(x, {call.batch, call.heads, 2, call.depth});
    first.stats = small_of(stats, 2);
    const Tensor parts = run(x, first, plan, SLOTS);
    join(x, first, plan);
    call.stats = first.stats;
    if (first.scores.data) {
      if (residual) call.other = call.x;
      call.x = first.scores, call.weight = call.bias = {};
    }
  }
  call.residual = residual && !call.other.data;
  run(x, call, plan, READ);
  return out;
}

}  // namespace
}  // namespace foveal

STABLE_TORCH_LIBRARY_FRAGMENT(foveal, m) {
  m.def(
      "cpu_efficient_context(Tensor x, Tensor? weight, Tensor? bias, Tensor? v, Tensor? mask, bool scaling) "
      "-> (Tensor, Tensor)");
  m.def(
      "cpu_efficient_context_backward(Tensor held_grad, Tensor held, Tensor stats, Tensor x, Tensor? weight, "
      "Tensor? bias, Tensor? v, Tensor? mask, bool scaling, bool channels_last) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "cpu_efficient_context_backward_add_(Tensor(a!) x_grad, Tensor held_grad, Tensor held, Tensor stats, Tensor x, "
      "Tensor weight, Tensor? bias, bool scaling) -> (Tensor, Tensor)");
  m.def(
      "cpu_efficient_read(Tensor x, Tensor? weight, Tensor? bias, Tensor? stats, Tensor read, Tensor? read_bias, "
      "Tensor? mask, int groups, int weights, bool residual, bool bfloat16, bool channels_last) -> Tensor");
  m.def(
      "cpu_efficient_read_backward(Tensor grad, Tensor x, Tensor? weight, Tensor? bias, Tensor? stats, Tensor read, "
      "Tensor? read_bias, Tensor? mask, int groups, int weights, bool residual, bool channels_last) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "cpu_external_unit(Tensor x, Tensor weight, Tensor? bias, Tensor read, Tensor? read_bias, int groups, "
      "int weights, bool residual, bool activation, bool channels_last) -> Tensor");
  m.def("cpu_external_slots(Tensor x, Tensor weight, Tensor? bias, Tensor? mask) -> (Tensor, Tensor)");
  m.def(
      "cpu_external_slots_backward(Tensor scores_grad, Tensor stats_grad, Tensor scores, Tensor stats, Tensor x, "
      "Tensor weight, Tensor? bias, Tensor? mask, bool channels_last) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(foveal, CPU, m) {
  m.impl("cpu_efficient_context", TORCH_BOX(&foveal::context));
  m.impl("cpu_efficient_context_backward", TORCH_BOX(&foveal::context_backward));
  m.impl("cpu_efficient_context_backward_add_", TORCH_BOX(&foveal::context_backward_add));
  m.impl("cpu_efficient_read", TORCH_BOX(&foveal::read));
  m.impl("cpu_efficient_read_backward", TORCH_BOX(&foveal::read_backward));
  m.impl("cpu_external_unit", TORCH_BOX(&foveal::external_unit));
  m.impl("cpu_external_slots", TORCH_BOX(&foveal::slots));
  m.impl("cpu_external_slots_backward", TORCH_BOX(&foveal::slots_backward));
}
