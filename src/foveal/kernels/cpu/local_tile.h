// The two inner loops of local attention, shared by forward and backward.
//
// Both work on `rows` query (or key) rows at once, so that a vector loaded for one of them serves all: without that
// the loads, most of which cross a cache line, would take twice as long as the arithmetic. What belongs to row r lies
// r strides behind what belongs to the first.
#pragma once

#include "vec.h"

namespace FOVEAL_ISA {

// Rows that are worked on together; their accumulators must fit the registers.
constexpr int R = FOVEAL_ROWS;

template <class T>
struct Rows {
  T* first;
  int64_t stride;
  FOVEAL_INLINE T* operator[](int r) const { return first + r * stride; }
};

// What logits start from, and where their maximum goes; null where there is none.
struct Start {
  Rows<const float> row{nullptr, 0};     // one vector
  Rows<const float> column{nullptr, 0};  // one vector a shift
  const float* bias = nullptr;           // of the keys, shifted like them
  float* peak = nullptr;                 // one vector a row
};

// out[r][s] = start[r][s] + sum over c of a[r][c] * b[c][s], s a shift of one position.
template <int rows, int shifts>
FOVEAL_INLINE void scores(Rows<const float> a, int64_t a_pitch, const float* b, int64_t b_pitch, int64_t channels,
                          Rows<float> out, int64_t first, const Start& start) {
  vf sum[rows][shifts];
  if (start.row.first) {
    FOVEAL_UNROLL
    for (int r = 0; r < rows; ++r) {
      const vf row = load(start.row[r]);
      FOVEAL_UNROLL
      for (int s = 0; s < shifts; ++s) sum[r][s] = row + load(start.column[r] + (first + s) * N);
    }
  } else {
    FOVEAL_UNROLL
    for (int r = 0; r < rows; ++r)
      FOVEAL_UNROLL
      for (int s = 0; s < shifts; ++s) sum[r][s] = vf{};
  }
  if (start.bias) {
    FOVEAL_UNROLL
    for (int s = 0; s < shifts; ++s) {
      const vf bias = load(start.bias + first + s);
      FOVEAL_UNROLL
      for (int r = 0; r < rows; ++r) sum[r][s] += bias;
    }
  }
  b += first;
  for (int64_t c = 0; c < channels; ++c) {
    vf left[rows];
    FOVEAL_UNROLL
    for (int r = 0; r < rows; ++r) {
      left[r] = load(a[r] + c * a_pitch);
      keep(left[r]);
    }
    FOVEAL_UNROLL
    for (int s = 0; s < shifts; ++s) {
      vf right = load(b + c * b_pitch + s);
      keep(right);
      FOVEAL_UNROLL
      for (int r = 0; r < rows; ++r) sum[r][s] += left[r] * right;
    }
  }
  FOVEAL_UNROLL
  for (int r = 0; r < rows; ++r)
    FOVEAL_UNROLL
    for (int s = 0; s < shifts; ++s) store(out[r] + (first + s) * N, sum[r][s]);
  if (start.peak) {
    FOVEAL_UNROLL
    for (int r = 0; r < rows; ++r) {
      vf peak = load(start.peak + r * N);
      FOVEAL_UNROLL
      for (int s = 0; s < shifts; ++s) peak = upper(peak, sum[r][s]);
      store(start.peak + r * N, peak);
    }
  }
}

// out[r][c] += sum over s of a[r][s] * b[c][s], where s moves a by a_step and b by b_step floats.
template <int rows, int channels>
FOVEAL_INLINE void gather(Rows<const float> a, int64_t a_step, const float* b, int64_t b_step, int64_t b_pitch,
                          int64_t shifts, Rows<float> out, int64_t out_pitch) {
  vf sum[rows][channels];
  FOVEAL_UNROLL
  for (int r = 0; r < rows; ++r)
    FOVEAL_UNROLL
    for (int c = 0; c < channels; ++c) sum[r][c] = load(out[r] + c * out_pitch);
  for (int64_t s = 0; s < shifts; ++s) {
    vf left[rows];
    FOVEAL_UNROLL
    for (int r = 0; r < rows; ++r) {
      left[r] = load(a[r] + s * a_step);
      keep(left[r]);
    }
    FOVEAL_UNROLL
    for (int c = 0; c < channels; ++c) {
      vf right = load(b + c * b_pitch + s * b_step);
      keep(right);
      FOVEAL_UNROLL
      for (int r = 0; r < rows; ++r) sum[r][c] += left[r] * right;
    }
  }
  FOVEAL_UNROLL
  for (int r = 0; r < rows; ++r)
    FOVEAL_UNROLL
    for (int c = 0; c < channels; ++c) store(out[r] + c * out_pitch, sum[r][c]);
}

constexpr bool fits(int rows, int others) { return rows * others + rows + 1 <= FOVEAL_REGISTERS; }

template <int rows>
void scores_of(Rows<const float> a, int64_t a_pitch, const float* b, int64_t b_pitch, int64_t channels, Rows<float> out,
               int64_t shifts, const Start& start) {
  // Windows are odd: runs of 4, and one of 7, 5 or 3, make up every length from 3.
  for (int64_t s = 0; s < shifts;) {
    const int64_t left = shifts - s;
    if (fits(rows, 7) && left == 7) {
      if constexpr (fits(rows, 7)) scores<rows, 7>(a, a_pitch, b, b_pitch, channels, out, s, start);
      s += 7;
    } else if (left >= 5 && left % 4 == 1) {
      scores<rows, 5>(a, a_pitch, b, b_pitch, channels, out, s, start);
      s += 5;
    } else if (left >= 4) {
      scores<rows, 4>(a, a_pitch, b, b_pitch, channels, out, s, start);
      s += 4;
    } else if (left == 3) {
      scores<rows, 3>(a, a_pitch, b, b_pitch, channels, out, s, start);
      s += 3;
    } else {
      scores<rows, 1>(a, a_pitch, b, b_pitch, channels, out, s, start);
      s += 1;
    }
  }
}

template <int rows>
void gather_of(Rows<const float> a, int64_t a_step, const float* b, int64_t b_step, int64_t b_pitch, int64_t shifts,
               Rows<float> out, int64_t out_pitch, int64_t channels) {
  constexpr int many = fits(rows, 8) ? 8 : 4;
  for (int64_t c = 0; c < channels;) {
    const Rows<float> to{out.first + c * out_pitch, out.stride};
    if (channels - c >= many) {
      gather<rows, many>(a, a_step, b + c * b_pitch, b_step, b_pitch, shifts, to, out_pitch);
      c += many;
    } else if (channels - c >= 4) {
      gather<rows, 4>(a, a_step, b + c * b_pitch, b_step, b_pitch, shifts, to, out_pitch);
      c += 4;
    } else {
      gather<rows, 1>(a, a_step, b + c * b_pitch, b_step, b_pitch, shifts, to, out_pitch);
      c += 1;
    }
  }
}

template <class... Arguments>
FOVEAL_INLINE void scores(int rows, const Arguments&... arguments) {
  if (rows == 1) scores_of<1>(arguments...);
  if (rows == 2) scores_of<2>(arguments...);
  if constexpr (R > 2) {
    if (rows == 3) scores_of<3>(arguments...);
    if (rows == 4) scores_of<4>(arguments...);
  }
}

template <class... Arguments>
FOVEAL_INLINE void gather(int rows, const Arguments&... arguments) {
  if (rows == 1) gather_of<1>(arguments...);
  if (rows == 2) gather_of<2>(arguments...);
  if constexpr (R > 2) {
    if (rows == 3) gather_of<3>(arguments...);
    if (rows == 4) gather_of<4>(arguments...);
  }
}

}  // namespace FOVEAL_ISA
