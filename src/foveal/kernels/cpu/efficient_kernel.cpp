// Efficient and external attention on CPUs, compiled once for each instruction set.
//
// A unit of work is a run of positions of one map. Its features are packed into panels of 64 positions (channel after
// channel, positions side by side) that stay in the second cache while everything that needs them is computed: scores,
// their exponentials, and what these sum. Scores are kept either way round, whichever the next product wants: position
// after position where a score's row meets all positions, row after row where a position's scores meet each other.
// A unit sums into its own part; parts are added in their order, hence the same bits whatever the number of threads.
// The backward computes scores again; nothing of the size of positions x depth is stored but external attention's
// scores, once.
#include "efficient.h"

#include "gemm.h"
#include "pack.h"

namespace FOVEAL_ISA {

using foveal::Efficient;
using foveal::EfficientJob;
using foveal::EfficientPlan;
using foveal::FlatMap;
using foveal::Small;

constexpr float LOG2E = 1.4426950408889634f;
// Finite, so that a map without any key stays free of NaN; far below any score.
constexpr float OUTSIDE = -1e30f;
constexpr float EPS = 1e-9f;
constexpr int64_t PANEL = 64;  // positions; whole vectors everywhere

FOVEAL_INLINE int64_t up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
FOVEAL_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
FOVEAL_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
FOVEAL_INLINE void clear(float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = 0.0f;
}
FOVEAL_INLINE void add_to(float* x, vf y) { store(x, load(x) + y); }

// Panels are read and written along whole channels of the block, which suits the prefetchers.
template <class T>
static void read_panels(float* to, const T* from, int64_t channels, int64_t count, int64_t channel, int64_t position) {
  const int64_t size = channels * PANEL;
  if (position == 1) {
    for (int64_t c = 0; c < channels; ++c) {
      const T* line = from + c * channel;
      for (int64_t x = 0; x < count; x += PANEL) {
        float* at = to + x / PANEL * size + c * PANEL;
        const int64_t some = least(PANEL, count - x);
        int64_t i = 0;
        for (; i + N <= some; i += N) store(at + i, load(line + x + i));
        for (; i < some; ++i) at[i] = widen(line[x + i]);
        for (; i < PANEL; ++i) at[i] = 0.0f;
      }
    }
    return;
  }
  for (int64_t x = 0; x < count; x += PANEL, to += size) {
    const int64_t some = least(PANEL, count - x);
    if (some < PANEL) clear(to, size);
    pack(to, PANEL, from + x * position, channels, some, channel, position, 1.0f);
  }
}

template <class T>
static void write_panels(const float* from, T* to, int64_t channels, int64_t count, int64_t channel,
                         int64_t position) {
  const int64_t size = channels * PANEL;
  if (position == 1) {
    for (int64_t c = 0; c < channels; ++c) {
      T* line = to + c * channel;
      for (int64_t x = 0; x < count; x += PANEL) {
        const float* at = from + x / PANEL * size + c * PANEL;
        const int64_t some = least(PANEL, count - x);
        int64_t i = 0;
        for (; i + N <= some; i += N) store(line + x + i, load(at + i));
        for (; i < some; ++i) narrow(line + x + i, at[i]);
      }
    }
    return;
  }
  for (int64_t x = 0; x < count; x += PANEL, from += size)
    unpack(from, PANEL, to + x * position, channels, least(PANEL, count - x), channel, position, 1.0f);
}

struct Work {
  const Efficient& a;
  const EfficientPlan& plan;
  const EfficientJob job;
  int64_t batch = 0, head = 0, first = 0, last = 0;
  int64_t d, block;  // depth in whole vectors, positions of a block
  float *x, *v, *grad, *scores, *turned, *slopes, *turned_slopes, *mask;
  float *weight, *small, *delta, *peak, *sum;

  Work(const Efficient& a, const EfficientPlan& plan, EfficientJob job) : a(a), plan(plan), job(job) {
    d = up(a.depth, N);
    // As many panels as leave room in the second cache.
    const int64_t widest = most(a.features(), a.values);
    block = PANEL * most(1, least(8, 65536 / (widest * PANEL)));
  }

