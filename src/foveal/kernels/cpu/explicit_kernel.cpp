// Explicit attention with a separable decay on CPUs, compiled once for each instruction set.
//
// A unit of work is N maps of one head, one a lane: channels, of several images where one has too few. Rows are packed
// position after position with the lanes side by side, mixed along the columns, then along the rows, and leave divided
// by their sums: the map is read once and written once. G is symmetric, so the gradient of the values is the same
// mixing of the incoming gradient over the sums; the gradient of the radius is the incoming gradient times the
// derivative of the result, which goes forward through the stages beside the values. Lanes never meet before the
// gradient of the radius is summed, in an order that is always the same.
#include "explicit.h"

#include "vec.h"

namespace FOVEAL_ISA {

using foveal::DecayAxis;
using foveal::DecayMap;
using foveal::Explicit;

constexpr int TALL = FOVEAL_REGISTERS >= 32 ? 6 : 2, WIDE = 4;  // a tile of results that stay in registers
constexpr int64_t BLOCK = 8;                                    // rows packed at once

FOVEAL_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Vectors on lines: floats from one position of the mixed axis to the next, and from one line to the next.
struct Vectors {
  float* data;
  int64_t along, across;
};

// c[i, j] (+)= sum over k of a[i, k] b[k, j], where b and c hold vectors.
template <int tall, int wide>
FOVEAL_INLINE void tile(const float* a, int64_t a_row, int64_t depth, const float* b, int64_t b_k, int64_t b_j, float* c,
                        int64_t c_i, int64_t c_j, bool add) {
  vf sum[tall][wide];
  FOVEAL_UNROLL
  for (int i = 0; i < tall; ++i) {
    FOVEAL_UNROLL
    for (int j = 0; j < wide; ++j) sum[i][j] = add ? load(c + i * c_i + j * c_j) : vf{};
  }
  for (int64_t k = 0; k < depth; ++k) {
    vf x[wide];
    FOVEAL_UNROLL
    for (int j = 0; j < wide; ++j) x[j] = load(b + k * b_k + j * b_j);
    FOVEAL_UNROLL
    for (int i = 0; i < tall; ++i) {
      const vf weight = splat(a[i * a_row + k]);
      FOVEAL_UNROLL
      for (int j = 0; j < wide; ++j) sum[i][j] += weight * x[j];
    }
  }
  FOVEAL_UNROLL
  for (int i = 0; i < tall; ++i) {
    FOVEAL_UNROLL
    for (int j = 0; j < wide; ++j) store(c + i * c_i + j * c_j, sum[i][j]);
  }
}

template <int wide>
void column(const float* a, int64_t rows, int64_t depth, Vectors b, Vectors c, bool add) {
  int64_t i = 0;
  for (; i + TALL <= rows; i += TALL)
    tile<TALL, wide>(a + i * depth, depth, depth, b.data, b.along, b.across, c.data + i * c.along, c.along, c.across, add);
  for (; i + 2 <= rows; i += 2)
    tile<2, wide>(a + i * depth, depth, depth, b.data, b.along, b.across, c.data + i * c.along, c.along, c.across, add);
  for (; i < rows; ++i)
    tile<1, wide>(a + i * depth, depth, depth, b.data, b.along, b.across, c.data + i * c.along, c.along, c.across, add);
}

// Mix `lines` lines by the matrix a (rows x depth).
void product(const float* a, int64_t rows, int64_t depth, int64_t lines, Vectors b, Vectors c, bool add) {
  int64_t j = 0;
  for (; j + WIDE <= lines; j += WIDE) {
    column<WIDE>(a, rows, depth, b, c, add);
    b.data += WIDE * b.across, c.data += WIDE * c.across;
  }
  for (; j < lines; ++j) {
    column<1>(a, rows, depth, b, c, add);
    b.data += b.across, c.data += c.across;
  }
}

// The exponential's recursion for `lines` lines: what comes from before, then what comes from behind.
// With `slope`, that also gets the derivative by the radius of a^distance, times the values, added.
template <int wide>
FOVEAL_INLINE void recur(const DecayAxis& axis, Vectors b, Vectors c, const Vectors* slope) {
  const vf step = splat(axis.step), rest = splat(axis.step_rest), rate = splat(axis.step_slope);
  for (int way = 0; way < 2; ++way) {
    vf sum[wide], rise[wide];
    FOVEAL_UNROLL
    for (int j = 0; j < wide; ++j) sum[j] = rise[j] = vf{};
    for (int64_t n = 0; n < axis.length; ++n) {
      const int64_t k = way ? axis.length - 1 - n : n;
      FOVEAL_UNROLL
      for (int j = 0; j < wide; ++j) {
        // sum: what is at earlier positions, already weakened once; rise: the same times the distance.
        const vf x = load(b.data + k * b.along + j * b.across);
        float* to = c.data + k * c.along + j * c.across;
        store(to, way ? load(to) + sum[j] : x + sum[j]);
        if (slope) {
          float* at = slope->data + k * slope->along + j * slope->across;
          store(at, load(at) + rate * rise[j]);
          const vf both = x + sum[j] + rise[j];
          rise[j] = step * both + rest * both;
        }
        const vf both = x + sum[j];
        sum[j] = step * both + rest * both;
      }
    }
  }
}

void recursion(const DecayAxis& axis, int64_t lines, Vectors b, Vectors c, const Vectors* slope) {
  Vectors some = slope ? *slope : Vectors{};
  const Vectors* at = slope ? &some : nullptr;
  int64_t j = 0;
  for (; j + WIDE <= lines; j += WIDE) {
    recur<WIDE>(axis, b, c, at);
    b.data += WIDE * b.across, c.data += WIDE * c.across, some.data += slope ? WIDE * some.across : 0;
  }
  for (; j < lines; ++j) {
    recur<1>(axis, b, c, at);
    b.data += b.across, c.data += c.across, some.data += slope ? some.across : 0;
  }
}

// The values and, where the radius gets a gradient, their derivative by it.
struct Pair {
  Vectors value, slope;
  bool sloped;
};

// One stage: c = A b, and for the derivative c' = A b' + A' b.
void stage(const float* a, const float* a_slope, int64_t rows, int64_t depth, int64_t lines, Pair b, Pair c,
           bool first) {
  product(a, rows, depth, lines, b.value, c.value, false);
  if (!c.sloped) return;
  product(a_slope, rows, depth, lines, b.value, c.slope, false);
  if (!first) product(a, rows, depth, lines, b.slope, c.slope, true);
}

void recursive_stage(const DecayAxis& axis, int64_t lines, Pair b, Pair c, bool first) {
  if (c.sloped) {
    if (first) {
      for (int64_t j = 0; j < lines; ++j)
        for (int64_t k = 0; k < axis.length; ++k) store(c.slope.data + k * c.slope.along + j * c.slope.across, vf{});
    } else {
      recursion(axis, lines, b.slope, c.slope, nullptr);
    }
  }
  recursion(axis, lines, b.value, c.value, c.sloped ? &c.slope : nullptr);
}

// One unit: which maps its lanes are, and its scratch memory.
template <class T>
struct Unit {
  const Explicit& a;
  const DecayAxis &down, &along;
  int64_t head, first, count;
  int64_t pitch;  // vectors from row to row of the planes; odd, so that a column does not stay in one set of the cache
  float *lines, *lines_slope, *plane, *plane_slope, *other, *other_slope, *small, *small_slope, *extra, *sums;

