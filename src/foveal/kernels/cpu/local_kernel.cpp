// Local attention on CPUs, compiled once for each instruction set.
//
// A unit of work is a run of rows of one or a few images and heads. Rows are packed into rings of planes (channel after
// channel, positions side by side, zeros around the map), so that a vector holds N neighbouring queries and a window's
// key is the same vector shifted. Several narrow images stand side by side in one row. Positions of equal residue
// modulo the dilation attend among themselves: each residue is a map of its own with larger strides.
// The weights of a query's window stay in the first cache between the two products. The backward computes them again
// from the saved log2-sum-exp2, keeps weights and their gradients for as many query rows as a key row meets, and
// gathers the gradients of keys and values from there: no atomics, and the same bits whatever the number of threads.
#include "local_layout.h"

namespace FOVEAL_ISA {

constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

// One unit of work with its scratch memory.
struct Work : Layout {
  Ring q, k, v, grad, bias, weights, slopes;  // slopes: gradients of the logits
  float *nothing, *everything;                // rows of OUTSIDE and of zeros
  float *logits, *grads, *own, *peaks, *lse, *out, *tables, *mine;

  using Layout::Layout;

  // Hand out scratch memory; with base == nullptr only count it.
  int64_t allot(float* base, bool backward) {
    int64_t used = 0;
    const auto take = [&](int64_t floats) {
      float* at = base ? base + used : nullptr;
      used += up(floats, 16);
      return at;
    };
    const auto ring = [&](Ring& r, int64_t planes) {
      r.size = planes * pitch, r.count = held;
      r.data = take(r.size * r.count);
    };
    ring(q, group * a.depth);
    ring(k, group * a.depth);
    ring(v, group * a.value_depth);
    if (a.drops_keys()) ring(bias, 1);
    if (backward) ring(grad, group * a.value_depth);
    lse = take(R * pitch);
    tables = take(backward ? group * table_size() * N : 0);
    everything = take(pitch);
    const int64_t zeroed = used;
    nothing = take(pitch), mine = take(pitch);
    logits = take(R * window * N), grads = take(backward ? R * window * N : 0);
    own = take(R * (a.window_rows + a.window_columns) * N * 2);
    peaks = take(R * N);
    out = take(R * group * most(a.depth, a.value_depth) * pitch);
    if (backward) ring(weights, group * window), ring(slopes, group * window);
    if (!base) return used;
    for (int64_t i = 0; i < zeroed; ++i) base[i] = 0.0f;
    for (int64_t i = 0; i < pitch; ++i) nothing[i] = OUTSIDE, mine[i] = 0.0f;
    for (int64_t image = 0; image < images; ++image)
      for (int64_t x = own_columns.from; x < own_columns.to; ++x) mine[lane(image, x)] = 1.0f;
    if (backward) blank(weights), blank(slopes);
    return used;
  }

  // Lanes beside the map that are never computed but meet zeros.
  void blank(const Ring& band) const {
    const int64_t end = lead + up(lanes, N);
    for (int64_t line = 0; line < band.count * group * window; ++line) {
      float* at = band.data + line * pitch;
      for (int64_t i = 0; i < lead; ++i) at[i] = 0.0f;
      for (int64_t i = end; i < pitch; ++i) at[i] = 0.0f;
    }
  }

  // Keys, values and their bias up to the rows that the queries before `end` see.
  void read_keys(int64_t& next, int64_t end) {
    for (; next < least(end + half_rows, rows); ++next) {
      read(k.row(next), a.k, next, key_columns, a.depth);
      read(v.row(next), a.v, next, key_columns, a.value_depth);
      if (a.drops_keys()) read_bias(bias.row(next), next);
    }
  }

  const float* bias_of(int64_t y) const {
    if (!a.drops_keys()) return nullptr;
    if (inside(y)) return bias.row(y);
    return a.masked_border ? nothing : everything;
  }

