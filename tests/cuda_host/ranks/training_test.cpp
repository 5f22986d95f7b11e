// Training steps of several ranks, each on an emulated GPU of its own: recorded with the exchanges of gradients, of the loss's
// totals and of batch norm's statistics, replayed, and what becomes of a step that one rank cannot record.
#include <doctest/doctest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "cuda/comm_nccl.h"
#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/ranks/nccl_twin.h"
#include "tests/support/device_training.h"

namespace tessera::testing {
namespace {

using enum StepReplay::Ran;

struct Ranks {
  ~Ranks() {
    emulated::delay_forks(false);
    CHECK(emulated::take_reports().empty());
  }
  std::unique_ptr<Communicator> nccl = cuda::nccl_communicator(world());
};

// The same on all ranks, or the number that no step has.
int on_all_ranks(StepReplay::Ran own) {
  int same = int(own);
  for (const int r : world().all_gather(int(own), "how the step ran")) same = r == same ? same : -1;
  return same;
}

double relative(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) difference += std::pow(double(a[i]) - double(b[i]), 2), norm += std::pow(double(b[i]), 2);
  return std::sqrt(difference / norm);
}

// Image `rank` of the small batch and its objects.
Batch part_of(const Batch& all, int rank) {
  Batch part = all;
  part.images = all.images.narrow(0, rank, 1).clone();
  part.masks = all.masks.narrow(0, rank, 1).clone();
  part.targets.clear(), part.target_image.clear();
  for (size_t t = 0; t < all.targets.size(); ++t) {
    if (all.target_image[t] == rank) part.targets.push_back(all.targets[t]), part.target_image.push_back(0);
  }
  return part;
}

TEST_CASE("ranks on devices: replayed steps have the bits of steps call by call") {
  for (const bool sync_bn : {false, true}) {
    CAPTURE(sync_bn);
    const Ranks ranks;
    emulated::delay_forks(true);  // reductions must not come before the gradients of weights, which are beside too
    Training calls(false, DType::kF32, true, *ranks.nccl, sync_bn), graph(true, DType::kF32, true, *ranks.nccl, sync_bn);
    CHECK(graph.ranks.buckets() > 5);
    for (int64_t i = 0; i < 6; ++i) {
      CAPTURE(i);
      int before = exchanges();
      const StepResult a = calls.run(2 * i, 1);
      const int eager = exchanges() - before;
      before = exchanges();
      const uint64_t allocations = emulated::calls("cudaMalloc"), waits = emulated::calls("cudaStreamSynchronize");
      const StepResult b = graph.run(2 * i, 1);
      CHECK(on_all_ranks(b.ran) == int(i < 3 ? kCalls : i == 3 ? kRecorded : kReplayed));
      CHECK(exchanges() - before == eager);
      if (i > 3) CHECK(emulated::calls("cudaMalloc") == allocations);
      if (i > 1) CHECK(emulated::calls("cudaStreamSynchronize") <= waits + 2);  // for the learning rates, and for what happened
      CHECK(std::memcmp(&a.loss.items, &b.loss.items, sizeof a.loss.items) == 0);
      CHECK(a.update.norm == b.update.norm);
    }
    check_same_bits(graph.state(), calls.state());
    CHECK(graph.ranks.in_step());
    CHECK(calls.ranks.in_step());
    CHECK(graph.log.empty());
  }
}

TEST_CASE("ranks on devices: the gradient of a step is that of one device with the whole batch") {
  if (world().size() != 2) return;
  const Ranks ranks;
  emulated::allow_host_access(false);  // slow, so here alone
  Training whole(false), part(false, DType::kF32, true, *ranks.nccl, true);
  const Batch batch = small_batch();
  whole.run(5, batch);  // a step without an update: its gradients stay
  part.run(5, part_of(batch, world().rank()));
  emulated::allow_host_access(true);
  const double difference = relative(part.arena.all_grads().to_vector<float>(), whole.arena.all_grads().to_vector<float>());
  MESSAGE("gradient: relative " << difference);
  CHECK(difference <= 1e-3);
  for (const char* name : {"model.0.bn.running_mean", "model.9.cv2.bn.running_var"}) {
    CAPTURE(name);
    CHECK(relative(part.model->state_dict().at(name).to_vector<float>(), whole.model->state_dict().at(name).to_vector<float>()) <=
          1e-4);
  }
}

// Room for objects grows where they are. The other rank, whose shapes stay, follows.
TEST_CASE("ranks on devices: other shapes on one rank are other shapes on all") {
  const Ranks ranks;
  Training calls(false, DType::kF32, true, *ranks.nccl), graph(true, DType::kF32, true, *ranks.nccl);
  const int last = world().size() - 1;
  std::vector<int> ran;
  for (int64_t i = 0; i < 8; ++i) {
    Batch batch = part_of(small_batch(), 0);
    if (i == 4 && world().rank() == last) {
      for (int k = 0; k < 20; ++k) batch.targets.push_back(batch.targets[0]), batch.target_image.push_back(0);
    }
    calls.run(2 * i, batch);
    ran.push_back(on_all_ranks(graph.run(2 * i, batch).ran));
  }
  CHECK(ran == std::vector<int>{int(kCalls), int(kCalls), int(kCalls), int(kRecorded), int(kCalls), int(kCalls), int(kCalls),
                                int(kRecorded)});
  check_same_bits(graph.state(), calls.state());
}

TEST_CASE("ranks on devices: what one rank cannot record is recorded by none") {
  const int last = world().size() - 1;
  for (const char* call : {"cudaGraphInstantiate", "cudaGraphUpload", "capture"}) {
    CAPTURE(call);
    const Ranks ranks;
    Training calls(false, DType::kF32, true, *ranks.nccl), graph(true, DType::kF32, true, *ranks.nccl);
    for (int64_t i = 0; i < 5; ++i) {
      calls.run(i, 1);
      // The 480th call is one of the backward pass, with reductions under way.
      const int nth = std::string(call) == "capture" ? 480 : 1;
      if (i == 3 && world().rank() == last) emulated::fail_call(call, nth, cudaErrorMemoryAllocation);
      CHECK(on_all_ranks(graph.run(i, 1).ran) == int(kCalls));
    }
    REQUIRE(graph.log.size() == 1);
    CHECK(graph.log[0].find("the step runs call by call, not as a CUDA graph: ") == 0);
    CHECK(graph.log[0].find(fmt::format("out of memory")) != std::string::npos);
    CHECK(graph.log[0].find(fmt::format("(rank {})", last)) != std::string::npos);
    check_same_bits(graph.state(), calls.state());
  }
}

// Run by itself (cuda_ranks_dies): the last rank is killed within a replay, and the others' devices wait for it for ever.
TEST_CASE("ranks on devices: a rank dies in a replay" * doctest::skip()) {
  using Clock = std::chrono::steady_clock;
  const Ranks ranks;
  static std::atomic<Clock::time_point> waits_since{Clock::now()};
  on_rank_lost([](const Error& e) {
    const double seconds = std::chrono::duration<double>(Clock::now() - waits_since.load()).count();
    std::fprintf(stderr, "error: %s; noticed %.1f s after the device began to wait\n", e.message().c_str(), seconds);
  });
  Training graph(true, DType::kF32, true, *ranks.nccl);
  for (int64_t i = 0; i < 5; ++i) CHECK(graph.run(i, 1).ran == (i < 3 ? kCalls : i == 3 ? kRecorded : kReplayed));
  on_exchange([begun = exchanges()](int number) {
    waits_since = Clock::now();
    if (number == begun + 3 && world().rank() == world().size() - 1) raise(SIGKILL);
  });
  graph.run(6, 1);
  FAIL("the step has ended without the rank that died");
}

}  // namespace
}  // namespace tessera::testing