  void start(int64_t unit) {
    first = unit % plan.chunks * plan.length;
    last = least(a.positions, first + plan.length);
    batch = unit / plan.chunks / a.heads;
    head = unit / plan.chunks % a.heads;
  }

  // Hand out scratch memory; with base == nullptr only count it.
  int64_t allot(float* base) {
    int64_t used = 0;
    auto take = [&](int64_t floats) {
      float* at = base ? base + used : nullptr;
      used += up(floats, 16);
      return at;
    };
    x = take(a.features() * block);
    v = take(a.shared ? 0 : a.values * block);
    grad = take(job == foveal::READ_BACKWARD || a.add ? most(a.values, a.channels) * block : 0);
    scores = take(2 * d * PANEL);
    turned = take(d * PANEL);
    slopes = take(2 * d * PANEL);
    turned_slopes = take(d * PANEL);
    mask = take(PANEL);
    weight = take(2 * a.channels * d);
    small = take(a.values * d);
    delta = take(d);
    peak = take(d * N), sum = take(d * N);
    return used;
  }

  const float* of(const Small& s) const { return s.data ? s.data + batch * s.batch + head * s.head : nullptr; }
  template <class T>
  T* at(const FlatMap& map, int64_t position) const {
    return (T*)map.data + batch * map.batch + head * map.head + position * map.position;
  }
  void read(float* to, const FlatMap& map, int64_t channels, int64_t position, int64_t count) const {
    map.bfloat16 ? read_panels(to, at<const uint16_t>(map, position), channels, count, map.channel, map.position)
                 : read_panels(to, at<const float>(map, position), channels, count, map.channel, map.position);
  }
  void write(const float* from, const FlatMap& map, int64_t channels, int64_t position, int64_t count) const {
    map.bfloat16 ? write_panels(from, at<uint16_t>(map, position), channels, count, map.channel, map.position)
                 : write_panels(from, at<float>(map, position), channels, count, map.channel, map.position);
  }
  // The same position after position: rows of `d`.
  void read_turned(float* to, const FlatMap& map, int64_t position, int64_t count) const {
    map.bfloat16 ? pack(to, d, at<const uint16_t>(map, position), count, a.depth, map.position, map.channel, 1.0f)
                 : pack(to, d, at<const float>(map, position), count, a.depth, map.position, map.channel, 1.0f);
  }
  void write_turned(const float* from, const FlatMap& map, int64_t position, int64_t count) const {
    map.bfloat16 ? unpack(from, d, at<uint16_t>(map, position), count, a.depth, map.position, map.channel, 1.0f)
                 : unpack(from, d, at<float>(map, position), count, a.depth, map.position, map.channel, 1.0f);
  }
  // (rows, columns) to (columns, d), and panels of scores turned round.
  void turn_small(float* to, const float* from, int64_t columns, int64_t pitch) const {
    pack(to, pitch, from, columns, a.depth, 1, columns, 1.0f);
  }
  void turn(float* to, const float* rows, int64_t count) const {
    pack(to, d, rows, count, a.depth, 1, PANEL, 1.0f);
  }
  void turn_back(float* rows, const float* from, int64_t count) const {
    unpack(from, d, rows, count, a.depth, 1, PANEL, 1.0f);
  }

  bool seen(int64_t position) const { return !a.mask || a.mask[batch * a.positions + position]; }
  void read_mask(int64_t position, int64_t count) const {
    for (int64_t i = 0; i < PANEL; ++i) mask[i] = i < count && seen(position + i) ? 1.0f : 0.0f;
  }

  // Scores of a panel, position after position.
  void score_positions(const float* features, int64_t position, int64_t count, int64_t weight_row) const {
    if (!a.weight.data) return read_turned(turned, a.x, position, count);
    product({features, 1, PANEL}, count, a.channels, weight, weight_row, d, turned, d);
    const float* bias = of(a.bias);
    if (!bias) return;
    for (int64_t c = 0; c < d; c += N) {
      const vf b = c + N <= a.depth ? load(bias + c) : load_few(bias + c, a.depth - c);
      for (int64_t i = 0; i < count; ++i) add_to(turned + i * d + c, b);
    }
  }
  // Row after row; without weights the panel holds them already.
  const float* score_rows(const float* features) const {
    if (!a.weight.data) return features;
    product({of(a.weight), a.channels, 1}, a.depth, a.channels, features, PANEL, PANEL, scores, PANEL, false,
            of(a.bias));
    return scores;
  }

