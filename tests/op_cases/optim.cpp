// Optimizer and random kernels.
#include "tensor/ops/optim.h"

#include <cmath>

#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {}  // namespace

std::vector<OpCase> optim_cases() {
  std::vector<OpCase> list;
  for (const Shape& shape : {Shape{1}, Shape{37}, Shape{3, 21}, Shape{20011}}) {
    const std::string size = to_string(shape);
    const Slot p{"p", shape, Role::kInOut};
    const Slot g{"g", shape};
    const Slot m{"m", shape, Role::kInOut};
    const Slot v{"v", shape, Role::kInOut, Fit::kRows, uniform(0.01, 1)};
    for (bool nesterov : {false, true}) {
      for (bool first : {false, true}) {
        const SgdParams s{.lr = 0.01, .momentum = 0.937, .weight_decay = 5e-4, .nesterov = nesterov, .first_step = first};
        list.push_back(
            {.method = "sgd",
             .detail = size + (nesterov ? " nesterov" : "") + (first ? " first" : ""),
             .slots = {p, g, v},
             .run = [s](Backend& b, const Bound& t, bool) { return b.sgd(t.rows("p"), t.rows("g"), t.rows("v"), 0.5, s), 0.0; }});
      }
    }
    for (bool decoupled : {false, true}) {
      for (int64_t step : {1, 100}) {
        const AdamParams a{
            .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.05, .decoupled = decoupled, .step = step};
        list.push_back({.method = "adam",
                        .detail = fmt::format("{}{} step {}", size, decoupled ? " decoupled" : "", step),
                        .slots = {p, g, m, v},
                        .run = [a](Backend& b, const Bound& t, bool) {
                          return b.adam(t.rows("p"), t.rows("g"), t.rows("m"), t.rows("v"), 0.5, a), 0.0;
                        }});
      }
    }
    list.push_back({.method = "lerp",
                    .detail = size,
                    .slots = {{"y", shape, Role::kInOut}, {"x", shape}},
                    .run = [](Backend& b, const Bound& t, bool) { return b.lerp(t.rows("y"), t.rows("x"), 0.003), 0.0; }});
    list.push_back(
        {.method = "sum_of_squares", .detail = size, .slots = {{"x", shape}}, .run = [](Backend& b, const Bound& t, bool) {
           return b.sum_of_squares(t.rows("x"));
         }});
    list.push_back({.method = "all_finite", .detail = size, .slots = {{"x", shape}}, .run = [](Backend& b, const Bound& t, bool) {
                      return b.all_finite(t.rows("x")) ? 1.0 : 0.0;
                    }});
    for (double bad : {double(INFINITY), -double(INFINITY), double(NAN)}) {
      const Values last_is_bad = [bad, n = numel(shape)](Rng&, int64_t i) { return i == n - 1 ? bad : 1.0; };
      list.push_back({.method = "all_finite",
                      .detail = fmt::format("{} with {}", size, bad),
                      .slots = {{"x", shape, Role::kIn, Fit::kRows, last_is_bad}},
                      .run = [](Backend& b, const Bound& t, bool) { return b.all_finite(t.rows("x")) ? 1.0 : 0.0; },
                      .types = {DType::kF32, DType::kBF16, DType::kF16}});
    }
    for (RngPurpose purpose : {RngPurpose::kInit, RngPurpose::kTest}) {
      const RandomStream s{.seed = 0x123456789abcdef0, .purpose = purpose, .index = 7};
      list.push_back({.method = "uniform",
                      .detail = size,
                      .slots = {{"y", shape, Role::kOut, Fit::kDense}},
                      .run = [s](Backend& b, const Bound& t, bool) { return b.uniform(t.rows("y"), s, -0.5, 2.5), 0.0; }});
      list.push_back({.method = "normal",
                      .detail = size,
                      .slots = {{"y", shape, Role::kOut, Fit::kDense}},
                      .run = [s](Backend& b, const Bound& t, bool) { return b.normal(t.rows("y"), s, 1, 0.2), 0.0; }});
    }
  }
  return list;
}

}  // namespace tessera::testing