  // Logits of `count` query rows from y, of the vector of queries at lane x; and their products with the tables.
  void logits_of(int64_t y, int count, int64_t h, int64_t x, bool peak) {
    const Rows<const float> queries{q.row(y) + h * a.depth * pitch + lead + x, q.size};
    const int64_t stride = (a.window_rows + a.window_columns) * N, columns_from = a.window_rows * N;
    const bool tables = a.row_table.depth + a.column_table.depth > 0;
    if (tables) own_logits(queries, a.row_table, h, a.window_rows, {own, stride});
    if (tables) own_logits(queries, a.column_table, h, a.window_columns, {own + columns_from, stride});
    for (int r = 0; peak && r < count; ++r) store(peaks + r * N, splat(-__builtin_inff()));
    Start start;
    for (int64_t key = y - half_rows; key < y + count + half_rows; ++key) {
      const int low = (int)most(0, key - y - half_rows), high = (int)least(count, key - y + half_rows + 1);
      const int64_t offset = key - y - low + half_rows;
      // A row further down sees the same keys one offset less.
      if (tables) start.row = {own + low * stride + offset * N, stride - N};
      if (tables) start.column = {own + low * stride + columns_from, stride};
      if (peak) start.peak = peaks + low * N;
      const float* keys = inside(key) ? k.row(key) + h * a.depth * pitch + lead + x - half_columns : nullptr;
      start.bias = bias_of(key);
      if (start.bias) start.bias += lead + x - half_columns;
      const Rows<float> to{logits + (low * window + offset * a.window_columns) * N, (window - a.window_columns) * N};
      scores(high - low, Rows<const float>{queries[low], queries.stride}, pitch, keys, pitch, keys ? a.depth : 0, to,
             a.window_columns, start);
    }
  }

  // q.r of every offset of one axis, for R rows whether there are so many or not; zeros where there is no table.
  void own_logits(Rows<const float> queries, const Table t, int64_t h, int64_t offsets, Rows<float> to) const {
    const float* table_rows = table(t, h, offsets);
    const int64_t pitch = this->pitch;
    for (int64_t o = 0; o < offsets; o += 4) {
      const int64_t some = least(4, offsets - o);
      const float* at[4];
      for (int i = 0; i < 4; ++i) at[i] = table_rows + (o + least(i, some - 1)) * t.depth;
      vf sum[R][4] = {};
      for (int64_t c = 0; c < t.depth; ++c) {
        vf x[R];
        FOVEAL_UNROLL
        for (int r = 0; r < R; ++r) x[r] = load(queries[r] + (t.start + c) * pitch);
        FOVEAL_UNROLL
        for (int i = 0; i < 4; ++i) {
          vf entry = splat(at[i][c]);
          keep(entry);
          FOVEAL_UNROLL
          for (int r = 0; r < R; ++r) sum[r][i] += x[r] * entry;
        }
      }
      FOVEAL_UNROLL
      for (int r = 0; r < R; ++r)
        FOVEAL_UNROLL
        for (int i = 0; i < 4; ++i)
          if (i < some) store(to[r] + (o + i) * N, sum[r][i]);
    }
  }

  void zero(int count, Rows<float> to, int64_t to_pitch, int64_t channels) const {
    for (int r = 0; r < count; ++r)
      for (int64_t c = 0; c < channels; ++c) store(to[r] + c * to_pitch, vf{});
  }

  // to[r] = sum over the window of from[r] (step floats an offset) times the rows of a ring.
  void gather_window(int64_t y, int count, Rows<const float> from, int64_t step, const Ring& ring, int64_t h, int64_t x,
                     int64_t channels, Rows<float> to, int64_t to_pitch) {
    zero(count, to, to_pitch, channels);
    for (int64_t key = most(0, y - half_rows); key < least(rows, y + count + half_rows); ++key) {
      const int low = (int)most(0, key - y - half_rows), high = (int)least(count, key - y + half_rows + 1);
      const int64_t offset = key - y - low + half_rows, line = a.window_columns * step;
      gather(high - low, Rows<const float>{from[low] + offset * line, from.stride - line}, step,
             ring.row(key) + h * channels * pitch + lead + x - half_columns, int64_t(1), pitch, a.window_columns,
             Rows<float>{to[low], to.stride}, to_pitch, channels);
    }
  }

  float* out_row(int64_t r, int64_t channels) const { return out + r * group * channels * pitch; }
  // The same head and lane of all rows of results.
  Rows<float> results(int64_t h, int64_t x, int64_t channels) const {
    return {out + h * channels * pitch + lead + x, group * channels * pitch};
  }

  void forward() {
    int64_t next = most(0, own_rows.from - half_rows);
    q.origin = own_rows.from;
    for (int64_t y = own_rows.from; y < own_rows.to; y += R) {
      const int count = (int)least(R, own_rows.to - y);
      read_keys(next, y + count);
      for (int r = 0; r < count; ++r) read(q.row(y + r), a.q, y + r, query_columns, a.depth, a.scale * LOG2E);
      for (int64_t h = 0; h < group; ++h) {
        for (int64_t x = 0; x < lanes; x += N) attend(y, count, h, x);
        for (int r = 0; a.lse && r < count; ++r) write_lse(lse + r * pitch, h, y + r);
      }
      for (int r = 0; r < count; ++r) write(out_row(r, a.value_depth), a.out, y + r, a.value_depth);
    }
  }