  // ---- context ----

  void context(float* part) {
    float *held = part, *top = part + a.values * d, *total = top + d;
    clear(held, a.values * d), clear(total, d);
    for (int64_t c = 0; c < d; ++c) top[c] = OUTSIDE;
    if (a.weight.data) turn_small(weight, of(a.weight), a.channels, d);
    for (int64_t p = first; p < last; p += block) {
      const int64_t count = least(block, last - p);
      if (a.weight.data) read(x, a.x, a.channels, p, count);
      if (!a.shared) read(v, a.v, a.values, p, count);
      for (int64_t i = 0; i < count; i += PANEL) {
        const int64_t some = least(PANEL, count - i);
        score_positions(x + i * a.features(), p + i, some, d);
        exponentials(p + i, some, held, top, total);
        const float* values = a.shared ? x : v;
        product({values + i * a.values, PANEL, 1}, a.values, some, turned, d, d, held, d, true);
      }
    }
  }

  void exponentials(int64_t position, int64_t count, float* held, float* top, float* total) const {
    if (a.weights == foveal::PLAIN) {
      for (int64_t i = 0; i < count; ++i)
        if (seen(position + i)) {
          for (int64_t c = 0; c < d; c += N) add_to(total + c, splat(1.0f));
        } else {
          clear(turned + i * d, d);
        }
      return;
    }
    for (int64_t c = 0; c < d; c += N) {
      const vf before = load(top + c);
      vf now = before;
      for (int64_t i = 0; i < count; ++i)
        if (seen(position + i)) now = upper(now, load(turned + i * d + c));
      const vf factor = exp2((before - now) * LOG2E);
      vf sum = load(total + c) * factor;
      for (int64_t i = 0; i < count; ++i) {
        float* at = turned + i * d + c;
        const vf y = seen(position + i) ? exp2((load(at) - now) * LOG2E) : vf{};
        store(at, y);
        sum += y;
      }
      store(top + c, now), store(total + c, sum);
      bool same = true;
      for (int i = 0; i < N; ++i) same = same && factor[i] == 1.0f;
      if (same) continue;
      for (int64_t e = 0; e < a.values; ++e) store(held + e * d + c, load(held + e * d + c) * factor);
    }
  }

  void context_backward(float* part) {
    float *weight_part = part, *bias_part = part + a.channels * d;
    if (a.weight.data) {
      clear(part, plan.part);
      turn_small(weight, of(a.weight), a.channels, 2 * d);
    }
    turn_small(small, of(a.held_grad), a.values, d);
    // One matrix (channels, 2 d) for what the slopes and, where values are shared, the weights give to a position.
    if (a.shared)
      for (int64_t c = 0; c < a.values; ++c)
        for (int64_t i = 0; i < d; i += N) store(weight + c * 2 * d + d + i, load(small + c * d + i));
    deltas();
    const float* stats = of(a.stats);
    for (int64_t c = 0; c < a.depth; ++c) peak[c] = stats[c], sum[c] = 1.0f / stats[a.depth + c];
    for (int64_t p = first; p < last; p += block) {
      const int64_t count = least(block, last - p);
      if (a.weight.data) read(x, a.x, a.channels, p, count);
      if (!a.shared) read(v, a.v, a.values, p, count);
      if (a.add) read(grad, a.x_grad, a.channels, p, count);
      for (int64_t i = 0; i < count; i += PANEL) slope_keys(i, p + i, least(PANEL, count - i), weight_part, bias_part);
      if (a.weight.data) write(a.add ? grad : x, a.x_grad, a.channels, p, count);
      if (!a.shared) write(v, a.v_grad, a.values, p, count);
    }
  }

