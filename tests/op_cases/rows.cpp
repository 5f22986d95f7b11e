// Reductions, argmax, top-k, softmax, gather and scatter.
#include <array>

#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

const std::vector<DType> kFloats = {DType::kF32, DType::kBF16, DType::kF16};

struct Reduced {
  Shape x, y;
};

void add_reductions(std::vector<OpCase>& list, const std::vector<Reduced>& sizes) {
  for (const Reduced& s : sizes) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMean, ReduceOp::kMax}) {
      list.push_back({.method = "reduce",
                      .detail = fmt::format("{} {} to {}", name_of(op), to_string(s.x), to_string(s.y)),
                      .slots = {{"x", s.x, Role::kIn, Fit::kStrided}, {"y", s.y, Role::kOut, Fit::kStrided}},
                      .run = [op](Backend& b, const Bound& t, bool) { return b.reduce(op, t.strided("x"), t.strided("y")), 0.0; },
                      .types = kFloats,
                      .length = double(numel(s.x)) / double(numel(s.y)),
                      .rounded_once = true});
    }
    list.push_back(
        {.method = "reduce",
         .detail = fmt::format("integer sum {} to {}", to_string(s.x), to_string(s.y)),
         .slots = {{"x", s.x, Role::kIn, Fit::kStrided, whole(-9, 9)}, {"y", s.y, Role::kOut, Fit::kStrided}},
         .run = [](Backend& b, const Bound& t, bool) { return b.reduce(ReduceOp::kSum, t.strided("x"), t.strided("y")), 0.0; },
         .types = {DType::kI64, DType::kI32}});
  }
}

// Softmax and log-softmax, both directions. `largest`: of the results that the gradient of softmax is given, which in a long row
// are small.
void add_softmax(std::vector<OpCase>& list, const Shape& shape, double largest) {
  for (bool log : {false, true}) {
    const std::string detail = (log ? "log " : "") + to_string(shape);
    list.push_back({.method = "softmax",
                    .detail = detail,
                    .slots = {{"x", shape, Role::kIn, Fit::kRows, uniform(-8, 8)}, {"y", shape, Role::kOut}},
                    .run = [log](Backend& b, const Bound& t, bool) { return b.softmax(t.rows("x"), t.rows("y"), log), 0.0; },
                    .types = kFloats,
                    .magnitude = 8,
                    .rounded_once = true,
                    .in_place = {{"y", "x"}}});
    list.push_back({.method = "softmax_backward",
                    .detail = detail,
                    .slots = {{"y", shape, Role::kIn, Fit::kRows, log ? uniform(-5, 0) : uniform(0, largest)},
                              {"dy", shape},
                              {"dx", shape, Role::kOut}},
                    .run = [log](Backend& b, const Bound& t,
                                 bool) { return b.softmax_backward(t.rows("y"), t.rows("dy"), t.rows("dx"), log), 0.0; },
                    .types = kFloats,
                    .length = double(shape[1]),
                    .magnitude = 4,
                    .rounded_once = true});
  }
}

void add_choices_and_softmax(std::vector<OpCase>& list, const std::vector<Shape>& shapes) {
  for (const Shape& shape : shapes) {
    const int64_t rows = shape[0];
    list.push_back({.method = "argmax",
                    .detail = to_string(shape),
                    .slots = {{"x", shape, Role::kIn, Fit::kRows, whole(-3, 3)},
                              {"index", {rows, 1}, Role::kOut, Fit::kRows, {}, DType::kI64}},
                    .run = [](Backend& b, const Bound& t, bool) { return b.argmax(t.rows("x"), t.rows("index")), 0.0; },
                    .types = {DType::kF32, DType::kBF16, DType::kI32, DType::kU8}});
    for (int64_t k : {int64_t{1}, std::min<int64_t>(10, shape[1]), shape[1]}) {
      list.push_back(
          {.method = "topk",
           .detail = fmt::format("{} of {}", k, to_string(shape)),
           .slots = {{"x", shape, Role::kIn, Fit::kRows, whole(-9, 9)},
                     {"values", {rows, k}, Role::kOut},
                     {"indices", {rows, k}, Role::kOut, Fit::kRows, {}, DType::kI64}},
           .run = [](Backend& b, const Bound& t, bool) { return b.topk(t.rows("x"), t.rows("values"), t.rows("indices")), 0.0; },
           .types = {DType::kF32, DType::kI32}});
    }
    add_softmax(list, shape, 0.2);
  }
}

}  // namespace

