// The memory plan against the allocator under a real step, and its search.
#include "yolo/train/memory_plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/base/memory.h"
#include "yolo/model.h"

using namespace tessera;

namespace {

MemoryRequest request(int64_t imgsz) {
  MemoryRequest r;
  r.spec = parse_model_yaml("yolov8n-seg", {}, 5);
  r.imgsz = imgsz;
  return r;
}

// Of 8 images, without what the process holds as the plan is made: under a sanitizer that grows from plan to plan.
int64_t planned_beyond_now(const MemoryRequest& r) {
  const int64_t now = resident_bytes();
  return MemoryPlan(r).peak_bytes(8) - now;
}

}  // namespace

TEST_CASE("memory plan: grows with batch and image, finds the largest batch that fits, and touches nothing") {
  MemoryPlan plan(request(320));
  const AllocatorStats before = host_allocator().stats();
  [[maybe_unused]] const int64_t resident = resident_bytes();  // sanitizers have memory of their own
  int64_t last = 0;
  const int64_t first = plan.peak_bytes(1);
  for (const int64_t batch : {1, 2, 3, 4, 8, 16}) {
    const int64_t peak = plan.peak_bytes(batch);
    CHECK(peak > last);
    last = peak;
  }
  CHECK(host_allocator().stats().bytes_reserved == before.bytes_reserved);
  // A batch of 16 takes some 800 MiB; what the rehearsal itself touches are the folded weights.
  CHECK(last > int64_t{700} << 20);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(resident_bytes() - resident < int64_t{100} << 20);
#endif
  MemoryPlan again(request(320));
  CHECK(plan.peak_bytes(4) - plan.peak_bytes(1) == again.peak_bytes(4) - again.peak_bytes(1));
  CHECK(MemoryPlan(request(640)).peak_bytes(1) > plan.peak_bytes(1));

  for (const int64_t limit : {plan.peak_bytes(1), plan.peak_bytes(5), plan.peak_bytes(11) + 1000000}) {
    const int64_t batch = plan.largest_batch(limit, 64);
    CAPTURE(batch);
    CHECK(plan.peak_bytes(batch) <= limit);
    CHECK(plan.peak_bytes(batch + 1) > limit);
  }
  CHECK(plan.largest_batch(plan.peak_bytes(1) - (int64_t{64} << 20), 64) == 0);
  CHECK(plan.largest_batch(std::numeric_limits<int64_t>::max() - 1, 24) == 24);
  CHECK(plan.peak_bytes(1) == first);  // whatever was asked before
}

TEST_CASE("memory plan: the largest of several batch shapes counts, wherever it stands") {
  MemoryRequest several = request(320), flat = request(320), all = request(320);
  several.shapes = {{{320, 320}, {160, 160}}, {{320, 320}, {480, 480}}, {{320, 320}, {320, 320}}};
  flat.shapes = {{{160, 320}, {160, 320}}};
  all.shapes = {{{160, 320}, {160, 320}}, {{320, 160}, {320, 160}}, {{320, 320}, {320, 320}}};
  const int64_t square = planned_beyond_now(request(320)), large = planned_beyond_now(request(480));
  const int64_t scaled = planned_beyond_now(several);
  CHECK(scaled > square + (large - square) / 2);
  CHECK(scaled < large + (large - square) / 4);
  std::reverse(several.shapes.begin(), several.shapes.end());
  CHECK(std::abs(double(planned_beyond_now(several) - scaled)) < 0.02 * double(scaled));
  CHECK(planned_beyond_now(flat) < square);
  CHECK(planned_beyond_now(all) >= square - (int64_t{1} << 20));
}

TEST_CASE("memory plan: what does not fit is refused with the batch that does") {
  MemoryPlan plan(request(160));
  const MemoryBudget budget{plan.peak_bytes(6), "the test"};
  CHECK(check_memory(plan, budget, 6, 100, 160) <= budget.bytes);
  CHECK(check_memory(plan, budget, 64, 5, 160) <= budget.bytes);  // never more than there are images
  try {
    check_memory(plan, budget, 64, 100, 160);
    FAIL("expected an error");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kMemory);
    CHECK(e.message().find("the test leaves") != std::string::npos);
    INFO(e.hint());
    CHECK(e.hint().starts_with("--batch 6 would fit"));
    CHECK(e.hint().ends_with("--recompute true needs less"));
  }
  std::string reason;
  const MemoryBudget wide{plan.peak_bytes(40) + resident_bytes(), "the test"};  // which a sanitizer makes large
  const int64_t planned = plan_batch(plan, wide, 64, reason);
  CHECK(double(plan.peak_bytes(planned)) <= kPlannedPart * double(wide.bytes));
  CHECK(double(plan.peak_bytes(planned + 1)) > kPlannedPart * double(wide.bytes));
  CHECK(reason.starts_with(fmt::format("batch {}: ", planned)));
  CHECK(plan_batch(plan, {int64_t{1} << 40, "the test"}, 64, reason) == 64);  // no more than nbs
  CHECK_THROWS_AS(plan_batch(plan, {int64_t{1} << 20, "the test"}, 64, reason), Error);
}