  // sum over positions of weight times its gradient, the same for all positions of a row
  void deltas() const {
    const float *held = of(a.held), *grad = of(a.held_grad);
    for (int64_t c = 0; c < a.depth; ++c) {
      vf total{};
      int64_t e = 0;
      for (; e + N <= a.values; e += N) total += load(held + c * a.values + e) * load(grad + c * a.values + e);
      if (e < a.values)
        total += load_few(held + c * a.values + e, a.values - e) * load_few(grad + c * a.values + e, a.values - e);
      delta[c] = ::FOVEAL_ISA::sum(total);
    }
  }

  void slope_keys(int64_t i, int64_t position, int64_t count, float* weight_part, float* bias_part) {
    float *features = x + i * a.features(), *values = a.shared ? features : v + i * a.values;
    score_positions(features, position, count, 2 * d);
    product({values, 1, PANEL}, count, a.values, small, d, d, turned_slopes, d);
    const bool plain = a.weights == foveal::PLAIN;
    for (int64_t c = 0; c < d; c += N) {
      const vf most = load(peak + c), inverse = load(sum + c), own = load(delta + c);
      vf bias{};
      for (int64_t j = 0; j < count; ++j) {
        float *w = turned + j * d + c, *s = turned_slopes + j * d + c;
        vf weight{}, slope{};
        if (seen(position + j)) {
          weight = (plain ? load(w) : exp2((load(w) - most) * LOG2E)) * inverse;
          slope = plain ? load(s) * inverse : weight * (load(s) - own);
        }
        store(w, weight), store(s, slope);
        bias += slope;
      }
      if (a.weight.data) add_to(bias_part + c, bias);
    }
    // Panels of weights and slopes, the latter above the former.
    turn_back(scores + a.depth * PANEL, turned, count);
    if (a.weight.data) {
      turn_back(scores, turned_slopes, count);
      product({features, PANEL, 1}, a.channels, count, turned_slopes, d, d, weight_part, d, true);
      float* to = a.add ? grad + i * a.channels : features;
      product({weight, 2 * d, 1}, a.channels, a.depth, scores, PANEL, PANEL, to, PANEL, a.add);
      if (a.shared)
        product({weight + d, 2 * d, 1}, a.channels, a.depth, scores + a.depth * PANEL, PANEL, PANEL, to, PANEL, true);
    } else {
      write_turned(turned_slopes, a.x_grad, position, count);
    }
    if (!a.shared) product({small, d, 1}, a.values, a.depth, scores + a.depth * PANEL, PANEL, PANEL, values, PANEL);
  }

  // ---- reading ----

  // scores -> weights of a panel, row after row; all rows of a group meet.
  void normalize(const float* from, float* to, int64_t position, int64_t count) const {
    const int64_t rows = a.depth / a.groups;
    if (a.mask) read_mask(position, count);
    if (a.weights == foveal::PLAIN) {
      for (int64_t i = 0; i < a.depth * PANEL; i += N) store(to + i, load(from + i));
      return;
    }
    const bool twice = a.weights == foveal::DOUBLE;
    for (int64_t g = 0; g < a.groups; ++g, from += rows * PANEL, to += rows * PANEL) {
      const float *top = peak + g * rows, *inverse = sum + g * rows;
      for (int64_t i = 0; i < PANEL; i += N) {
        vf total{}, greatest = splat(OUTSIDE);
        if (twice) {
          for (int64_t r = 0; r < rows; ++r) {
            const vf y = exp2((load(from + r * PANEL + i) - top[r]) * LOG2E) * inverse[r];
            store(to + r * PANEL + i, y);
            total += y;
          }
          total += EPS;
        } else {
          for (int64_t r = 0; r < rows; ++r) greatest = upper(greatest, load(from + r * PANEL + i));
          for (int64_t r = 0; r < rows; ++r) {
            const vf y = exp2((load(from + r * PANEL + i) - greatest) * LOG2E);
            store(to + r * PANEL + i, y);
            total += y;
          }
        }
        const vf factor = 1.0f / total;
        for (int64_t r = 0; r < rows; ++r) {
          const vf y = load(to + r * PANEL + i) * factor;
          // What takes no part may hold any number.
          store(to + r * PANEL + i, a.mask ? (load(mask + i) > 0.0f ? y : vf{}) : y);
        }
      }
    }
  }

