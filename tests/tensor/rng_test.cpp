#include "tensor/base/rng.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "tensor/base/check.h"

namespace tessera {
namespace {

using Block = std::array<uint32_t, 4>;

// The known-answer vectors of Random123 (kat_vectors, philox4x32 with 10 rounds).
TEST_CASE("philox4x32-10 known answers") {
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("streams repeat and differ by seed, purpose and index") {
  auto first = [](uint64_t seed, RngPurpose purpose, uint64_t index) { return Rng(seed, purpose, index).next_u64(); };
  CHECK(first(1, RngPurpose::kInit, 2) == first(1, RngPurpose::kInit, 2));
  std::set<uint64_t> seen;
  int streams = 0;
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32, uint64_t{1} << 63}) {
    for (RngPurpose purpose : {RngPurpose::kInit, RngPurpose::kShuffle, RngPurpose::kAugment, RngPurpose::kShapes}) {
      for (uint64_t index : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
        seen.insert(first(seed, purpose, index));
        ++streams;
      }
    }
  }
  CHECK(int(seen.size()) == streams);
  Rng a(5, RngPurpose::kTest);
  a.next_u32();
  Rng b = a;  // a copy goes on from the same place, by itself
  const uint32_t next = a.next_u32();
  a.next_u32();
  CHECK(b.next_u32() == next);
}

struct Moments {
  double mean, variance, low, high;
};
Moments moments_of(int n, const std::function<double()>& draw) {
  double sum = 0, squares = 0, low = HUGE_VAL, high = -HUGE_VAL;
  for (int i = 0; i < n; ++i) {
    const double x = draw();
    sum += x;
    squares += x * x;
    low = std::min(low, x);
    high = std::max(high, x);
  }
  return {sum / n, squares / n - sum / n * sum / n, low, high};
}

TEST_CASE("ranges and moments") {
  constexpr int kDraws = 100000;  // standard errors below 0.4 percent
  Rng rng(11, RngPurpose::kTest);
  const Moments u = moments_of(kDraws, [&] { return rng.uniform(); });
  CHECK(u.low >= 0);
  CHECK(u.high < 1);
  CHECK(u.mean == doctest::Approx(0.5).epsilon(0.01));
  CHECK(u.variance == doctest::Approx(1.0 / 12).epsilon(0.02));
  const Moments range = moments_of(kDraws, [&] { return rng.uniform(-3, 5); });
  CHECK(range.low >= -3);
  CHECK(range.high < 5);
  CHECK(range.mean == doctest::Approx(1).epsilon(0.02));
  const Moments n = moments_of(kDraws, [&] { return rng.normal(); });
  CHECK(std::abs(n.mean) < 0.02);
  CHECK(n.variance == doctest::Approx(1).epsilon(0.02));
  // Beta(a, b): mean a/(a+b), variance ab / ((a+b)^2 (a+b+1)).
  for (const auto& [a, b] : {std::pair{32.0, 32.0}, std::pair{0.5, 0.5}, std::pair{2.0, 5.0}}) {
    const Moments beta = moments_of(kDraws, [&] { return rng.beta(a, b); });
    CHECK(beta.low >= 0);
    CHECK(beta.high <= 1);
    CHECK(beta.mean == doctest::Approx(a / (a + b)).epsilon(0.02));
    CHECK(beta.variance == doctest::Approx(a * b / ((a + b) * (a + b) * (a + b + 1))).epsilon(0.05));
  }
}

TEST_CASE("below is even over its range") {
  Rng rng(12, RngPurpose::kTest);
  std::map<int64_t, int> counts;
  for (int i = 0; i < 70000; ++i) ++counts[rng.below(7)];
  CHECK(counts.size() == 7);
  for (const auto& [value, count] : counts) {
    CHECK(value >= 0);
    CHECK(value < 7);
    CHECK(count == doctest::Approx(10000).epsilon(0.05));
  }
  CHECK(rng.below(1) == 0);
  CHECK(rng.below(int64_t{1} << 62) < int64_t{1} << 62);
  CHECK_THROWS_AS(rng.below(0), Error);
  CHECK_THROWS_AS(rng.below(-5), Error);
}

}  // namespace
}  // namespace tessera
