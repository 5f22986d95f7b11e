// Kernels of the CPU backends against the reference in shapes that nobody chose: drawn around the sizes at which kernels change.
// Longer, larger, or others: TESSERA_TEST_ROUNDS=2000 TESSERA_TEST_WORK=2000000 TESSERA_TEST_SEED=7 test_ops -tc="random shapes*"
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tensor/base/env.h"
#include "tensor/caching_allocator.h"
#include "tensor/cpu/amx.h"
#include "tensor/cpu/conv_scratch.h"
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

int64_t number(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::stoll(text) : otherwise;
}

// What a kernel takes for the time of a call, and what this thread keeps, hold NaN: reading what it has not written spoils the
// result.
void spoil_scratch() {
  std::vector<void*> blocks;
  for (const size_t bytes :
       {size_t{4} << 20, size_t{1} << 20, size_t{256} << 10, size_t{256} << 10, size_t{64} << 10, size_t{4} << 10}) {
    blocks.push_back(host_allocator().allocate(bytes));
    std::memset(blocks.back(), 0xff, bytes);
  }
  for (void* p : blocks) host_allocator().release(p);
  if (const size_t held = cpu::thread_scratch_held()) std::memset(cpu::thread_scratch_bytes(held), 0xff, held);
}

// On every instruction set, in f32 and in bf16; `twin`: only convolutions and products of bf16, on the twin of AMX.
void run(std::vector<OpCase> cases, bool twin) {
  const op_case::Settings restored;
  for (OpCase& c : cases) {
    c.run = [run = c.run](Backend& backend, const Bound& bound, bool accumulate) {
      spoil_scratch();
      return run(backend, bound, accumulate);
    };
    for (const DType type : c.types) {
      if (type == DType::kF16 || (twin && type != DType::kBF16)) continue;  // f16: the reference's
      const op_case::Reference reference(c, type);
      for (const op_case::Row& row : op_case::rows(Device::Kind::kCpu)) {
        if (row.target.empty() || (twin && row.target != "avx512")) continue;
        op_case::run_on(c, row, type, reference);
      }
    }
  }
}

// One in four: other shapes show more than other ops of the same.
std::vector<OpCase> some_of(const std::vector<OpCase>& cases, Draw& draw) {
  std::vector<OpCase> some;
  for (const OpCase& c : cases) {
    if (draw.below(4) == 0) some.push_back(c);
  }
  return some;
}

TEST_CASE("random shapes on every instruction set") {
  if (env("TESSERA_CPU_BACKEND") || env("TESSERA_CONV")) return;  // as it runs without them
  const int64_t rounds = number("TESSERA_TEST_ROUNDS", 4), seed = number("TESSERA_TEST_SEED", 1);
  const auto unit = cpu::tile_unit();
  for (int64_t round = 0; round < rounds; ++round) {
    CAPTURE(seed);
    CAPTURE(round);
    Draw draw(uint64_t(seed * 1000000 + round), number("TESSERA_TEST_WORK", 1 << 19));
    const std::vector<OpCase> convs = some_of(random_conv_cases(draw), draw);
    run(convs, false);
    if (__builtin_cpu_supports("avx512bf16")) {
      cpu::force_tile_unit(cpu::TileUnit::kTwin);
      run(convs, true);
      cpu::force_tile_unit(unit);
    }
    for (const auto family :
         {random_pointwise_cases, random_image_cases, random_row_cases, random_loss_cases, random_detect_cases}) {
      run(some_of(family(draw), draw), false);
    }
  }
}

}  // namespace
}  // namespace tessera::testing
