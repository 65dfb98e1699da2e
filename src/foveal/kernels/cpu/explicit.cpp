// Explicit attention with a separable decay: the operators that torch sees, and the small tables of each axis.
#include "explicit.h"

#include <cmath>
#include <vector>

#include "isa.h"
#include "tensors.h"

FOVEAL_KERNELS(foveal::ExplicitKernels, explicit_kernels)

namespace foveal {
namespace {

constexpr double EPS = 1e-6;  // as in functional/decays.py
constexpr double NEGLIGIBLE = 1.0 / (1 << 30);

DecayMap map_of(const Tensor& x) {
  return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2), x.stride(3), x.stride(4)};
}

// A new map, laid out as (batch, rows, columns, heads, channels) where channels come last, and how to read it.
Tensor new_map(const Tensor& like, bool channels_last, DecayMap& map) {
  const int64_t b = like.size(0), h = like.size(1), c = like.size(2), y = like.size(3), x = like.size(4);
  if (channels_last) {
    Tensor made = torch::stable::new_empty(like, {b, y, x, h, c});
    map = {made.data_ptr(), y * x * h * c, c, 1, x * h * c, h * c};
    return made;
  }
  Tensor made = torch::stable::new_empty(like, {b, h, c, y, x});
  map = {made.data_ptr(), h * c * y * x, c * y * x, y * x, x, 1};
  return made;
}

// The tables of every head and axis; they keep the memory that the axes point to.
struct Tables {
  std::vector<DecayAxis> axes;
  std::vector<std::vector<float>> memory;

  const float* keep(std::vector<float> values) {
    memory.push_back(std::move(values));
    return memory.back().data();
  }
};

// exp(-(x - y)^2 / 2q) = sum over k of f_k(x) f_k(y), f_k(x) = exp(-x^2 / 2q) (x / sqrt(q))^k / sqrt(k!): how many terms
// until the rest is lost in rounding, for coordinates up to `reach` from the middle.
int64_t terms(double reach, double q) {
  const double z = reach * reach / q;
  double term = std::exp(-z);
  for (int64_t k = 1; k <= 64; ++k) {
    term *= z / k;
    if (k > 2 * z && term * k < NEGLIGIBLE) return k;
  }
  return 64;
}

// Two matrices of that expansion: few columns where the Gaussian is wide.
void expand(Tables& tables, DecayAxis& axis, double radius, int64_t rank) {
  const int64_t length = axis.length;
  const double q = radius * radius + EPS;
  std::vector<float> first(rank * length), second(rank * length), first_slope(rank * length), second_slope(rank * length);
  for (int64_t i = 0; i < length; ++i) {
    const double x = (i - 0.5 * (length - 1)) / length;
    double value = std::exp(-x * x / (2 * q));
    for (int64_t k = 0; k < rank; ++k) {
      if (k) value *= x / std::sqrt(q * k);
      const double slope = value * (x * x / q - k) / q * radius;
      first[k * length + i] = second[i * rank + k] = (float)value;
      first_slope[k * length + i] = second_slope[i * rank + k] = (float)slope;
    }
  }
  axis.rank = rank;
  axis.first = tables.keep(std::move(first)), axis.second = tables.keep(std::move(second));
  axis.first_slope = tables.keep(std::move(first_slope)), axis.second_slope = tables.keep(std::move(second_slope));
}

// One head, one axis: weight and derivative by the distance, their row sums, and the matrices if there is no recursion.
void add_axis(Tables& tables, int64_t length, double radius, bool manhattan) {
  DecayAxis axis;
  axis.length = axis.rank = length;
  const double sigma = std::fabs(radius) + EPS, q = radius * radius + EPS;
  const double sign = radius > 0 ? 1 : radius < 0 ? -1 : 0;
  std::vector<double> weight(length), slope(length);
  for (int64_t k = 0; k < length; ++k) {
    const double d = (double)k / length;
    weight[k] = manhattan ? std::exp(-d / sigma) : std::exp(-d * d / (2 * q));
    slope[k] = weight[k] * (manhattan ? sign * d / (sigma * sigma) : d * d * radius / (q * q));
  }
  std::vector<float> sums(length), sums_slope(length);
  double to = 0, to_slope = 0;  // of distances up to i
  std::vector<double> upto(length), upto_slope(length);
  for (int64_t k = 0; k < length; ++k) {
    upto[k] = to += weight[k];
    upto_slope[k] = to_slope += slope[k];
  }
  for (int64_t i = 0; i < length; ++i) {
    sums[i] = (float)(upto[i] + upto[length - 1 - i] - weight[0]);
    sums_slope[i] = (float)(upto_slope[i] + upto_slope[length - 1 - i] - slope[0]);
  }
  axis.weights = tables.keep(std::move(sums)), axis.weights_slope = tables.keep(std::move(sums_slope));
  const int64_t rank = manhattan ? 0 : terms(0.5 * (length - 1) / length, q);
  if (manhattan) {
    const double step = std::exp(-1.0 / (length * sigma));
    axis.step = (float)step, axis.step_rest = (float)(step - axis.step);
    axis.step_slope = (float)(sign / (length * sigma * sigma));
  } else if (2 * rank < length && rank < 32) {
    expand(tables, axis, radius, rank);
  } else {
    std::vector<float> matrix(length * length), matrix_slope(length * length);
    for (int64_t i = 0; i < length; ++i)
      for (int64_t j = 0; j < length; ++j) {
        const int64_t k = i > j ? i - j : j - i;
        matrix[i * length + j] = (float)weight[k], matrix_slope[i * length + j] = (float)slope[k];
      }
    axis.first = tables.keep(std::move(matrix)), axis.first_slope = tables.keep(std::move(matrix_slope));
  }
  tables.axes.push_back(axis);
}

