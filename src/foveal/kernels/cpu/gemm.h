// Products of small matrices that lie in a core's cache: rows of results in registers, one vector of the right factor
// met by one number of the left.
#pragma once

#include "vec.h"

namespace FOVEAL_ISA {

// Vectors of a tile and rows of a tile so many vectors wide; enough sums in flight to hide the latency.
#if FOVEAL_REGISTERS >= 32
constexpr int WIDEST_TILE = 4;
constexpr int TALLEST_TILE[] = {8, 8, 8, 6};
#else
constexpr int WIDEST_TILE = 2;
constexpr int TALLEST_TILE[] = {8, 6};
#endif
// Depth of a pass: the right factor of a tile stays in the first cache.
constexpr int64_t PASS = 128;

// A matrix by its two strides.
struct Left {
  const float* data;
  int64_t row, inner;
};

template <int rows, int vectors>
void tile(const float* a, int64_t a_row, int64_t a_inner, const float* b, int64_t b_row, int64_t depth, float* c,
          int64_t c_row, bool add, const float* bias) {
  vf sum[rows][vectors];
  FOVEAL_UNROLL
  for (int r = 0; r < rows; ++r) {
    const vf start = bias ? splat(bias[r]) : vf{};
    FOVEAL_UNROLL
    for (int v = 0; v < vectors; ++v) sum[r][v] = start;
  }
  for (int64_t k = 0; k < depth; ++k) {
    vf x[vectors];
    FOVEAL_UNROLL
    for (int v = 0; v < vectors; ++v) x[v] = load(b + v * N), keep(x[v]);
    FOVEAL_UNROLL
    for (int r = 0; r < rows; ++r) {
      vf y = splat(a[r * a_row]);
      keep(y);
      FOVEAL_UNROLL
      for (int v = 0; v < vectors; ++v) sum[r][v] += x[v] * y;
    }
    a += a_inner, b += b_row;
  }
  FOVEAL_UNROLL
  for (int r = 0; r < rows; ++r)
    FOVEAL_UNROLL
    for (int v = 0; v < vectors; ++v) {
      float* to = c + r * c_row + v * N;
      // Last, which keeps small sums from drowning in a large c.
      store(to, add ? load(to) + sum[r][v] : sum[r][v]);
    }
}

typedef void (*Tile)(const float*, int64_t, int64_t, const float*, int64_t, int64_t, float*, int64_t, bool,
                     const float*);

template <int vectors>
Tile tile_of(int64_t rows) {
  static constexpr Tile tiles[] = {tile<1, vectors>, tile<2, vectors>, tile<3, vectors>, tile<4, vectors>,
                                   tile<5, vectors>, tile<6, vectors>, tile<7, vectors>, tile<8, vectors>};
  return tiles[rows - 1];
}

// c = a b, plus c itself where `add` says so, plus bias[row] where there is one. The width is whole vectors.
// What is added up for a number, and in which order, does not depend on where in a tile it stands.
inline void product(Left a, int64_t rows, int64_t depth, const float* b, int64_t b_row, int64_t width, float* c,
                    int64_t c_row, bool add = false, const float* bias = nullptr) {
  const int64_t vectors = width / N;
  const int64_t across = (vectors + WIDEST_TILE - 1) / WIDEST_TILE;
  for (int64_t j = 0; j < across; ++j) {
    const int64_t left = vectors * j / across, wide = vectors * (j + 1) / across - left;
    const int64_t down = (rows + TALLEST_TILE[wide - 1] - 1) / TALLEST_TILE[wide - 1];
    for (int64_t k = 0; k == 0 || k < depth; k += PASS) {
      const int64_t deep = depth - k < PASS ? depth - k : PASS;
      for (int64_t i = 0; i < down; ++i) {
        const int64_t top = rows * i / down, tall = rows * (i + 1) / down - top;
        Tile run = tile_of<1>(tall);
        if (wide == 2) run = tile_of<2>(tall);
#if FOVEAL_REGISTERS >= 32
        if (wide == 3) run = tile_of<3>(tall);
        if (wide == 4) run = tile_of<4>(tall);
#endif
        run(a.data + top * a.row + k * a.inner, a.row, a.inner, b + k * b_row + left * N, b_row, deep,
            c + top * c_row + left * N, c_row, add || k > 0, bias && k == 0 ? bias + top : nullptr);
      }
    }
  }
}

}  // namespace FOVEAL_ISA