  void prepare_reading() {
    turn_small(small, of(a.read), a.values, d);
    const float* stats = of(a.stats);
    if (stats)
      for (int64_t c = 0; c < a.depth; ++c) peak[c] = stats[c], sum[c] = 1.0f / stats[a.depth + c];
  }

  void reading() {
    prepare_reading();
    for (int64_t p = first; p < last; p += block) {
      const int64_t count = least(block, last - p);
      read(x, a.x, a.features(), p, count);
      if (a.other.data) read(v, a.other, a.values, p, count);
      for (int64_t i = 0; i < count; i += PANEL) {
        float *features = x + i * a.features(), *to = a.residual ? features : v + i * a.values;
        normalize(score_rows(features), scores, p + i, least(PANEL, count - i));
        product({small, d, 1}, a.values, a.depth, scores, PANEL, PANEL, to, PANEL, a.residual || a.other.data,
                of(a.read_bias));
        if (a.activation)
          for (int64_t j = 0; j < a.values * PANEL; j += N) store(to + j, upper(vf{}, load(to + j)));
      }
      write(a.residual ? x : v, a.out, a.values, p, count);
    }
  }

  void reading_backward(float* part) {
    clear(part, plan.part);
    prepare_reading();
    float *read_part = part, *read_bias = read_part + a.values * d, *weight_part = read_bias + up(a.values, N),
          *bias_part = weight_part + (a.weight.data ? a.channels * d : 0);
    if (a.weight.data) turn_small(weight, of(a.weight), a.channels, d);
    for (int64_t p = first; p < last; p += block) {
      const int64_t count = least(block, last - p);
      read(x, a.x, a.features(), p, count);
      read(grad, a.grad, a.values, p, count);
      for (int64_t i = 0; i < count; i += PANEL) {
        const int64_t some = least(PANEL, count - i);
        float *features = x + i * a.features(), *g = grad + i * a.values;
        normalize(score_rows(features), scores, p + i, some);
        product({of(a.read), a.values, 1}, a.depth, a.values, g, PANEL, PANEL, slopes, PANEL);
        turn(turned, scores, some);
        product({g, PANEL, 1}, a.values, some, turned, d, d, read_part, d, true);
        if (a.read_bias.data)
          for (int64_t e = 0; e < a.values; ++e) {
            vf total{};
            for (int64_t j = 0; j < PANEL; j += N) total += load(g + e * PANEL + j);
            read_bias[e] += ::FOVEAL_ISA::sum(total);
          }
        float* rows = a.weight.data ? slopes : features;
        slope_queries(rows);
        turn(turned_slopes, rows, some);
        for (int64_t c = 0; c < d; c += N) {
          vf total{};
          for (int64_t j = 0; j < some; ++j) total += load(turned_slopes + j * d + c);
          add_to(bias_part + c, total);
        }
        if (!a.weight.data) continue;
        product({features, PANEL, 1}, a.channels, some, turned_slopes, d, d, weight_part, d, true);
        product({weight, d, 1}, a.channels, a.depth, slopes, PANEL, PANEL, a.residual ? g : features, PANEL,
                a.residual);
      }
      write(a.weight.data && a.residual ? grad : x, a.x_grad, a.features(), p, count);
    }
  }

  void slope_queries(float* to) const {
    const int64_t rows = a.depth / a.groups;
    if (a.weights == foveal::PLAIN) {
      for (int64_t i = 0; i < a.depth * PANEL; i += N) store(to + i, load(slopes + i));
      return;
    }
    for (int64_t g = 0; g < a.groups; ++g)
      for (int64_t i = 0; i < PANEL; i += N) {
        const int64_t at = g * rows * PANEL + i;
        vf dot{};
        for (int64_t r = 0; r < rows; ++r) dot += load(scores + at + r * PANEL) * load(slopes + at + r * PANEL);
        for (int64_t r = 0; r < rows; ++r)
          store(to + at + r * PANEL, load(scores + at + r * PANEL) * (load(slopes + at + r * PANEL) - dot));
      }
  }

  // ---- slots of external attention ----