  void attend(int64_t y, int count, int64_t h, int64_t x) {
    logits_of(y, count, h, x, true);
    vf total[R];
    for (int r = 0; r < count; ++r) {
      float* row = logits + r * window * N;
      const vf peak = load(peaks + r * N);
      vf sum[2] = {};
      int64_t o = 0;
      for (; o + 2 <= window; o += 2)
        FOVEAL_UNROLL
        for (int i = 0; i < 2; ++i) {
          const vf weight = exp2(load(row + (o + i) * N) - peak);
          store(row + (o + i) * N, weight);
          sum[i] += weight;
        }
      for (; o < window; ++o) {
        const vf weight = exp2(load(row + o * N) - peak);
        store(row + o * N, weight);
        sum[0] += weight;
      }
      total[r] = sum[0] + sum[1];
      // Where all keys are dropped, weights computed again must be zeros.
      if (a.lse) store(lse + r * pitch + lead + x, peak <= OUTSIDE / 2 ? -splat(OUTSIDE) : peak + log2(total[r]));
    }
    const Rows<float> to = results(h, x, a.value_depth);
    const int64_t pitch = this->pitch, channels = a.value_depth;
    gather_window(y, count, {logits, window * N}, N, v, h, x, channels, to, pitch);
    for (int r = 0; r < count; ++r) {
      vf factor = 1.0f / total[r];
      if (a.drops_keys()) factor = load(peaks + r * N) > OUTSIDE / 2 ? factor : vf{};
      float* line = to[r];
      for (int64_t c = 0; c < channels; ++c, line += pitch) store(line, load(line) * factor);
    }
  }

  void backward(float* table_grads) {
    const int64_t end = query_rows.to;
    int64_t next = most(0, query_rows.from - half_rows), done = own_rows.from;
    q.origin = grad.origin = weights.origin = slopes.origin = query_rows.from;
    for (int64_t y = query_rows.from; y < end; y += R) {
      const int count = (int)least(R, end - y);
      read_keys(next, y + count);
      for (int r = 0; r < count; ++r) {
        read(q.row(y + r), a.q, y + r, query_columns, a.depth, a.scale * LOG2E);
        read(grad.row(y + r), a.grad, y + r, query_columns, a.value_depth);
      }
      for (int64_t h = 0; h < group; ++h) {
        for (int r = 0; r < count; ++r) read_lse(lse + r * pitch, h, y + r);
        for (int64_t x = 0; x < lanes; x += N) slope(y, count, h, x);
      }
      for (int r = 0; r < count; ++r)
        if (own_rows.holds(y + r)) write(out_row(r, a.depth), a.q_grad, y + r, a.depth, a.scale);
      // Keys that no query to come will see.
      const int64_t ready = y + count == end ? own_rows.to : least(own_rows.to, y + count - half_rows);
      for (; done < ready; done += least(R, ready - done)) gather_keys(done, (int)least(R, ready - done));
    }
    for (int64_t i = 0; i < group * table_size(); ++i) table_grads[i] = sum(load(tables + i * N)) * LN2;
  }

