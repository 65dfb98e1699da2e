// Where a unit of local attention finds what it works on: which rows, columns, images and heads of the call are its own,
// how they lie in its planes, and how rows come in and results go out.
#pragma once

#include "local.h"
#include "local_tile.h"
#include "pack.h"

namespace FOVEAL_ISA {

using foveal::Local;
using foveal::LocalPlan;
using foveal::Map;
using foveal::Table;

// Finite, so that a query without any key stays free of NaN; far below any logit.
constexpr float OUTSIDE = -1e30f;

FOVEAL_INLINE int64_t up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
FOVEAL_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
FOVEAL_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
FOVEAL_INLINE int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

struct Range {
  int64_t from, to;
  int64_t size() const { return to - from; }
  bool holds(int64_t i) const { return i >= from && i < to; }
};

// The share of part i of n, and a range with its surroundings inside [0, end).
FOVEAL_INLINE Range share(int64_t whole, int64_t i, int64_t n) { return {whole * i / n, whole * (i + 1) / n}; }
FOVEAL_INLINE Range around(Range own, int64_t margin, int64_t end) {
  return {most(0, own.from - margin), least(end, own.to + margin)};
}

// Rows that come and go while a unit walks down its map.
struct Ring {
  float* data = nullptr;
  int64_t size = 0, count = 1;  // floats a row, rows held: a multiple of R
  int64_t origin = 0;           // from where runs of R rows follow each other in memory
  float* row(int64_t y) const { return data + (y - origin) % count * size; }
};

struct Layout {
  const Local& a;
  const int64_t group, half_rows, half_columns, window;
  int64_t batch, images, head, row_residue, column_residue;
  int64_t rows, columns;        // of the residue's map
  Range own_rows, own_columns;  // whose results are this unit's
  // Whose queries it computes, which in the backward are those around its keys too, and which keys those see.
  Range query_rows, query_columns, key_columns;
  int64_t apart, lanes, lead, pitch;  // from image to image, in all, before the first, floats of a plane row
  int64_t held;                       // rows of a ring

  Layout(const Local& a, const LocalPlan& plan, int64_t unit, bool backward)
      : a(a), group(plan.head_group), half_rows(a.window_rows / 2), half_columns(a.window_columns / 2),
        window(a.window_rows * a.window_columns) {
    const auto next = [&](int64_t count) {
      const int64_t index = unit % count;
      unit /= count;
      return index;
    };
    head = next(a.heads / group) * group;
    batch = next(parts(a.batch, plan.side_by_side)) * plan.side_by_side;
    images = least(plan.side_by_side, a.batch - batch);
    const int64_t tile = next(plan.tiles), stripe = next(plan.stripes);
    column_residue = next(a.step_columns);
    row_residue = unit;
    rows = parts(a.rows - row_residue, a.step_rows);
    columns = parts(a.columns - column_residue, a.step_columns);
    own_rows = share(rows, stripe, plan.stripes), own_columns = share(columns, tile, plan.tiles);
    query_rows = around(own_rows, backward ? half_rows : 0, rows);
    query_columns = around(own_columns, backward ? half_columns : 0, columns);
    key_columns = around(query_columns, half_columns, columns);
    apart = query_columns.size() + half_columns;
    lanes = images * apart - half_columns;
    lead = up(half_columns, N);
    // Vectors of queries begin at `lead` and reach beyond the last one, their keys half a window further; packing the last
    // image may write as many zeros.
    const int64_t every = parts(a.columns, a.step_columns);
    const int64_t widest = least(every, parts(every, plan.tiles) + (backward ? 2 * half_columns : 0));
    const int64_t before = (plan.side_by_side - 1) * (widest + half_columns);
    const int64_t end = lead + most(up(before + widest, N), before + up(widest, N)) + half_columns;
    // An odd number of cache lines, so that the channels of a row do not share the sets of the first cache.
    pitch = up(end, 16) | 16;
    held = up(least(R + 2 * half_rows, most(1, parts(a.rows, a.step_rows))), R);
  }

  bool inside(int64_t y) const { return y >= 0 && y < rows; }
  bool whole_rows() const { return own_columns.size() == query_columns.size(); }

