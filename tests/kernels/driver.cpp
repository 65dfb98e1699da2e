// Local attention's kernels without torch, on odd shapes, every map in a heap block of exactly its size: for the
// sanitizers and for valgrind, which see every element that is read or written beyond it, or read before it is written.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "isa.h"
#include "local.h"

FOVEAL_KERNELS(foveal::LocalKernels, local_kernels)

using foveal::Local;
using foveal::LocalPlan;
using foveal::Map;

// A map in a block of its own; the block may hold more than the map where a stride is doubled.
struct Block {
  std::unique_ptr<char[]> data;
  Map map;

  Block(const int64_t (&sizes)[5], const int (&order)[5], int64_t step, bool bfloat16, bool filled) {
    int64_t strides[5], count = 1, last = 0;
    for (int i = 4; i >= 0; --i) strides[order[i]] = count * step, count *= sizes[order[i]];
    for (int i = 0; i < 5; ++i) last += (sizes[i] - 1) * strides[i];
    const int64_t size = bfloat16 ? 2 : 4;
    data.reset(new char[(last + 1) * size]);
    if (filled)
      for (int64_t i = 0; i <= last; ++i) {
        const float x = (float)(rand() % 2001 - 1000) / 700;
        std::memcpy(data.get() + i * size, (const char*)&x + 4 - size, size);  // bfloat16 is a float's upper half
      }
    map = {data.get(), strides[0], strides[1], strides[2], strides[3], strides[4]};
  }
  // Reads all that was written, so that what was not is reported.
  void demand(const int64_t (&s)[5], bool bfloat16) const {
    const int64_t size = bfloat16 ? 2 : 4;
    for (int64_t b = 0; b < s[0]; ++b)
      for (int64_t h = 0; h < s[1]; ++h)
        for (int64_t c = 0; c < s[2]; ++c)
          for (int64_t y = 0; y < s[3]; ++y)
            for (int64_t x = 0; x < s[4]; ++x) {
              float value = 0;
              const int64_t at = b * map.batch + h * map.head + c * map.channel + y * map.row + x * map.column;
              std::memcpy((char*)&value + 4 - size, data.get() + at * size, size);
              if (!std::isfinite(value)) std::printf("not finite\n"), std::exit(1);
            }
  }
};

static void attend(Local a, int layout, int64_t step, int reading, bool masked) {
  const int orders[4][5] = {{0, 1, 2, 3, 4}, {0, 3, 4, 1, 2}, {4, 2, 0, 1, 3}, {0, 2, 1, 4, 3}};
  const auto& order = orders[layout];
  const int64_t deep[5] = {a.batch, a.heads, a.depth, a.rows, a.columns};
  const int64_t wide[5] = {a.batch, a.heads, a.value_depth, a.rows, a.columns};
  Block q(deep, order, step, a.bfloat16, true), k(deep, order, 1, a.bfloat16, true);
  Block v(wide, order, step, a.bfloat16, true), grad(wide, order, 1, a.bfloat16, true);
  const auto& dense = orders[layout == 1];
  Block out(wide, dense, 1, a.bfloat16, false), q_grad(deep, dense, 1, a.bfloat16, false);
  Block k_grad(deep, dense, 1, a.bfloat16, false), v_grad(wide, dense, 1, a.bfloat16, false);
  const int64_t positions = a.batch * a.rows * a.columns;
  std::unique_ptr<float[]> lse(new float[positions * a.heads]);
  std::unique_ptr<uint8_t[]> mask(new uint8_t[positions]);
  for (int64_t i = 0; i < positions; ++i) mask[i] = rand() % 3 > 0;
  std::vector<std::unique_ptr<float[]>> tables;
  const auto table = [&](int64_t heads, int64_t offsets, int64_t depth, int64_t start) {
    tables.emplace_back(new float[heads * offsets * depth]);
    for (int64_t i = 0; i < heads * offsets * depth; ++i) tables.back()[i] = (float)(rand() % 100) / 100;
    return foveal::Table{tables.back().get(), heads, depth, start};
  };
  if (reading == 1) a.row_table = table(1, a.window_rows, a.depth, 0);
  if (reading == 1) a.column_table = table(a.heads, a.window_columns, a.depth, 0);
  if (reading == 2) a.row_table = table(a.heads, a.window_rows, a.depth / 2, 0);
  if (reading == 2) a.column_table = table(1, a.window_columns, a.depth - a.depth / 2, a.depth / 2);
  a.q = q.map, a.k = k.map, a.v = v.map, a.out = out.map, a.grad = grad.map;
  a.q_grad = q_grad.map, a.k_grad = k_grad.map, a.v_grad = v_grad.map;
  a.lse = lse.get(), a.mask = masked ? mask.get() : nullptr;
  for (const bool backward : {false, true}) {
    const LocalPlan plan = local_kernels().plan(a, backward);
    std::unique_ptr<float[]> sums(new float[plan.units * plan.table_size]);
    a.table_grads = sums.get();
    for (int64_t unit = 0; unit < plan.units; ++unit) {
      std::unique_ptr<float[]> scratch(new float[plan.scratch]);  // fresh for every unit: nothing may be left over
      (backward ? local_kernels().backward : local_kernels().forward)(a, plan, unit, scratch.get());
    }
    for (int64_t i = 0; backward && i < plan.units * plan.table_size; ++i)
      if (!std::isfinite(sums[i])) std::printf("a table's gradient is not finite\n"), std::exit(1);
  }
  out.demand(wide, a.bfloat16), v_grad.demand(wide, a.bfloat16);
  q_grad.demand(deep, a.bfloat16), k_grad.demand(deep, a.bfloat16);
}

int main(int count, char** arguments) {
  const int cases = count > 1 ? std::atoi(arguments[1]) : 300;
  const auto one_of = [](std::initializer_list<int64_t> choices) { return choices.begin()[rand() % choices.size()]; };
  for (int i = 0; i < cases; ++i) {
    std::srand(i);
    Local a{};
    a.batch = one_of({1, 1, 2, 3, 5, 9}), a.heads = one_of({1, 2, 3, 4});
    a.depth = one_of({1, 2, 3, 4, 5, 8, 16, 17}), a.value_depth = one_of({1, 3, 4, 7, 8, 20});
    a.window_rows = one_of({1, 3, 5, 7, 9, 15}), a.window_columns = one_of({1, 3, 5, 7, 11, 13});
    a.rows = one_of({1, 2, 3, 5, 7, 11, 20}), a.columns = one_of({1, 2, 3, 7, 13, 16, 17, 33});
    if (i % 25 == 0) a.columns = 270, a.rows = 3, a.batch = 1;
    a.step_rows = std::min(a.rows, one_of({1, 1, 1, 2, 3})), a.step_columns = std::min(a.columns, one_of({1, 1, 1, 2, 5}));
    a.scale = 0.5f, a.bfloat16 = rand() % 3 == 0, a.masked_border = rand() % 2;
    attend(a, rand() % 4, one_of({1, 1, 2}), rand() % 3, rand() % 2);
  }
  const char* names[] = {"portable", "avx2", "avx512"};
  std::printf("%d cases on %s\n", cases, names[foveal::isa()]);
}