  Unit(const Explicit& a, int64_t unit, float* base, bool sloped)
      : a(a), down(axes(a, unit)[0]), along(axes(a, unit)[1]) {
    head = unit / groups(a);
    first = unit % groups(a) * N;
    count = least(N, a.batch * a.channels - first);
    allot(base, sloped);
  }

  static int64_t groups(const Explicit& a) { return (a.batch * a.channels + N - 1) / N; }
  static const DecayAxis* axes(const Explicit& a, int64_t unit) {
    return a.axes + (a.one_radius ? 0 : 2 * (unit / groups(a)));
  }

  int64_t allot(float* base, bool sloped) {
    pitch = along.rank | 1;
    int64_t used = 0;
    auto take = [&](int64_t vectors) {
      float* at = base ? base + used : nullptr;
      used += vectors * N;
      return at;
    };
    const int64_t tall = down.second ? down.rank : 0;
    lines = take(BLOCK * a.columns);
    plane = take(a.rows * pitch);
    other = take(a.rows * pitch);
    small = take(tall * pitch);
    extra = take(BLOCK * a.columns);
    sums = take((a.columns + N - 1) / N + 1);
    lines_slope = sloped ? take(BLOCK * a.columns) : nullptr;
    plane_slope = sloped ? take(a.rows * pitch) : nullptr;
    other_slope = sloped ? take(a.rows * pitch) : nullptr;
    small_slope = sloped ? take(tall * pitch) : nullptr;
    return used;
  }

  // A map as the lanes of this unit see it.
  struct View {
    T* lane[N];
    int64_t row, column;
    int64_t run[N];  // lanes from here on whose elements are neighbours in memory
  };

  View view(const DecayMap& map) const {
    View seen;
    seen.row = map.row, seen.column = map.column;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t image = (first + i) / a.channels, channel = (first + i) % a.channels;
      seen.lane[i] = (T*)map.data + image * map.batch + channel * map.channel + head * map.head;
    }
    for (int64_t i = count - 1; i >= 0; --i) {
      const bool joined = map.channel == 1 && i + 1 < count && (first + i + 1) % a.channels;
      seen.run[i] = joined ? seen.run[i + 1] + 1 : 1;
    }
    return seen;
  }

