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
std::vector<OpCase> optim_cases();  // optimizers, random fills

inline std::vector<OpCase> all_op_cases() {
  std::vector<OpCase> all;
  for (auto cases : {pointwise_cases, row_cases, image_cases, conv_cases, loss_cases, optim_cases}) {
    for (OpCase& c : cases()) all.push_back(std::move(c));
  }
  return all;
}

}  // namespace tessera::testing
