// The op cases of all families (tests/support/op_case.h). test_ops runs them on the CPU backends, test_cuda_host on the CUDA
// kernels under emulation, test_cuda on a GPU.
#pragma once

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
