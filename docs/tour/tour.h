// What the chapters of the tour share: sentences that are checked while they are printed.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <source_location>
#include <string_view>
#include <vector>

#include "tensor/base/check.h"
#include "tensor/ops/random.h"
#include "tensor/tensor.h"

namespace tour {

// Prints a sentence of the text. One that does not hold ends the program, and the test that runs it.
inline void claim(bool holds, std::string_view sentence, std::source_location at = std::source_location::current()) {
  fmt::print("  {} {}\n", holds ? "-" : "NOT TRUE:", sentence);
  std::fflush(stdout);
  if (!holds) throw tessera::Error(tessera::ErrorCode::kBug, fmt::format("not true: {}", sentence), {at.file_name(), at.line()});
}

inline void heading(std::string_view text) { fmt::print("\n{}\n", text); }

// Numbers of [-1, 1), the same on every run and every machine.
inline tessera::Tensor random(const tessera::Shape& shape, uint32_t stream, tessera::DType type = tessera::DType::kF32) {
  const tessera::Tensor t = tessera::Tensor::empty(shape, type);
  tessera::ops::uniform(t, {.seed = 1, .purpose = tessera::RngPurpose::kUser, .index = stream}, -1, 1);
  return t;
}

inline double largest_difference(const tessera::Tensor& a, const tessera::Tensor& b) {
  TESSERA_CHECK(a.shape() == b.shape(), "largest_difference of {} and {}", describe(a), describe(b));
  const std::vector<double> x = a.to(tessera::DType::kF64).to_vector<double>(), y = b.to(tessera::DType::kF64).to_vector<double>();
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

}  // namespace tour