  // Weights and slopes of some query rows into their bands, and the gradients of these queries.
  void slope(int64_t y, int count, int64_t h, int64_t x) {
    logits_of(y, count, h, x, false);
    const Rows<const float> left{grad.row(y) + h * a.value_depth * pitch + lead + x, grad.size};
    for (int64_t key = y - half_rows; key < y + count + half_rows; ++key) {
      const int low = (int)most(0, key - y - half_rows), high = (int)least(count, key - y + half_rows + 1);
      const int64_t offset = key - y - low + half_rows;
      const float* values = inside(key) ? v.row(key) + h * a.value_depth * pitch + lead + x - half_columns : nullptr;
      const Rows<float> to{grads + (low * window + offset * a.window_columns) * N, (window - a.window_columns) * N};
      scores(high - low, Rows<const float>{left[low], left.stride}, pitch, values, pitch, values ? a.value_depth : 0,
             to, a.window_columns, Start());
    }
    const int64_t stride = (a.window_rows + a.window_columns) * N, at = h * window * pitch + lead + x;
    vf spoiled{};
    for (int r = 0; r < count; ++r)
      spoiled += softmax_backward(r, weights.row(y + r) + at, slopes.row(y + r) + at, load(lse + r * pitch + lead + x),
                                  own + (R + r) * stride);
    if (images > 1 && sum(spoiled) != 0.0f)
      for (int r = 0; r < count; ++r) clear_gaps(x, weights.row(y + r) + at, slopes.row(y + r) + at);
    const Rows<float> q_grads = results(h, x, a.depth);
    gather_window(y, count, {slopes.row(y) + at, slopes.size}, pitch, k, h, x, a.depth, q_grads, pitch);
    if (y + count <= own_rows.from || y >= own_rows.to) return;  // computed for the keys of the stripe alone
    const Rows<const float> queries{q.row(y) + h * a.depth * pitch + lead + x, q.size}, by_row{own + R * stride, stride};
    const vf ours = whole_rows() ? splat(1.0f) : load(mine + lead + x);
    float* to = tables + h * table_size() * N;
    table_backward(y, count, queries, a.row_table, h, a.window_rows, by_row, to, q_grads, ours);
    table_backward(y, count, queries, a.column_table, h, a.window_columns, {by_row.first + a.window_rows * N, stride},
                   to + a.window_rows * a.row_table.depth * N, q_grads, ours);
  }

  // Between images lie lanes that see keys of both: what is not finite in one must not reach the other.
  void clear_gaps(int64_t x, float* weight, float* slope) const {
    for (int64_t i = 0; i < N; ++i)
      if ((x + i) % apart >= query_columns.size())
        for (int64_t o = 0; o < window; ++o) weight[o * pitch + i] = slope[o * pitch + i] = 0.0f;
  }

  // Weights and the slopes of one query row into their bands; the slopes' sums by row and by column of the window.
  // Returns zeros, in the lanes where something is not finite NaN.
  vf softmax_backward(int r, float* weight, float* slope, vf lse, float* own_slopes) {
    // Copies: a store to a band could change what is read through `this`.
    const int64_t pitch = this->pitch, window = this->window, high = a.window_rows, wide = a.window_columns;
    float *logit = logits + r * window * N, *grad = grads + r * window * N;
    vf dots[2] = {};
    const auto weigh = [&](int64_t o, vf& dot) __attribute__((always_inline)) {
      const vf w = exp2(load(logit + o * N) - lse);
      store(logit + o * N, w);
      dot += w * load(grad + o * N);
      // The bands lie in the second cache; ask for their lines before they are written.
      __builtin_prefetch(weight + o * pitch, 1, 3);
      __builtin_prefetch(slope + o * pitch, 1, 3);
    };
    int64_t first = 0;
    for (; first + 2 <= window; first += 2) weigh(first, dots[0]), weigh(first + 1, dots[1]);
    if (first < window) weigh(first, dots[0]);
    const vf dot = dots[0] + dots[1];
    float* by_column = own_slopes + high * N;
    for (int64_t j = 0; j < wide; ++j) store(by_column + j * N, vf{});
    for (int64_t i = 0; i < high; ++i) {
      vf by_row{};
      for (int64_t j = 0; j < wide; ++j, logit += N, grad += N, weight += pitch, slope += pitch) {
        const vf w = load(logit), s = w * (load(grad) - dot);
        store(weight, w);
        store(slope, s);
        by_row += s;
        store(by_column + j * N, load(by_column + j * N) + s);
      }
      store(own_slopes + i * N, by_row);
    }
    return dot - dot;
  }

  // What the slopes of q.r give to the queries (added to their gradients) and to the table.
  void table_backward(int64_t y, int count, Rows<const float> queries, const Table t, int64_t h, int64_t offsets,
                      Rows<const float> slopes, float* to, Rows<float> q_grads, vf ours) {
    const float* table_rows = table(t, h, offsets);
    const int64_t pitch = this->pitch;
    for (int64_t c = 0; c < t.depth; ++c) {
      vf x[R], sum[R] = {};
      // Queries of other units give nothing to the table.
      for (int r = 0; r < R; ++r)
        x[r] = r < count && own_rows.holds(y + r) ? load(queries[r] + (t.start + c) * pitch) * ours : vf{};
      for (int64_t o = 0; o < offsets; ++o) {
        const vf entry = splat(table_rows[o * t.depth + c]);
        float* cell = to + (o * t.depth + c) * N;
        vf total = load(cell);
        FOVEAL_UNROLL
        for (int r = 0; r < R; ++r) {
          const vf s = load(slopes[r < count ? r : 0] + o * N);
          sum[r] += s * entry;
          total += s * x[r];
        }
        store(cell, total);
      }
      for (int r = 0; r < count; ++r) {
        float* at = q_grads[r] + (t.start + c) * pitch;
        store(at, load(at) + sum[r]);
      }
    }
  }

