#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/peak.cpp"

#include "tensor/cpu/peak.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/cpu/amx.h"
#include "tensor/cpu/conv_tile.h"
#include "tensor/cpu/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Twelve independent chains hide the latency of the multiply-add on every CPU met so far. They begin with different numbers: of
// equal chains the compiler would run one for several. Returns floating-point operations done.
double fma_loop(int64_t rounds, float* sink) {
  const hn::ScalableTag<float> d;
  const auto a = hn::Set(d, 0.999f), b = hn::Set(d, 1e-3f);
  const auto start = [&](float x) HWY_ATTR { return hn::Set(d, x); };
  auto c0 = start(0.00f), c1 = start(0.01f), c2 = start(0.02f), c3 = start(0.03f), c4 = start(0.04f), c5 = start(0.05f);
  auto c6 = start(0.06f), c7 = start(0.07f), c8 = start(0.08f), c9 = start(0.09f), c10 = start(0.10f), c11 = start(0.11f);
  for (int64_t i = 0; i < rounds; ++i) {
    c0 = hn::MulAdd(c0, a, b), c1 = hn::MulAdd(c1, a, b), c2 = hn::MulAdd(c2, a, b), c3 = hn::MulAdd(c3, a, b);
    c4 = hn::MulAdd(c4, a, b), c5 = hn::MulAdd(c5, a, b), c6 = hn::MulAdd(c6, a, b), c7 = hn::MulAdd(c7, a, b);
    c8 = hn::MulAdd(c8, a, b), c9 = hn::MulAdd(c9, a, b), c10 = hn::MulAdd(c10, a, b), c11 = hn::MulAdd(c11, a, b);
  }
  const auto s = hn::Add(hn::Add(hn::Add(c0, c1), hn::Add(c2, c3)), hn::Add(hn::Add(c4, c5), hn::Add(c6, c7)));
  hn::StoreU(hn::Add(s, hn::Add(hn::Add(c8, c9), hn::Add(c10, c11))), d, sink);
  return 2.0 * 12.0 * double(hn::Lanes(d)) * double(rounds);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_TARGET == HWY_AVX3
HWY_BEFORE_NAMESPACE();
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace tessera::cpu::HWY_NAMESPACE {

// The same of pairs of bf16.
double pair_loop(int64_t rounds, float* sink) {
  constexpr int kChains = 12;
  __m512 c[kChains];
  for (int i = 0; i < kChains; ++i) c[i] = _mm512_set1_ps(0.01f * float(i));
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3a833a83), b = (__m512bh)_mm512_set1_epi32(0x3f7f3f7f);  // 0.001, 0.996
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) c[i] = _mm512_dpbf16_ps(c[i], a, b);
  }
  __m512 sum = c[0];
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, c[i]);
  _mm512_storeu_ps(sink, sum);
  return 4.0 * kChains * 16.0 * double(rounds);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_POP_ATTRIBUTES
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace tessera {

namespace cpu {
HWY_EXPORT(fma_loop);
}

namespace {
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
}  // namespace

double measure_multiply_add_gflops(DType type, int runs) {
  const bool pairs = type == DType::kBF16 && cpu::multiplies_bf16();
  const bool amx = pairs && cpu::tile_unit() == cpu::TileUnit::kAmx;
  const int threads = compute_threads();
  std::vector<double> rates;
  for (int run = 0; run < runs; ++run) {
    std::vector<double> flops(static_cast<size_t>(threads));
    const double start = seconds();
    parallel_chunks(threads, [&](int64_t i) {
      alignas(64) float sink[64];
      flops[size_t(i)] = amx     ? cpu::amx_loop(3'000'000)
                         : pairs ? cpu::N_AVX3::pair_loop(10'000'000, sink)
                                 : HWY_DYNAMIC_DISPATCH(cpu::fma_loop)(10'000'000, sink);
    });
    const double elapsed = seconds() - start;
    double sum = 0;
    for (double f : flops) sum += f;
    rates.push_back(sum / elapsed / 1e9);
  }
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

double measure_copy_gbytes() {
  constexpr int64_t kBytes = int64_t{256} << 20, kChunk = int64_t{4} << 20;
  std::vector<char> from(static_cast<size_t>(kBytes), 1), to(static_cast<size_t>(kBytes), 2);
  double best = 0;
  for (int run = 0; run < 5; ++run) {
    const double start = seconds();
    parallel_for(kBytes, kChunk,
                 [&](int64_t begin, int64_t end) { std::memcpy(to.data() + begin, from.data() + begin, size_t(end - begin)); });
    best = std::max(best, 2.0 * double(kBytes) / (seconds() - start) / 1e9);
  }
  return best;
}

}  // namespace tessera
#endif
