// Optimizer and random kernels.
#include "tensor/ops/optim.h"
#include "tensor/ops/update.h"

#include <array>
#include <cmath>
#include <utility>

#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

// A whole update: groups of these many elements, the last only averaged.
OpCase update_case(const std::array<int64_t, 4>& sizes, UpdateRule rule, double scale, const char* detail, double bad = 0,
                   int64_t growth_interval = 0) {
  UpdateParams p;
  p.rule = rule;
  p.weight_decay = {0, 5e-3, 0};
  p.max_norm = 10;
  p.average_decay = 0.9;
  p.average_tau = 20;
  p.growth_interval = growth_interval;
  std::array<int64_t, 4> ends{};
  int64_t all = 0;
  for (size_t g = 0; g < 4; ++g) ends[g] = all += sizes[g];
  const int64_t trained = ends[2];
  const Values gradient = [=](Rng& rng, int64_t i) {
    return bad != 0 && (i == trained / 3 || i == trained - 1) ? bad : scale * rng.uniform(-1, 1);
  };
  const Slot moment{"first", {trained}, Role::kInOut, Fit::kDense};
  OpCase c{.method = "update",
           .detail = fmt::format("{} of {}", detail, all),
           .slots = {{"values", {all}, Role::kInOut, Fit::kDense},
                     {"grads", {trained}, Role::kInOut, Fit::kDense, gradient},
                     moment,
                     {"average", {all}, Role::kInOut, Fit::kDense},
                     {"settings", {kUpdateSettings}, Role::kIn, Fit::kDense, listed({0.1, 0.01, 0.02, 0.9}), DType::kF64},
                     {"state", {kUpdateSlots}, Role::kInOut, Fit::kDense, listed({6, scale, 2, 0, 0}), DType::kF64}},
           .run =
               [p, ends](Backend& b, const Bound& t, bool) {
                 const bool sgd = p.rule == UpdateRule::kSgd;
                 b.update({t.rows("values"), t.rows("grads"), t.rows("first"), sgd ? RowsView{} : t.rows("second"), t.rows("average"), ends},
                          static_cast<const double*>(t.raw("settings")), static_cast<double*>(t.raw("state")), p);
                 return 0.0;
               },
           .length = 200,  // of the norm, which is f64, that much and more
           .magnitude = 2};
  if (rule != UpdateRule::kSgd) c.slots.push_back({"second", {trained}, Role::kInOut, Fit::kDense, uniform(0.01, 1)});
  return c;
}

std::vector<OpCase> update_cases() {
  std::vector<OpCase> list;
  const std::array<int64_t, 4> small{16, 48, 32, 16}, large{1600, 12000, 4160, 2032};
  for (const auto& sizes : {small, large}) {
    list.push_back(update_case(sizes, UpdateRule::kSgd, 1, "sgd"));
    list.push_back(update_case(sizes, UpdateRule::kAdam, 1, "adam"));
    list.push_back(update_case(sizes, UpdateRule::kAdamW, 1, "adamw"));
    list.push_back(update_case(sizes, UpdateRule::kAdamW, 1024, "scaled, grows", 0, 3));
    list.push_back(update_case(sizes, UpdateRule::kSgd, 1024, "scaled, does not grow yet", 0, 4));
    list.push_back(update_case(sizes, UpdateRule::kSgd, 1024, "left out", double(INFINITY), 3));
    list.push_back(update_case(sizes, UpdateRule::kAdam, 1, "left out without a scale", double(NAN)));
  }
  list.push_back(update_case({16, 0, 16, 0}, UpdateRule::kSgd, 0.01, "empty groups"));
  return list;
}

}  // namespace

std::vector<OpCase> optim_cases() {
  std::vector<OpCase> list = update_cases();
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
  for (int64_t n : {13, 16}) {
    list.push_back(
        {.method = "uniform",
         .detail = fmt::format("{} numbers from an odd place on", n),
         .slots = {{"y", {n + 1}, Role::kInOut, Fit::kDense}},
         .run = [n](Backend& b, const Bound& t, bool) {
           return b.uniform(t["y"].narrow(0, 1, n).rows(), {.seed = 5, .purpose = RngPurpose::kTest, .index = 1}, -0.5, 2.5), 0.0;
         }});
  }
  return list;
}

}  // namespace tessera::testing