std::vector<OpCase> row_cases() {
  std::vector<OpCase> list;
  // The last two: so many that a GPU shares each sum out.
  add_reductions(list, {{{4, 5, 6}, {1, 5, 6}},
                        {{4, 5, 6}, {4, 1, 6}},
                        {{4, 5, 6}, {4, 5, 1}},
                        {{4, 5, 6}, {1, 1, 1}},
                        {{37, 65}, {1, 65}},
                        {{37, 65}, {37, 1}},
                        {{2, 9, 7, 33}, {1, 1, 1, 33}},
                        {{2, 9, 7, 33}, {2, 1, 1, 33}},
                        {{3000}, {1}},
                        {{}, {}},
                        {{37, 9, 33}, {1, 1, 33}},
                        {{9000}, {1}}});
  add_choices_and_softmax(list, {{1, 1}, {7, 80}, {65, 33}, {2, 300}});
  list.push_back({.method = "softmax",
                  .detail = "logits of 1000",
                  .slots = {{"x", {5, 16}, Role::kIn, Fit::kRows, uniform(-1000, 1000)}, {"y", {5, 16}, Role::kOut}},
                  .run = [](Backend& b, const Bound& t, bool) { return b.softmax(t.rows("x"), t.rows("y"), false), 0.0; }});
  list.push_back({.method = "softmax",  // no number that is not in the row counts as its greatest
                  .detail = "logits far below 0, a row that ends within a pack",
                  .slots = {{"x", {5, 15}, Role::kIn, Fit::kRows, uniform(-2000, -1000)}, {"y", {5, 15}, Role::kOut}},
                  .run = [](Backend& b, const Bound& t, bool) { return b.softmax(t.rows("x"), t.rows("y"), false), 0.0; }});
  add_softmax(list, {3, 300}, 0.01);
  {
    // Targets that come again after many others, and targets that never come.
    constexpr int64_t n = 150;
    const Slot index{"index", {n}, Role::kIn, Fit::kDense, [](Rng&, int64_t i) { return i % 50 == 7 ? -1.0 : double(i * i % 41); }, DType::kI64};
    list.push_back({.method = "scatter_add_rows",
                    .detail = "150 rows of 141 columns",
                    .slots = {{"x", {n, 141}}, index, {"y", {43, 141}, Role::kInOut}},
                    .run = [](Backend& b, const Bound& t,
                              bool) { return b.scatter_add_rows(t.rows("x"), t["index"].data<int64_t>(), std::array{t.rows("y")}), 0.0; },
                    .types = {DType::kF32, DType::kBF16},
                    .length = 8});
  }
  for (int64_t cols : {1, 5, 64}) {
    constexpr int64_t n = 8;
    const Slot index{"index", {n}, Role::kIn, Fit::kDense, listed({5, 0, 0, 3, -1, 5, 5, 1}), DType::kI64};  // -1: no row
    list.push_back({.method = "gather_rows",
                    .detail = fmt::format("{} columns", cols),
                    .slots = {{"x", {6, cols}, Role::kIn, Fit::kRows, whole(0, 100)}, index, {"y", {n, cols}, Role::kOut}},
                    .run = [](Backend& b, const Bound& t,
                              bool) { return b.gather_rows(std::array{t.rows("x")}, t["index"].data<int64_t>(), t.rows("y")), 0.0; },
                    .types = {DType::kF32, DType::kBF16, DType::kI64, DType::kI32, DType::kU8}});
    list.push_back({.method = "scatter_add_rows",
                    .detail = fmt::format("{} columns", cols),
                    .slots = {{"x", {n, cols}}, index, {"y", {6, cols}, Role::kInOut}},
                    .run = [](Backend& b, const Bound& t,
                              bool) { return b.scatter_add_rows(t.rows("x"), t["index"].data<int64_t>(), std::array{t.rows("y")}), 0.0; },
                    .types = {DType::kF32, DType::kBF16}});
  }
  for (int64_t cols : {3, 64}) {
    // Rows of the first table come again; rows 2 and 5 are of none.
    constexpr int64_t n = 7;
    const Slot index{"index", {3, n}, Role::kIn, Fit::kDense,
                     listed({4, -1, -1, 4, -1, -1, 0, -1, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 8, -1, -1}), DType::kI64};
    const auto tables = [](const Bound& t) { return std::array{t.rows("a"), t.rows("b"), t.rows("c")}; };
    const auto slots = [&](Role role) {
      return std::vector<Slot>{{"a", {5, cols}, role}, {"b", {2, cols}, role}, {"c", {9, cols}, role}, index};
    };
    std::vector<Slot> gather = slots(Role::kIn), scatter = slots(Role::kInOut);
    gather.push_back({"y", {n, cols}, Role::kOut});
    scatter.push_back({"x", {n, cols}});
    list.push_back({.method = "gather_rows",
                    .detail = fmt::format("three tables, {} columns", cols),
                    .slots = gather,
                    .run = [=](Backend& b, const Bound& t, bool) { return b.gather_rows(tables(t), t["index"].data<int64_t>(), t.rows("y")), 0.0; },
                    .types = {DType::kF32, DType::kBF16}});
    list.push_back({.method = "scatter_add_rows",
                    .detail = fmt::format("three tables, {} columns", cols),
                    .slots = scatter,
                    .run = [=](Backend& b, const Bound& t, bool) { return b.scatter_add_rows(t.rows("x"), t["index"].data<int64_t>(), tables(t)), 0.0; },
                    .types = {DType::kF32, DType::kBF16}});
  }
  return list;
}

std::vector<OpCase> random_row_cases(Draw& draw) {
  std::vector<OpCase> list;
  Shape x;
  do {
    x = {draw.side(), draw.side(), draw.channels()};
  } while (numel(x) > 60000);
  Shape y = x;
  for (int axis = 0; axis < 3; ++axis) y[axis] = draw.below(2) == 0 ? 1 : x[axis];
  add_reductions(list, {{x, y}});
  add_choices_and_softmax(list, {{draw.side(), draw.channels()}});
  return list;
}

}  // namespace tessera::testing
