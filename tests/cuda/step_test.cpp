// Whole training steps on a GPU: recorded as a CUDA graph and replayed, in every precision. What goes wrong on demand is the
// emulation's (tests/cuda_host/graph_test.cpp, model_test.cpp).
#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/device_training.h"

namespace tessera::testing {
namespace {

TEST_CASE("training step: replayed as a CUDA graph it has the bits of a step call by call") {
  for (DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    CAPTURE(name_of(type));
    Training calls(false, type), graph(true, type);
    int replayed = 0;
    for (int64_t i = 0; i < 24; ++i) {
      CAPTURE(i);
      const int64_t images = i % 8 == 7 ? 1 : 2;  // the last batch of an epoch
      const StepResult a = calls.run(i, images), b = graph.run(i, images);
      replayed += b.ran == StepReplay::Ran::kReplayed;
      CHECK(b.loss.items.box == a.loss.items.box);
      CHECK(b.loss.items.cls == a.loss.items.cls);
      CHECK(b.update.norm == a.update.norm);
      if (i % 8 == 5) graph.step.release();  // as before a validation
    }
    CHECK(replayed > 5);
    CHECK(graph.log.empty());
    check_same_bits(graph.state(), calls.state());
  }
}

// Kernels as large as those of a training, so that the branch of the gradients of weights and the chain are at work together.
TEST_CASE("a step at 640 pixels: replayed it has the bits of one call by call") {
  const Batch batch = batch_of(8, 640);
  Training calls(false, DType::kBF16), graph(true, DType::kBF16);
  int replayed = 0;
  for (int64_t i = 0; i < 10; ++i) {
    CAPTURE(i);
    const StepResult a = calls.run(i, batch), b = graph.run(i, batch);
    replayed += b.ran == StepReplay::Ran::kReplayed;
    CHECK(b.loss.items.seg == a.loss.items.seg);
    CHECK(b.update.norm == a.update.norm);
  }
  CHECK(replayed > 5);
  CHECK(graph.log.empty());
  check_same_bits(graph.state(), calls.state());
}

TEST_CASE("training step: bf16 and fp16 stay near fp32") {
  std::vector<double> totals;
  for (DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    CAPTURE(name_of(type));
    Training training(true, type);
    double total = 0;
    int64_t made = 0;
    for (int64_t i = 0; i < 8; ++i) {
      const StepResult r = training.run(i);
      total = r.loss.items.box + r.loss.items.seg + r.loss.items.cls + r.loss.items.dfl;
      made += r.update.made && (i < 4 || i % 2 == 0);
    }
    CHECK(std::isfinite(total));
    CHECK(made >= 3);  // fp16 may have to find its scale
    totals.push_back(total);
    MESSAGE(std::string(name_of(type)), ": loss after eight steps ", total);
  }
  CHECK(std::abs(totals[1] / totals[0] - 1) <= 0.3);
  CHECK(std::abs(totals[2] / totals[0] - 1) <= 0.3);
}

}  // namespace
}  // namespace tessera::testing
