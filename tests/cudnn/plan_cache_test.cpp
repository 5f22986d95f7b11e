// The cache of plans (cuda/vendor/plan_cache.h) and the keys: no library and no device is needed.
#include "cuda/vendor/plan_cache.h"

#include <doctest/doctest.h>

#include <new>

#include "cuda/vendor/conv_plan.h"
#include "cuda/vendor/gemm_plan.h"

namespace tessera::testing {
namespace {

using namespace cuda;

struct FakePlan {
  int number;
  size_t workspace;
  size_t workspace_bytes() const { return workspace; }
};
using Cache = cuda::PlanCache<ConvKey, FakePlan>;

Cache::Offer offer(std::initializer_list<FakePlan> plans, std::string refusal = {}) {
  Cache::Offer o{{}, std::move(refusal)};
  for (const FakePlan& p : plans) o.list.push_back(std::make_unique<FakePlan>(p));
  return o;
}

const ImageView kX{nullptr, DType::kBF16, 2, 20, 24, 32, 48}, kY{nullptr, DType::kBF16, 2, 10, 12, 16, 16};
const FilterView kW{nullptr, DType::kBF16, 16, 3, 3, 32};
const ConvParams kParams{.stride = 2, .pad = 1};

TEST_CASE("plan cache: a key is planned once, whatever memory it was made in") {
  Cache cache(100);
  int made = 0;
  const auto make = [&](const ConvKey&) { return ++made, offer({{made, 10}}); };
  // The same key built over different garbage: what is compared has no bytes that nobody wrote.
  alignas(ConvKey) std::byte first[sizeof(ConvKey)], second[sizeof(ConvKey)];
  std::memset(first, 0x5A, sizeof first);
  std::memset(second, 0xFF, sizeof second);
  const auto* a = new (first) ConvKey(forward_key(kX, kW, kY, kParams, {}, {}));
  const auto* b = new (second) ConvKey(forward_key(kX, kW, kY, kParams, {}, {}));
  CHECK(std::memcmp(a, b, sizeof *a) == 0);
  const auto* const plan = cache.find(*a, make).plan.get();
  REQUIRE(plan != nullptr);
  CHECK(cache.find(*b, make).plan.get() == plan);
  CHECK(made == 1);
  CHECK(cache.stats().hits == 1);
  CHECK(cache.stats().misses == 1);
}

TEST_CASE("plan cache: whatever a plan depends on makes another key") {
  Cache cache(100);
  int made = 0;
  const auto make = [&](const ConvKey&) { return ++made, offer({{made, 0}}); };
  float memory[8] = {};
  const auto moved = [](ImageView v, void* p) { return v.p = p, v; };
  const auto with = [](auto v, auto member, int64_t value) { return v.*member = value, v; };
  ConvEpilogue biased{.bias = memory}, silu{.activation = Activation::kSilu}, added{.residual = kY};
  added.residual.p = memory;
  const std::vector<ConvKey> keys = {
      forward_key(kX, kW, kY, kParams, {}, {}),
      backward_data_key(kY, kW, kX, kParams, false, {}),
      backward_data_key(kY, kW, kX, kParams, true, {}),
      backward_weight_key(kX, kY, kW, kParams, false, {}),
      forward_key(with(kX, &ImageView::pitch, 64), kW, kY, kParams, {}, {}),
      forward_key(kX, kW, with(kY, &ImageView::pitch, 24), kParams, {}, {}),
      forward_key(with(kX, &ImageView::n, 3), kW, with(kY, &ImageView::n, 3), kParams, {}, {}),
      forward_key(kX, kW, kY, {.stride = 2, .pad = 0}, {}, {}),
      forward_key(moved(kX, reinterpret_cast<std::byte*>(memory) + 2), kW, kY, kParams, {}, {}),
      forward_key(kX, kW, kY, kParams, biased, {}),
      forward_key(kX, kW, kY, kParams, silu, {}),
      forward_key(kX, kW, kY, kParams, added, {}),
      forward_key(kX, kW, kY, kParams, {}, {.deterministic = true}),
      forward_key(kX, kW, kY, kParams, {}, {.device = 1}),
      forward_key({nullptr, DType::kF16, 2, 20, 24, 32, 48}, {nullptr, DType::kF16, 16, 3, 3, 32},
                  {nullptr, DType::kF16, 2, 10, 12, 16, 16}, kParams, {}, {}),
  };
  for (const ConvKey& k : keys) cache.find(k, make);
  CHECK(made == int(keys.size()));
  CHECK(forward_key(kX, kW, kY, kParams, {}, {.tf32 = true}).tf32 == 0);  // not in 16 bits
  CHECK(keys[8].x_alignment == 2);
  CHECK(keys[0].x_alignment == 16);
  CHECK(text_of(keys[0]) == "conv2d bf16 2x20x24x32 (pitch 48) * 16x3x3 bf16 s2 p1 -> 10x12 (pitch 16)");
}

TEST_CASE("plans: what the library compiles, and whether it lies in packs of 16 bytes") {
  ConvKey k;
  k.type = k.filter_type = int32_t(DType::kBF16);
  k.x_pitch = 64, k.y_pitch = 32, k.x_alignment = k.w_alignment = k.y_alignment = 16;
  CHECK(!is_compiled(k));
  CHECK(lies_in_packs(k));
  k.bias = 1;
  CHECK(is_compiled(k));
  k.y_pitch = 33;
  CHECK(!lies_in_packs(k));
  k.y_pitch = 40, k.x_alignment = 2;
  CHECK(!lies_in_packs(k));
  k.x_alignment = 16, k.residual = 1, k.residual_pitch = 40, k.residual_alignment = 8;
  CHECK(!lies_in_packs(k));
  k.residual_alignment = 16;
  CHECK(lies_in_packs(k));
  k.bias = k.residual = 0, k.filter_type = int32_t(DType::kF32);
  CHECK(is_compiled(k));
}

TEST_CASE("plan cache: the fastest stays, the first without a clock, and none that wants too much memory") {
  const ConvKey key = forward_key(kX, kW, kY, kParams, {}, {});
  const auto make = [](const ConvKey&) { return offer({{0, 101}, {1, 100}, {2, 0}, {3, 50}}); };
  {
    Cache cache(100);
    CHECK(cache.find(key, make).plan->number == 1);
    CHECK(cache.stats().over_workspace == 1);
    CHECK(cache.stats().timed == 0);
  }
  {
    Cache cache(100);
    int asked = 0;
    const auto seconds = [&](const FakePlan& p, double) { return ++asked, p.number == 2 ? 0.5 : 1.0; };
    CHECK(cache.find(key, make, seconds).plan->number == 2);
    CHECK(cache.find(key, make, seconds).plan->number == 2);
    CHECK(asked == 3);
    CHECK(cache.stats().timed == 3);
  }
  {
    Cache cache(0);
    CHECK(cache.find(key, make).plan->number == 2);
    CHECK(cache.stats().over_workspace == 2);
  }
  {
    Cache cache(10);
    const auto& entry = cache.find(key, [](const ConvKey&) { return offer({{0, 11}, {1, 12}}); });
    CHECK(entry.plan == nullptr);
    CHECK(entry.refusal == "it wants 12 bytes of workspace, 10 are allowed");
    CHECK(cache.stats().refused == 1);
  }
}

TEST_CASE("plan cache: plans that fail are passed over, refusals are remembered with their words") {
  const ConvKey key = forward_key(kX, kW, kY, kParams, {}, {});
  Cache cache(100);
  int asked = 0;
  const auto nothing = [&](const ConvKey&) { return ++asked, offer({}, "not this shape"); };
  CHECK(cache.find(key, nothing).plan == nullptr);
  CHECK(cache.find(key, nothing).refusal == "not this shape");
  CHECK(asked == 1);
  CHECK(cache.stats().refused == 1);

  const ConvKey other = backward_data_key(kY, kW, kX, kParams, false, {});
  const auto make = [](const ConvKey&) { return offer({{0, 0}, {1, 0}}); };
  CHECK(cache
            .find(other, make,
                  [](const FakePlan& p, double) -> double {
                    if (p.number == 0) throw Error(ErrorCode::kBug, "does not start");
                    return 1;
                  })
            .plan->number == 1);
  CHECK(cache.stats().failed == 1);
  const ConvKey third = backward_weight_key(kX, kY, kW, kParams, false, {});
  const auto& failed = cache.find(third, make, [](const FakePlan&, double) -> double { throw Error(ErrorCode::kMemory, "no memory"); });
  CHECK(failed.plan == nullptr);
  CHECK(failed.refusal == "no memory");

  // What the planner itself throws is nobody's plan: it reaches the caller, and the next call asks again.
  const ConvKey fourth = forward_key(kX, kW, kY, {.stride = 2, .pad = 0}, {}, {});
  CHECK_THROWS_AS(cache.find(fourth, [](const ConvKey&) -> Cache::Offer { throw Error(ErrorCode::kBug, "lost"); }), Error);
  CHECK(cache.find(fourth, make).plan->number == 0);
}

TEST_CASE("plan cache: the first that runs, without a clock; the least time so far is known; a plan that is struck off is refused") {
  const ConvKey key = forward_key(kX, kW, kY, kParams, {}, {});
  const auto make = [](const ConvKey&) { return offer({{0, 0}, {1, 0}, {2, 0}}); };
  Cache cache(100);
  int tried = 0;
  const auto& entry = cache.find(
      key, make,
      [&](const FakePlan& p, double) -> double {
        ++tried;
        if (p.number == 0) throw Error(ErrorCode::kBug, "does not start");
        return 1;
      },
      Cache::Rule::kFirstThatRuns);
  CHECK(entry.plan->number == 1);
  CHECK(tried == 2);
  cache.strike(key, "not any more");
  CHECK(entry.plan == nullptr);
  CHECK(cache.find(key, make).refusal == "not any more");
  CHECK(cache.stats().struck == 1);

  std::vector<double> least;
  const ConvKey other = backward_data_key(kY, kW, kX, kParams, false, {});
  cache.find(other, make, [&](const FakePlan& p, double so_far) { return least.push_back(so_far), 3.0 - p.number; });
  CHECK(least == std::vector<double>{std::numeric_limits<double>::infinity(), 3.0, 2.0});
}

TEST_CASE("matrix keys: rows, columns, single rows, and what the library has no name for") {
  const auto matrix = [](int64_t rows, int64_t cols, int64_t row, int64_t col) {
    return MatrixView{nullptr, DType::kF32, 1, rows, cols, 0, row, col};
  };
  const auto key = gemm_key(matrix(5, 7, 8, 1), matrix(7, 3, 1, 7), matrix(5, 3, 3, 1), true, {});
  REQUIRE(key.has_value());
  CHECK(key->a_step == 8);
  CHECK(key->a_transposed == 0);
  CHECK(key->b_step == 7);
  CHECK(key->b_transposed == 1);
  CHECK(key->c_step == 3);
  CHECK(key->accumulate == 1);
  CHECK(key->depth == 7);
  const auto row = gemm_key(matrix(1, 7, 0, 1), matrix(7, 1, 1, 99), matrix(1, 1, 5, 5), false, {});
  REQUIRE(row.has_value());
  CHECK(row->a_step == 7);  // one row has no step of its own
  CHECK(row->c_step == 1);
  CHECK(!gemm_key(matrix(5, 7, 20, 2), matrix(7, 3, 3, 1), matrix(5, 3, 3, 1), false, {}));  // every second column
  CHECK(!gemm_key(matrix(5, 7, 7, 1), matrix(7, 3, 0, 1), matrix(5, 3, 3, 1), false, {}));   // one row, repeated
}

}  // namespace
}  // namespace tessera::testing
