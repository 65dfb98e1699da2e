// Vectors of floats, their exponential and logarithm, and square transposition, for whatever width a file is compiled.
//
// Kernels are compiled once for each instruction set, into the namespace FOVEAL_ISA with FOVEAL_LANES floats a vector.
// Nothing here may use a template of the standard library: the linker would merge its instances over the instruction
// sets, and a machine without AVX-512 could end up in AVX-512 code.
#pragma once

#include <cstdint>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define FOVEAL_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define FOVEAL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FOVEAL_UNROLL _Pragma("GCC unroll 32")
#endif

namespace FOVEAL_ISA {

constexpr int N = FOVEAL_LANES;

typedef float vf __attribute__((vector_size(4 * N), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * N), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * N), may_alias));
// The same without any alignment.
typedef float vfu __attribute__((vector_size(4 * N), aligned(4), may_alias));
typedef uint16_t vhu __attribute__((vector_size(2 * N), aligned(2), may_alias));

FOVEAL_INLINE vf load(const float* p) { return *(const vfu*)p; }
FOVEAL_INLINE void store(float* p, vf x) { *(vfu*)p = x; }
FOVEAL_INLINE vf splat(float x) { return x - vf{}; }
// The larger; NaN in b stays NaN. Compilers do not find the instruction by themselves.
FOVEAL_INLINE vf upper(vf a, vf b) {
#if FOVEAL_LANES == 16 && defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif FOVEAL_LANES == 8 && defined(__AVX__)
  return _mm256_max_ps(a, b);
#elif FOVEAL_LANES == 4 && defined(__SSE2__)
  return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

FOVEAL_INLINE vf load(const uint16_t* p) {  // bfloat16
  return (vf)(__builtin_convertvector(*(const vhu*)p, vi) << 16);
}
FOVEAL_INLINE void store(uint16_t* p, vf x) {  // to bfloat16, ties to even
  vi bits = (vi)x;
  vi rounded = bits + 0x7fff + ((bits >> 16) & 1);
  // A NaN could round to infinity: keep its upper half and make it quiet.
  bits = x == x ? rounded : (bits | 0x400000);
  *(vhu*)p = __builtin_convertvector((bits >> 16) & 0xffff, vh);
}
FOVEAL_INLINE float widen(float x) { return x; }
FOVEAL_INLINE float widen(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float y;
  __builtin_memcpy(&y, &bits, 4);
  return y;
}
FOVEAL_INLINE void narrow(float* p, float x) { *p = x; }
FOVEAL_INLINE void narrow(uint16_t* p, float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  *p = (uint16_t)((x == x ? bits + 0x7fff + ((bits >> 16) & 1) : (bits | 0x400000)) >> 16);
}

// 2^x for x <= 127, relative error below 2e-7 down to x = -126; below, an error of at most 2^-126, and exactly 0 from
// -150 on (without AVX-512 from -127 on). NaN stays NaN, whatever its bits.
FOVEAL_INLINE vf exp2(vf x) {
#if FOVEAL_LANES == 16 && defined(__AVX512F__)
  const vf whole = _mm512_roundscale_ps(x, 0);
  const vf f = x - whole;
#else
  x = upper(splat(-127.0f), x);
  // 1.5 * 2^23 + 127: the integer part lands in the lowest bits, as the exponent of a float.
  const vf shifted = x + 12583039.0f;
  const vf f = x - (shifted - 12583039.0f);
#endif
  // Minimax of degree 5 on [-1/2, 1/2] among those that are exact at 0, which gives exact powers and the exact 0.
  vf p = splat(1.326472909586127e-3f);
  p = p * f + 9.67151263983802e-3f;
  p = p * f + 5.550733737246338e-2f;
  p = p * f + 2.402224208549541e-1f;
  p = p * f + 6.931469776025206e-1f;
  p = p * f + 1.0f;
#if FOVEAL_LANES == 16 && defined(__AVX512F__)
  return _mm512_scalef_ps(p, whole);
#else
  return p * (vf)((vi)shifted << 23);
#endif
}

// Keeps a value in its register: compilers would rather load it again for every use, and loads are what is scarce.
FOVEAL_INLINE void keep(vf& x) {
#if FOVEAL_LANES == 16 && defined(__AVX512F__)
  asm("" : "+v"(x));
#elif FOVEAL_LANES == 8 && defined(__AVX__)
  asm("" : "+x"(x));
#endif
}

// log2(x) for normal x > 0, absolute error below 2e-7 + 1e-7 |log2 x|. NaN stays NaN.
FOVEAL_INLINE vf log2(vf x) {
  vi bits = (vi)x;
  vi exponent = (bits - 0x3f3504f3) >> 23;  // so that the mantissa lies between sqrt(1/2) and sqrt(2)
  vf f = (vf)(bits - (exponent << 23)) - 1.0f;
  vf p = splat(1.2583699360170675e-1f);
  p = p * f - 2.07269727417984e-1f;
  p = p * f + 2.1571560772593848e-1f;
  p = p * f - 2.389448249822585e-1f;
  p = p * f + 2.879162483697456e-1f;
  p = p * f - 3.607036826008446e-1f;
  p = p * f + 4.8091064292651386e-1f;
  p = p * f - 7.213473468070407e-1f;
  p = p * f + 1.4426950036526216f;
  return x == x ? p * f + __builtin_convertvector(exponent, vf) : x;
}

FOVEAL_INLINE float sum(vf x) {
  float lanes[N];
  store(lanes, x);
  for (int width = N / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

template <int... lanes>
struct Lanes {};
template <int n, int... lanes>
struct MakeLanes : MakeLanes<n - 1, n - 1, lanes...> {};
template <int... lanes>
struct MakeLanes<0, lanes...> {
  typedef Lanes<lanes...> type;
};

template <int step, int... lane>
FOVEAL_INLINE void exchange(vf& a, vf& b, Lanes<lane...>) {
  vf first = __builtin_shufflevector(a, b, (lane & step ? N + lane - step : lane)...);
  b = __builtin_shufflevector(a, b, (lane & step ? N + lane : lane + step)...);
  a = first;
}
template <int step>
FOVEAL_INLINE void exchange_all(vf* rows) {
  FOVEAL_UNROLL
  for (int i = 0; i < N; ++i)
    if (!(i & step)) exchange<step>(rows[i], rows[i + step], typename MakeLanes<N>::type());
}

// Transpose N vectors of N.
FOVEAL_INLINE void transpose(vf* rows) {
  exchange_all<1>(rows);
  exchange_all<2>(rows);
  if constexpr (N > 4) exchange_all<4>(rows);
  if constexpr (N > 8) exchange_all<8>(rows);
}

}  // namespace FOVEAL_ISA
