// The op cases of all families (tests/support/op_case.h). test_ops runs them on the CPU backends, test_cuda_host on the CUDA
// kernels under emulation, test_cuda on a GPU.
#pragma once

#include <initializer_list>
#include <utility>
#include <vector>

#include "tests/support/op_case.h"

namespace tessera::testing {

std::vector<OpCase> pointwise_cases();  // fill, copy, cast, elementwise
std::vector<OpCase> row_cases();        // reductions, argmax, top-k, softmax, gather and scatter
std::vector<OpCase> image_cases();      // pooling, upsampling, batch norm
std::vector<OpCase> conv_cases();       // convolution, its transpose, matrix products
std::vector<OpCase> loss_cases();
std::vector<OpCase> assign_cases();  // assignment of anchors, what the losses compare with
std::vector<OpCase> detect_cases();  // detections, pixels of masks
std::vector<OpCase> optim_cases();  // optimizers, random fills

inline std::vector<OpCase> all_op_cases() {
  std::vector<OpCase> all;
  for (auto cases : {pointwise_cases, row_cases, image_cases, conv_cases, loss_cases, assign_cases, detect_cases, optim_cases}) {
    for (OpCase& c : cases()) all.push_back(std::move(c));
  }
  return all;
}

// Sizes drawn around those at which kernels change: whole vectors and tiles, one more and one less, and the least there are.
class Draw {
 public:
  explicit Draw(uint64_t seed, int64_t most_work = int64_t{2} << 20) : rng_(seed, RngPurpose::kTest, 1), most_work_(most_work) {}
  int64_t below(int64_t n) { return rng_.below(n); }
  int64_t most_work() const { return most_work_; }  // multiply-adds of a case; of one in another form 8 times as many
  int64_t batch() { return of({1, 1, 1, 1, 2, 2, 3, 5, 9}); }
  int64_t side() {
    if (below(4) == 0) return 1 + below(90);
    return of({1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 20, 27, 28, 29, 31, 32, 33, 40, 41, 64, 65});
  }
  int64_t channels() {
    if (below(4) == 0) return 1 + below(140);
    return of({1,  2,  3,  4,  7,  8,  9,  15,  16,  17,  20,  24,  31,  32,  33,  47,  48,
               49, 63, 64, 65, 80, 95, 96, 112, 127, 128, 129, 160, 255, 256, 257, 512, 1000});
  }

 private:
  int64_t of(std::initializer_list<int64_t> values) { return values.begin()[below(int64_t(values.size()))]; }
  Rng rng_;
  int64_t most_work_;
};

// The cases of one shape of each op.
std::vector<OpCase> random_pointwise_cases(Draw& draw);
std::vector<OpCase> random_conv_cases(Draw& draw);
std::vector<OpCase> random_image_cases(Draw& draw);
std::vector<OpCase> random_row_cases(Draw& draw);
std::vector<OpCase> random_loss_cases(Draw& draw);
std::vector<OpCase> random_detect_cases(Draw& draw);

// Small ones of every method in one type, spread over its list: for checkers under which everything is slow.
inline std::vector<OpCase> small_op_cases(size_t of_each = 4) {
  std::map<std::string, std::vector<OpCase>> small;
  for (OpCase& c : all_op_cases()) {
    int64_t elements = 0;
    for (const Slot& slot : c.slots) elements += numel(slot.shape);
    if (elements > 20000) continue;
    c.types.resize(1);
    small[c.method].push_back(std::move(c));
  }
  std::vector<OpCase> few;
  for (const auto& [method, cases] : small) {
    const size_t n = std::min(of_each, cases.size());
    for (size_t i = 0; i < n; ++i) few.push_back(cases[n == 1 ? 0 : i * (cases.size() - 1) / (n - 1)]);
  }
  return few;
}

}  // namespace tessera::testing