  // N positions from x on where a row has as many: the last ones may be taken twice.
  int64_t step(int64_t x, int64_t& wide) const {
    wide = least(N, a.columns - x);
    if (wide == N || a.columns < N) return x;
    wide = N;
    return a.columns - N;
  }

  // Row y as vectors of lanes, position after position.
  void read(const View& map, int64_t y, float* to) const {
    if (map.column == 1) {
      for (int64_t start = 0, wide; start < a.columns; start += N) {
        const int64_t x = step(start, wide), at = y * map.row + x;
        vf block[N];
        for (int i = 0; i < N; ++i)
          block[i] = i >= count ? vf{} : wide == N ? load(map.lane[i] + at) : few(map.lane[i] + at, wide);
        transpose(block);
        for (int64_t j = 0; j < wide; ++j) store(to + (x + j) * N, block[j]);
      }
      return;
    }
    if (count < N)
      for (int64_t x = 0; x < a.columns; ++x) store(to + x * N, vf{});
    for (int64_t i = 0; i < count; i += map.run[i]) {
      const T* at = map.lane[i] + y * map.row;
      const int64_t length = map.run[i];
      if (length == N) {
        for (int64_t x = 0; x < a.columns; ++x) store(to + x * N, load(at + x * map.column));
      } else {
        for (int64_t x = 0; x < a.columns; ++x)
          for (int64_t j = 0; j < length; ++j) to[x * N + i + j] = widen(at[x * map.column + j]);
      }
    }
  }

  static vf few(const T* from, int64_t wide) {
    float some[N] = {};
    for (int64_t j = 0; j < wide; ++j) some[j] = widen(from[j]);
    return load(some);
  }

  void write(const View& map, int64_t y, const float* from) const {
    if (map.column == 1) {
      for (int64_t start = 0, wide; start < a.columns; start += N) {
        const int64_t x = step(start, wide);
        vf block[N];
        for (int j = 0; j < N; ++j) block[j] = j < wide ? load(from + (x + j) * N) : vf{};
        transpose(block);
        for (int64_t i = 0; i < count; ++i) {
          T* at = map.lane[i] + y * map.row + x;
          if (wide == N) {
            store(at, block[i]);
          } else {
            float some[N];
            store(some, block[i]);
            for (int64_t j = 0; j < wide; ++j) narrow(at + j, some[j]);
          }
        }
      }
      return;
    }
    for (int64_t i = 0; i < count; i += map.run[i]) {
      T* at = map.lane[i] + y * map.row;
      const int64_t length = map.run[i];
      if (length == N) {
        for (int64_t x = 0; x < a.columns; ++x) store(at + x * map.column, load(from + x * N));
      } else {
        for (int64_t x = 0; x < a.columns; ++x)
          for (int64_t j = 0; j < length; ++j) narrow(at + x * map.column + j, from[x * N + i + j]);
      }
    }
  }

  vf sum_of(const float* line) const {
    vf part[4] = {};
    int64_t x = 0;
    for (; x + 4 <= a.columns; x += 4)
      for (int j = 0; j < 4; ++j) part[j] += load(line + (x + j) * N);
    for (; x < a.columns; ++x) part[0] += load(line + x * N);
    return (part[0] + part[1]) + (part[2] + part[3]);
  }

  // 1 / row sums of the weights of one row of the map.
  const float* over_sums(int64_t y) const {
    const float whole = a.offset * (float)(a.rows * a.columns);
    for (int64_t x = 0; x < a.columns; ++x) sums[x] = 1.0f / (down.weights[y] * along.weights[x] + whole);
    return sums;
  }

  // The derivative by the radius of the row sums.
  float sum_slope(int64_t y, int64_t x) const {
    return down.weights_slope[y] * along.weights[x] + down.weights[y] * along.weights_slope[x];
  }

  Pair pair(float* value, float* slope, int64_t along_step, int64_t across) const {
    return {{value, along_step, across}, {slope, along_step, across}, slope != nullptr};
  }

