// Rows of a map with any strides, brought into planes and back: channel after channel, positions side by side.
//
// A plane row is [channels][pitch] floats. Maps whose positions or whose channels are neighbours in memory go through
// whole vectors, the latter by transposing N x N blocks; any other strides go element by element.
#pragma once

#include "vec.h"

namespace FOVEAL_ISA {

// Positions of a channels-last map lie too far apart for the machine to foresee which lines come next, so they are asked
// for this many positions ahead, which goes on into the next row.
constexpr int64_t AHEAD = 48;

// The first `count` <= N elements, zeros after them. Half and quarter vectors are common: narrow heads.
template <class T>
FOVEAL_INLINE vf load_few(const T* from, int64_t count) {
  if (count == N) return load(from);
  float few[N] = {};
  if (sizeof(T) == 4 && count == N / 2) {
    typedef float half __attribute__((vector_size(2 * N), aligned(4), may_alias));
    vf wide{};
    const half x = *(const half*)from;
    for (int i = 0; i < N / 2; ++i) wide[i] = x[i];
    return wide;
  }
  for (int64_t j = 0; j < count; ++j) few[j] = widen(from[j]);
  return load(few);
}

// Copy `count` positions of `channels` channels, times `factor`, to row[c * pitch + 0 ...]. May write zeros up to N - 1
// positions beyond the last.
template <class T>
void pack(float* row, int64_t pitch, const T* from, int64_t channels, int64_t count, int64_t per_channel,
          int64_t per_position, float factor) {
  if (per_position == 1) {
    for (int64_t c = 0; c < channels; ++c) {
      const T* line = from + c * per_channel;
      float* to = row + c * pitch;
      int64_t x = 0;
      for (; x + N <= count; x += N) store(to + x, load(line + x) * factor);
      if (x < count && count >= N) {
        store(to + count - N, load(line + count - N) * factor);
      } else {
        for (; x < count; ++x) to[x] = widen(line[x]) * factor;
      }
    }
    return;
  }
  if (per_channel != 1) {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t x = 0; x < count; ++x)
        row[c * pitch + x] = widen(from[c * per_channel + x * per_position]) * factor;
    return;
  }
  for (int64_t x = 0; x < count; x += N) {
    // The last block overlaps the one before it, where there is one.
    if (count >= N && x > count - N) x = count - N;
    const int64_t wide = count - x < N ? count - x : N;
    for (int64_t c = 0; c < channels; c += N) {
      const int64_t deep = channels - c < N ? channels - c : N;
      const T* at = from + x * per_position + c;
      vf block[N];
      if (deep == N) {  // apart and unrolled, so that the block stays in registers
        FOVEAL_UNROLL
        for (int i = 0; i < N; ++i) {
          block[i] = i < wide ? load(at + i * per_position) : vf{};
          __builtin_prefetch(at + (i + AHEAD) * per_position, 0, 3);
        }
        transpose(block);
        FOVEAL_UNROLL
        for (int j = 0; j < N; ++j) store(row + (c + j) * pitch + x, block[j] * factor);
      } else {
        for (int i = 0; i < N; ++i) block[i] = i < wide ? load_few(at + i * per_position, deep) : vf{};
        transpose(block);
        for (int64_t j = 0; j < deep; ++j) store(row + (c + j) * pitch + x, block[j] * factor);
      }
    }
  }
}

// The way back.
template <class T>
void unpack(const float* row, int64_t pitch, T* to, int64_t channels, int64_t count, int64_t per_channel,
            int64_t per_position, float factor) {
  if (per_position == 1) {
    for (int64_t c = 0; c < channels; ++c) {
      T* line = to + c * per_channel;
      const float* at = row + c * pitch;
      int64_t x = 0;
      for (; x + N <= count; x += N) store(line + x, load(at + x) * factor);
      if (x < count && count >= N) {
        store(line + count - N, load(at + count - N) * factor);
      } else {
        for (; x < count; ++x) narrow(line + x, at[x] * factor);
      }
    }
    return;
  }
  if (per_channel != 1) {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t x = 0; x < count; ++x)
        narrow(to + c * per_channel + x * per_position, row[c * pitch + x] * factor);
    return;
  }
  for (int64_t x = 0; x < count; x += N) {
    if (count >= N && x > count - N) x = count - N;
    const int64_t wide = count - x < N ? count - x : N;
    for (int64_t c = 0; c < channels; c += N) {
      const int64_t deep = channels - c < N ? channels - c : N;
      T* at = to + x * per_position + c;
      vf block[N];
      if (deep == N) {
        FOVEAL_UNROLL
        for (int j = 0; j < N; ++j) block[j] = load(row + (c + j) * pitch + x) * factor;
        transpose(block);
        FOVEAL_UNROLL
        for (int i = 0; i < N; ++i) {
          if (i < wide) store(at + i * per_position, block[i]);
          __builtin_prefetch(at + (i + AHEAD) * per_position, 1, 3);
        }
      } else {
        for (int j = 0; j < N; ++j) block[j] = j < deep ? load(row + (c + j) * pitch + x) * factor : vf{};
        transpose(block);
        for (int64_t i = 0; i < wide; ++i) {
          float few[N];
          store(few, block[i]);
          for (int64_t j = 0; j < deep; ++j) narrow(at + i * per_position + j, few[j]);
        }
      }
    }
  }
}

}  // namespace FOVEAL_ISA