  void slots(float* part) {
    for (int64_t i = 0; i < d * N; ++i) peak[i] = OUTSIDE, sum[i] = 0.0f;
    for (int64_t p = first; p < last; p += block) {
      const int64_t count = least(block, last - p);
      read(x, a.x, a.channels, p, count);
      for (int64_t i = 0; i < count; i += PANEL) {
        const int64_t some = least(PANEL, count - i);
        score_rows(x + i * a.channels);
        if (a.scores.data) write(scores, a.scores, a.depth, p + i, some);
        if (a.mask) read_mask(p + i, some);
        for (int64_t j = some; j < PANEL; ++j)
          for (int64_t r = 0; r < a.depth; ++r) scores[r * PANEL + j] = OUTSIDE;
        for (int64_t r = 0; r < a.depth; ++r) statistics(scores + r * PANEL, peak + r * N, sum + r * N);
      }
    }
    // Lanes into one.
    for (int64_t r = 0; r < a.depth; ++r) {
      float greatest = OUTSIDE;
      for (int j = 0; j < N; ++j) {
        const float y = peak[r * N + j];
        greatest = y > greatest || y != y ? y : greatest;
      }
      part[r] = greatest;
      part[d + r] = ::FOVEAL_ISA::sum(load(sum + r * N) * exp2((load(peak + r * N) - greatest) * LOG2E));
    }
  }

  void statistics(const float* row, float* top, float* total) const {
    const vf before = load(top);
    vf now = before;
    for (int64_t i = 0; i < PANEL; i += N) {
      const vf y = load(row + i);
      now = upper(now, a.mask ? (load(mask + i) > 0.0f ? y : splat(OUTSIDE)) : y);
    }
    vf sum = load(total) * exp2((before - now) * LOG2E);
    for (int64_t i = 0; i < PANEL; i += N) {
      vf y = exp2((load(row + i) - now) * LOG2E);
      // Where a lane has seen nothing yet, what is outside would count.
      y = load(row + i) > OUTSIDE || load(row + i) != load(row + i) ? y : vf{};
      if (a.mask) y = load(mask + i) > 0.0f ? y : vf{};
      sum += y;
    }
    store(top, now), store(total, sum);
  }

