// Which of the compiled instruction sets runs on this machine.
#pragma once

#include <cstdlib>
#include <cstring>

namespace foveal {

enum Isa { PORTABLE = 0, AVX2 = 1, AVX512 = 2 };

// The widest that the machine has; FOVEAL_CPU_ISA (portable, avx2, avx512) asks for a narrower one.
inline Isa isa() {
  static const Isa chosen = [] {
    Isa best = PORTABLE;
#if FOVEAL_X86
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = AVX2;
    if (best == AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      best = AVX512;
#endif
    const char* asked = std::getenv("FOVEAL_CPU_ISA");
    if (asked && !std::strcmp(asked, "portable")) return PORTABLE;
    if (asked && !std::strcmp(asked, "avx2") && best > AVX2) return AVX2;
    return best;
  }();
  return chosen;
}

// One of the tables that each instruction set defines under the same name.
#if FOVEAL_X86
#define FOVEAL_KERNELS(type, name)                                                  \
  namespace portable { extern const type name; }                                    \
  namespace avx2 { extern const type name; }                                        \
  namespace avx512 { extern const type name; }                                      \
  static const type& name() {                                                       \
    const foveal::Isa isa = foveal::isa();                                          \
    return isa == foveal::AVX512 ? avx512::name : isa == foveal::AVX2 ? avx2::name : portable::name; \
  }
#else
#define FOVEAL_KERNELS(type, name)               \
  namespace portable { extern const type name; } \
  static const type& name() { return portable::name; }
#endif

}  // namespace foveal