Explicit call_of(const Tensor& v, const Tensor& radius, bool manhattan, double offset, Tables& tables) {
  STD_TORCH_CHECK(v.dim() == 5 && radius.scalar_type() == ScalarType::Float && radius.is_contiguous(),
                  "foveal: expected a map with two space axes and a float32 radius");
  Explicit call;
  call.v = map_of(v);
  call.batch = v.size(0), call.heads = v.size(1), call.channels = v.size(2), call.rows = v.size(3);
  call.columns = v.size(4), call.offset = (float)offset;
  call.bfloat16 = v.scalar_type() == ScalarType::BFloat16;
  call.one_radius = radius.numel() == 1, call.with_map = true;
  tables.memory.reserve(12 * radius.numel());
  for (int64_t head = 0; head < radius.numel(); ++head) {
    add_axis(tables, call.rows, floats(radius)[head], manhattan);
    add_axis(tables, call.columns, floats(radius)[head], manhattan);
  }
  call.axes = tables.axes.data();
  return call;
}

Tensor forward(Tensor v, Tensor radius, bool manhattan, double offset, bool channels_last) {
  Tables tables;
  Explicit call = call_of(v, radius, manhattan, offset, tables);
  Tensor out = new_map(v, channels_last, call.out);
  if (out.numel())
    for_units(v, explicit_kernels().units(call), explicit_kernels().scratch(call, false),
              [&](int64_t unit, float* scratch) { explicit_kernels().forward(call, unit, scratch); });
  return out;
}

std::tuple<Tensor, Tensor> backward(Tensor grad, Tensor v, Tensor radius, bool manhattan, double offset,
                                    bool channels_last, bool with_map, bool with_radius) {
  Tables tables;
  Explicit call = call_of(v, radius, manhattan, offset, tables);
  call.grad = map_of(grad), call.with_map = with_map;
  Tensor v_grad = with_map ? new_map(v, channels_last, call.out) : torch::stable::new_empty(v, {0});
  Tensor radius_grad = torch::stable::new_empty(radius, radius.sizes());
  const int64_t units = v.numel() ? explicit_kernels().units(call) : 0;
  std::vector<double> parts(units);
  call.radius_grad = with_radius ? parts.data() : nullptr;
  if (units)
    for_units(v, units, explicit_kernels().scratch(call, true),
              [&](int64_t unit, float* scratch) { explicit_kernels().backward(call, unit, scratch); });
  const int64_t each = units / std::max<int64_t>(radius.numel(), 1);
  for (int64_t head = 0; head < radius.numel(); ++head) {
    double sum = 0;
    for (int64_t unit = head * each; unit < (head + 1) * each; ++unit) sum += parts[unit];
    mutable_floats(radius_grad)[head] = (float)sum;
  }
  return {v_grad, radius_grad};
}

}  // namespace
}  // namespace foveal

STABLE_TORCH_LIBRARY_FRAGMENT(foveal, m) {
  m.def("cpu_explicit_attention(Tensor v, Tensor radius, bool manhattan, float offset, bool channels_last) -> Tensor");
  m.def(
      "cpu_explicit_attention_backward(Tensor grad, Tensor v, Tensor radius, bool manhattan, float offset, "
      "bool channels_last, bool with_map, bool with_radius) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(foveal, CPU, m) {
  m.impl("cpu_explicit_attention", TORCH_BOX(&foveal::forward));
  m.impl("cpu_explicit_attention_backward", TORCH_BOX(&foveal::backward));
}