  void slots_backward(float* part) {
    clear(part, plan.part);
    float *weight_part = part, *bias_part = part + a.channels * d;
    turn_small(weight, of(a.weight), a.channels, d);
    const float *stats = of(a.stats), *stats_grad = of(a.stats_grad);
    for (int64_t p = first; p < last; p += block) {
      const int64_t count = least(block, last - p);
      read(x, a.x, a.channels, p, count);
      for (int64_t i = 0; i < count; i += PANEL) {
        const int64_t some = least(PANEL, count - i);
        float* features = x + i * a.channels;
        read(scores, a.scores, a.depth, p + i, some);
        read(slopes, a.scores_grad, a.depth, p + i, some);
        if (a.mask) read_mask(p + i, some);
        for (int64_t r = 0; r < a.depth; ++r) {
          const float top = stats[r], factor = stats_grad[r] / stats[a.depth + r];
          for (int64_t j = 0; j < PANEL; j += N) {
            vf weight = exp2((load(scores + r * PANEL + j) - top) * LOG2E) * factor;
            if (a.mask) weight = load(mask + j) > 0.0f ? weight : vf{};
            add_to(slopes + r * PANEL + j, weight);
          }
        }
        turn(turned_slopes, slopes, some);
        for (int64_t c = 0; c < d; c += N) {
          vf total{};
          for (int64_t j = 0; j < some; ++j) total += load(turned_slopes + j * d + c);
          add_to(bias_part + c, total);
        }
        product({features, PANEL, 1}, a.channels, some, turned_slopes, d, d, weight_part, d, true);
        product({weight, d, 1}, a.channels, a.depth, slopes, PANEL, PANEL, features, PANEL);
      }
      write(x, a.x_grad, a.channels, p, count);
    }
  }
};

static EfficientPlan plan(const Efficient& a, EfficientJob job) {
  EfficientPlan plan{0, 0, 0, 0, 0, 0, up(a.depth, N)};
  const int64_t maps = a.batch * a.heads;
  if (!maps || !a.positions) return plan;
  // Enough units for many cores, none so short that its part costs more than its work.
  const int64_t wanted = most(1, least((31 + maps) / maps, a.positions / 512));
  plan.length = up((a.positions + wanted - 1) / wanted, PANEL);
  plan.chunks = (a.positions + plan.length - 1) / plan.length;
  plan.units = maps * plan.chunks;
  const int64_t weight = a.weight.data ? (a.channels + 1) * plan.padded : plan.padded;
  if (job == foveal::CONTEXT) plan.part = (a.values + 2) * plan.padded;
  if (job == foveal::CONTEXT_BACKWARD || job == foveal::SLOTS_BACKWARD) plan.part = weight;
  plan.weights_at = job == foveal::READ_BACKWARD ? a.values * plan.padded + up(a.values, N) : 0;
  if (job == foveal::READ_BACKWARD) plan.part = plan.weights_at + weight;
  if (job == foveal::SLOTS) plan.part = 2 * plan.padded;
  plan.part = up(plan.part, 16);
  Work work(a, plan, job);
  plan.scratch = work.allot(nullptr);
  return plan;
}

static void run(const Efficient& a, const EfficientPlan& plan, EfficientJob job, int64_t unit, float* scratch) {
  Work work(a, plan, job);
  work.allot(scratch);
  work.start(unit);
  float* part = a.parts + unit * plan.part;
  if (job == foveal::CONTEXT) work.context(part);
  if (job == foveal::CONTEXT_BACKWARD) work.context_backward(part);
  if (job == foveal::READ) work.reading();
  if (job == foveal::READ_BACKWARD) work.reading_backward(part);
  if (job == foveal::SLOTS) work.slots(part);
  if (job == foveal::SLOTS_BACKWARD) work.slots_backward(part);
}

// Parts hold (values, d) sums relative to their own greatest scores, then these, then the sums of exponentials.
static void join(const Efficient& a, const EfficientPlan& plan, int64_t map) {
  const int64_t d = plan.padded, values = a.values;
  float* parts = a.parts + map * plan.chunks * plan.part;
  float *stats = a.stats.data + map * 2 * a.depth;
  float *top = parts + values * d, *total = top + d;
  // Into the first part.
  for (int64_t c = 0; c < d; c += N) {
    vf greatest = splat(OUTSIDE);
    for (int64_t i = 0; i < plan.chunks; ++i) greatest = upper(greatest, load(top + i * plan.part + c));
    vf sum{};
    for (int64_t i = 0; i < plan.chunks; ++i) {
      const vf factor =
          a.weights == foveal::PLAIN ? splat(1.0f) : exp2((load(top + i * plan.part + c) - greatest) * LOG2E);
      sum += load(total + i * plan.part + c) * factor;
      store(top + i * plan.part + c, factor);
    }
    // A map without any key: weights of zero.
    sum = sum > 0.0f || sum != sum ? sum : splat(1.0f);
    float ends[2][N];
    store(ends[0], greatest), store(ends[1], sum);
    for (int64_t j = 0; j < least(N, a.depth - c); ++j)
      stats[c + j] = ends[0][j], stats[a.depth + c + j] = ends[1][j];
    for (int64_t e = 0; e < values; ++e) {
      vf held{};
      for (int64_t i = 0; i < plan.chunks; ++i)
        held += load(parts + i * plan.part + e * d + c) * load(top + i * plan.part + c);
      store(parts + e * d + c, held / sum);
    }
  }
  if (values) unpack(parts, d, a.held.data + map * a.depth * values, values, a.depth, 1, values, 1.0f);
}

// parts[first] += parts[first + step] + ..., `count` parts in all, of the floats from `begin` to `end`.
static void sum(const EfficientPlan& plan, float* parts, int64_t count, int64_t step, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += N) {
    vf total = load(parts + i);
    for (int64_t j = 1; j < count; ++j) total += load(parts + j * step * plan.part + i);
    store(parts + i, total);
  }
}

static void turn(const EfficientPlan& plan, const float* part, int64_t depth, int64_t columns, float* to) {
  unpack(part, plan.padded, to, columns, depth, 1, columns, 1.0f);
}

extern const foveal::EfficientKernels efficient_kernels;
const foveal::EfficientKernels efficient_kernels = {plan, run, join, sum, turn};

}  // namespace FOVEAL_ISA