  template <class T>
  T* at(const Map& map, int64_t image, int64_t h, int64_t y, int64_t x) const {
    return (T*)map.data + (batch + image) * map.batch + (head + h) * map.head +
           (row_residue + y * a.step_rows) * map.row + (column_residue + x * a.step_columns) * map.column;
  }
  // The lane of a column, from the first of a plane row.
  int64_t lane(int64_t image, int64_t column) const { return lead + image * apart + column - query_columns.from; }

  // Rows of q, k, v or the gradient into a plane row, and results back.
  void read(float* row, const Map& map, int64_t y, Range range, int64_t channels, float factor = 1.0f) const {
    a.bfloat16 ? read_as<uint16_t>(row, map, y, range, channels, factor)
               : read_as<float>(row, map, y, range, channels, factor);
  }
  void write(const float* row, const Map& map, int64_t y, int64_t channels, float factor = 1.0f) const {
    a.bfloat16 ? write_as<uint16_t>(row, map, y, channels, factor) : write_as<float>(row, map, y, channels, factor);
  }

  template <class T>
  void read_as(float* row, const Map& map, int64_t y, Range range, int64_t channels, float factor) const {
    // Heads whose channels follow each other are one run.
    const bool joined = map.head == channels * map.channel;
    const int64_t runs = joined ? 1 : group, length = joined ? group * channels : channels;
    for (int64_t image = 0; image < images; ++image)
      for (int64_t h = 0; h < runs; ++h)
        pack(row + h * channels * pitch + lane(image, range.from), pitch, at<const T>(map, image, h, y, range.from),
             length, range.size(), map.channel, map.column * a.step_columns, factor);
  }
  template <class T>
  void write_as(const float* row, const Map& map, int64_t y, int64_t channels, float factor) const {
    const bool joined = map.head == channels * map.channel;
    const int64_t runs = joined ? 1 : group, length = joined ? group * channels : channels;
    for (int64_t image = 0; image < images; ++image)
      for (int64_t h = 0; h < runs; ++h)
        unpack(row + h * channels * pitch + lane(image, own_columns.from), pitch,
               at<T>(map, image, h, y, own_columns.from), length, own_columns.size(), map.channel,
               map.column * a.step_columns, factor);
  }

  // The log-sum-exp of a row of queries; it is (batch, heads, rows, columns), contiguous.
  Map lse_map() const { return {a.lse, a.heads * a.rows * a.columns, a.rows * a.columns, 0, a.columns, 1}; }
  void read_lse(float* row, int64_t h, int64_t y) const {
    for (int64_t image = 0; image < images; ++image)
      pack(row + lane(image, query_columns.from), pitch, at<const float>(lse_map(), image, h, y, query_columns.from), 1,
           query_columns.size(), 0, a.step_columns, 1.0f);
  }
  void write_lse(const float* row, int64_t h, int64_t y) const {
    for (int64_t image = 0; image < images; ++image)
      unpack(row + lane(image, own_columns.from), pitch, at<float>(lse_map(), image, h, y, own_columns.from), 1,
             own_columns.size(), 0, a.step_columns, 1.0f);
  }

  // What is added to the logits of a row of keys: 0, or OUTSIDE for keys that take no part.
  void read_bias(float* row, int64_t y) const {
    const Map mask{(void*)a.mask, a.rows * a.columns, 0, 0, a.columns, 1};
    for (int64_t i = 0; i < pitch; ++i) row[i] = a.masked_border ? OUTSIDE : 0.0f;
    for (int64_t image = 0; image < images; ++image)
      for (int64_t x = key_columns.from; x < key_columns.to; ++x)
        row[lane(image, x)] = !a.mask || *at<const uint8_t>(mask, image, 0, y, x) ? 0.0f : OUTSIDE;
  }

  int64_t table_size() const {
    return a.window_rows * a.row_table.depth + a.window_columns * a.column_table.depth;
  }
  const float* table(const Table& t, int64_t h, int64_t offsets) const {
    return t.data + (t.heads > 1 ? head + h : 0) * offsets * t.depth;
  }
};

}  // namespace FOVEAL_ISA