  // Gradients of keys and values: of the bands of all queries that see them.
  void gather_keys(int64_t key, int count) {
    for (int part = 0; part < 2; ++part) {
      const int64_t channels = part ? a.depth : a.value_depth;
      const Ring &band = part ? slopes : weights, &other = part ? q : grad;
      for (int64_t h = 0; h < group; ++h)
        for (int64_t x = 0; x < lanes; x += N) {
          const Rows<float> to = results(h, x, channels);
          zero(count, to, pitch, channels);
          for (int64_t y = most(query_rows.from, key - half_rows); y < least(query_rows.to, key + count + half_rows); ++y) {
            const int low = (int)most(0, y - half_rows - key), high = (int)least(count, y + half_rows + 1 - key);
            const int64_t offset = (key + low - y + half_rows) * a.window_columns, at = lead + x + half_columns;
            const Rows<const float> left{band.row(y) + (h * window + offset) * pitch + at, a.window_columns * pitch};
            gather(high - low, left, pitch - 1, other.row(y) + h * channels * pitch + at, int64_t(-1), pitch,
                   a.window_columns, Rows<float>{to[low], to.stride}, pitch, channels);
          }
        }
      for (int r = 0; r < count; ++r)
        write(out_row(r, channels), part ? a.k_grad : a.v_grad, key + r, channels, part ? LN2 : 1.0f);
    }
  }
};

// Images side by side that fill vectors best, the fewest of those that come near.
static int64_t side_by_side(const Local& a) {
  const int64_t columns = parts(a.columns, a.step_columns), half = a.window_columns / 2;
  double fill[9], best = 0;
  for (int64_t m = 1; m <= 8; ++m) {
    fill[m] = m <= a.batch ? (double)(m * columns) / (double)up(m * (columns + half) - half, N) : 0;
    best = fill[m] > best ? fill[m] : best;
  }
  for (int64_t m = 1; m <= 8; ++m)
    if (fill[m] >= 0.9 * best) return m;
  return 1;
}

static LocalPlan plan(const Local& a, bool backward) {
  LocalPlan plan{};
  plan.head_group = 1, plan.side_by_side = side_by_side(a);
  // Narrow heads of a channels-last map share cache lines.
  while (a.q.channel == 1 && plan.head_group * a.depth < 16 && a.heads % (2 * plan.head_group) == 0)
    plan.head_group *= 2;
  const int64_t rows = parts(a.rows, a.step_rows), columns = parts(a.columns, a.step_columns);
  // Rings of wider maps would not fit the second cache; around a tile, the backward computes queries again.
  const int64_t widest = backward ? 128 : 256;
  plan.tiles = columns <= widest ? 1 : parts(columns, widest - (backward ? 2 * (a.window_columns / 2) : 0));
  const int64_t maps = parts(a.batch, plan.side_by_side) * (a.heads / plan.head_group) * a.step_rows * a.step_columns *
                       plan.tiles;
  // Enough units for many cores, but no stripes so flat that most of what they read or compute is around them.
  const int64_t tall = (backward ? 4 : 1) * (2 * (a.window_rows / 2) + R);
  plan.stripes = maps ? most(1, least(parts(32, maps), rows / tall)) : 1;
  plan.units = maps * plan.stripes;
  if (plan.units) {
    Work work(a, plan, 0, backward);
    plan.scratch = work.allot(nullptr, backward);
    plan.table_size = work.group * work.table_size();
  }
  return plan;
}

static void forward(const Local& a, const LocalPlan& plan, int64_t unit, float* scratch) {
  Work work(a, plan, unit, false);
  if (work.columns == 0) return;  // a residue of a dilation larger than the map
  work.allot(scratch, false);
  work.forward();
}

static void backward(const Local& a, const LocalPlan& plan, int64_t unit, float* scratch) {
  Work work(a, plan, unit, true);
  float* table_grads = a.table_grads + unit * plan.table_size;
  if (work.columns == 0) {
    for (int64_t i = 0; i < plan.table_size; ++i) table_grads[i] = 0.0f;
    return;
  }
  work.allot(scratch, true);
  work.backward(table_grads);
}

extern const foveal::LocalKernels local_kernels;
const foveal::LocalKernels local_kernels = {plan, forward, backward};

}  // namespace FOVEAL_ISA