  // Mix the map, divided by the row sums where asked, and hand the rows of the result (and of its derivative) to
  // take(y, value, slope), which may use `total`, the sum of the map, and change them.
  template <class Take>
  void mix(const View& map, bool over, bool sloped, vf& total, const Take& take) const {
    float* const slopes = sloped ? lines_slope : nullptr;
    total = vf{};
    for (int64_t y = 0; y < a.rows; y += BLOCK) {
      const int64_t some = least(BLOCK, a.rows - y);
      for (int64_t i = 0; i < some; ++i) {
        float* line = lines + i * a.columns * N;
        read(map, y + i, line);
        if (over) {
          const float* inverse = over_sums(y + i);
          for (int64_t x = 0; x < a.columns; ++x) store(line + x * N, load(line + x * N) * inverse[x]);
        }
        total += sum_of(line);
      }
      const Pair from = pair(lines, nullptr, N, a.columns * N);
      const Pair to = pair(plane + y * pitch * N, sloped ? plane_slope + y * pitch * N : nullptr, N, pitch * N);
      if (along.recursive()) {
        recursive_stage(along, some, from, to, true);
      } else {
        stage(along.first, along.first_slope, along.rank, along.length, some, from, to, true);
      }
    }
    const Pair from = pair(plane, sloped ? plane_slope : nullptr, pitch * N, N);
    const Pair to = pair(other, sloped ? other_slope : nullptr, pitch * N, N);
    if (down.recursive()) {
      recursive_stage(down, along.rank, from, to, false);
    } else if (down.second) {
      const Pair few = pair(small, sloped ? small_slope : nullptr, pitch * N, N);
      stage(down.first, down.first_slope, down.rank, down.length, along.rank, from, few, false);
      stage(down.second, down.second_slope, down.length, down.rank, along.rank, few, to, false);
    } else {
      stage(down.first, down.first_slope, down.length, down.length, along.rank, from, to, false);
    }
    for (int64_t y = 0; y < a.rows; y += along.second ? BLOCK : 1) {
      float *value = other + y * pitch * N, *slope = sloped ? other_slope + y * pitch * N : nullptr;
      if (!along.second) {
        take(y, value, slope);
        continue;
      }
      const int64_t some = least(BLOCK, a.rows - y);
      stage(along.second, along.second_slope, along.length, along.rank, some, pair(value, slope, N, pitch * N),
            pair(lines, slopes, N, a.columns * N), false);
      for (int64_t i = 0; i < some; ++i)
        take(y + i, lines + i * a.columns * N, sloped ? slopes + i * a.columns * N : nullptr);
    }
  }

  void forward() const {
    vf total;
    const View out = view(a.out);
    mix(view(a.v), false, false, total, [&](int64_t y, float* value, float*) {
      const vf whole = total * a.offset;
      const float* inverse = over_sums(y);
      for (int64_t x = 0; x < a.columns; ++x) store(value + x * N, (load(value + x * N) + whole) * inverse[x]);
      write(out, y, value);
    });
  }

  void map_gradient() const {
    vf total;
    const View out = view(a.out);
    mix(view(a.grad), true, false, total, [&](int64_t y, float* value, float*) {
      const vf whole = total * a.offset;
      for (int64_t x = 0; x < a.columns; ++x) store(value + x * N, load(value + x * N) + whole);
      write(out, y, value);
    });
  }

  // Sum over positions and lanes of grad (d sums - out d weights) / weights.
  double radius_gradient() const {
    vf total;
    double result = 0;
    const View grad = view(a.grad);
    mix(view(a.v), false, true, total, [&](int64_t y, float* value, float* slope) {
      read(grad, y, extra);
      const vf whole = total * a.offset;
      const float* inverse = over_sums(y);
      vf part{};
      for (int64_t x = 0; x < a.columns; ++x) {
        const vf out = (load(value + x * N) + whole) * inverse[x];
        part += load(extra + x * N) * inverse[x] * (load(slope + x * N) - out * sum_slope(y, x));
      }
      result += sum(part);
    });
    return result;
  }
};

static int64_t units(const Explicit& a) { return a.heads * Unit<float>::groups(a); }

static int64_t scratch(const Explicit& a, bool backward) {
  int64_t most = 0;
  for (int64_t head = 0; head < (a.one_radius ? 1 : a.heads); ++head) {
    Unit<float> unit(a, head * Unit<float>::groups(a), nullptr, false);
    const int64_t used = unit.allot(nullptr, backward && a.radius_grad);
    most = used > most ? used : most;
  }
  return most;
}

static void forward(const Explicit& a, int64_t unit, float* memory) {
  if (a.bfloat16) {
    Unit<uint16_t>(a, unit, memory, false).forward();
  } else {
    Unit<float>(a, unit, memory, false).forward();
  }
}

template <class T>
static void backward_of(const Explicit& a, int64_t unit, float* memory) {
  const Unit<T> work(a, unit, memory, a.radius_grad != nullptr);
  if (a.with_map) work.map_gradient();
  if (a.radius_grad) a.radius_grad[unit] = work.radius_gradient();
}

static void backward(const Explicit& a, int64_t unit, float* memory) {
  a.bfloat16 ? backward_of<uint16_t>(a, unit, memory) : backward_of<float>(a, unit, memory);
}

extern const foveal::ExplicitKernels explicit_kernels;
const foveal::ExplicitKernels explicit_kernels = {units, scratch, forward, backward};

}  // namespace FOVEAL_ISA
