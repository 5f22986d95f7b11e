// Fill, copy, cast and the elementwise ops.
#include "tests/op_cases/op_cases.h"
#include "tests/support/every.h"

namespace tessera::testing {
namespace {

const std::vector<DType> kFloats = {DType::kF32, DType::kBF16, DType::kF16};

std::pair<double, double> range_of(UnaryOp op) {
  if (op == UnaryOp::kLog || op == UnaryOp::kSqrt) return {0.05, 6};
  if (op == UnaryOp::kExp) return {-6, 3};
  return {-6, 6};
}

// Of large shapes one op is enough.
void add_rowwise(std::vector<OpCase>& list, const std::vector<Shape>& shapes) {
  for (const Shape& shape : shapes) {
    for (UnaryOp op : every<UnaryOp>()) {
      if (numel(shape) > 10000 && op != UnaryOp::kSilu) continue;
      const auto [low, high] = range_of(op);
      const std::string detail = std::string(name_of(op)) + " " + to_string(shape);
      const std::vector<DType> types = numel(shape) > 10000 ? std::vector{DType::kF32} : kFloats;
      list.push_back({.method = "unary",
                      .detail = detail,
                      .slots = {{"x", shape, Role::kIn, Fit::kRows, uniform(low, high)}, {"y", shape, Role::kOut}},
                      .run = [op](Backend& b, const Bound& t, bool) { return b.unary(op, t.rows("x"), t.rows("y")), 0.0; },
                      .types = types,
                      .rounded_once = true,
                      .in_place = {{"y", "x"}}});
      list.push_back(
          {.method = "unary_backward",
           .detail = detail,
           .slots = {{"x", shape, Role::kIn, Fit::kRows, uniform(low, high)}, {"dy", shape}, {"dx", shape, Role::kOut}},
           .run = [op](Backend& b, const Bound& t,
                       bool accumulate) { return b.unary_backward(op, t.rows("x"), t.rows("dy"), t.rows("dx"), accumulate), 0.0; },
           .types = types,
           .rounded_once = true,
           .accumulates = true,
           .in_place = {{"dx", "dy"}}});
    }
    list.push_back({.method = "add_scaled",
                    .detail = to_string(shape),
                    .slots = {{"x", shape}, {"y", shape, Role::kInOut}},
                    .run = [](Backend& b, const Bound& t, bool) { return b.add_scaled(t.rows("x"), 0.7, t.rows("y")), 0.0; },
                    .types = kFloats,
                    .rounded_once = true});
    list.push_back({.method = "scale",
                    .detail = to_string(shape) + " u8",
                    .slots = {{"x", shape, Role::kIn, Fit::kRows, whole(0, 255), DType::kU8}, {"y", shape, Role::kOut}},
                    .run = [](Backend& b, const Bound& t, bool) { return b.scale(t.rows("x"), 1 / 255.0, t.rows("y")), 0.0; },
                    .types = kFloats,
                    .rounded_once = true});
    list.push_back({.method = "scale",
                    .detail = to_string(shape),
                    .slots = {{"x", shape}, {"y", shape, Role::kOut}},
                    .run = [](Backend& b, const Bound& t, bool) { return b.scale(t.rows("x"), -1.3, t.rows("y")), 0.0; },
                    .types = kFloats,
                    .rounded_once = true,
                    .in_place = {{"y", "x"}}});
  }
}

struct Pair {
  Shape a, b, y;
};

void add_binary(std::vector<OpCase>& list, const std::vector<Pair>& shapes) {
  for (const Pair& s : shapes) {
    for (BinaryOp op : every<BinaryOp>()) {
      const bool divides = op == BinaryOp::kDivide;
      list.push_back({.method = "binary",
                      .detail = fmt::format("{} {} {}", name_of(op), to_string(s.a), to_string(s.b)),
                      .slots = {{"a", s.a, Role::kIn, Fit::kStrided, divides ? uniform(-2, 2) : whole(-5, 5)},
                                {"b", s.b, Role::kIn, Fit::kStrided, divides ? uniform(0.5, 2) : whole(-5, 5)},
                                {"y", s.y, Role::kOut, Fit::kStrided}},
                      .run =
                          [op, y = s.y](Backend& b, const Bound& t, bool) {
                            b.binary(op, t["a"].expand(y).strided(), t["b"].expand(y).strided(), t.strided("y"));
                            return 0.0;
                          },
                      .types = divides ? kFloats : std::vector{DType::kF32, DType::kBF16, DType::kF16, DType::kI64, DType::kI32},
                      .rounded_once = true});
    }
  }
}

void add_fills_and_copies(std::vector<OpCase>& list, const std::vector<Shape>& shapes) {
  for (const Shape& shape : shapes) {
    list.push_back({.method = "fill",
                    .detail = to_string(shape),
                    .slots = {{"y", shape, Role::kOut, Fit::kStrided}},
                    .run = [](Backend& b, const Bound& t, bool) { return b.fill(t.strided("y"), 3.0), 0.0; },
                    .types = {DType::kF32, DType::kBF16, DType::kF16, DType::kI64, DType::kI32, DType::kU8, DType::kBool}});
    list.push_back({.method = "copy",
                    .detail = to_string(shape),
                    .slots = {{"x", shape, Role::kIn, Fit::kStrided, whole(0, 200)}, {"y", shape, Role::kOut, Fit::kStrided}},
                    .run = [](Backend& b, const Bound& t, bool) { return b.copy(t.strided("x"), t.strided("y")), 0.0; },
                    .types = {DType::kF32, DType::kBF16, DType::kF16, DType::kI64, DType::kI32, DType::kU8}});
  }
}

// Signs, and fractions that a narrower type rounds.
void add_conversions(std::vector<OpCase>& list, const std::vector<Shape>& shapes) {
  for (const auto& [from, to] : std::vector<std::pair<DType, DType>>{
           {DType::kF32, DType::kBF16}, {DType::kBF16, DType::kF32}, {DType::kU8, DType::kBF16}, {DType::kU8, DType::kF32}}) {
    const bool integers = from == DType::kU8;
    for (const Shape& shape : shapes) {
      list.push_back({.method = "copy",
                      .detail = fmt::format("{} to {}, rows {}", name_of(from), name_of(to), to_string(shape)),
                      .slots = {{"x", shape, Role::kIn, Fit::kStrided, integers ? whole(0, 255) : uniform(-3, 3), from},
                                {"y", shape, Role::kOut, Fit::kStrided, {}, to}},
                      .run = [](Backend& b, const Bound& t, bool) { return b.copy(t.strided("x"), t.strided("y")), 0.0; },
                      .rounded_once = true});
    }
  }
}

}  // namespace

std::vector<OpCase> pointwise_cases() {
  std::vector<OpCase> list;
  add_rowwise(list, {{0, 7}, {3, 5, 19}, {2, 33, 257}});
  add_binary(list, {{{4, 3, 37}, {4, 3, 37}, {4, 3, 37}},
                    {{4, 3, 37}, {37}, {4, 3, 37}},
                    {{4, 3, 5}, {3, 1}, {4, 3, 5}},
                    {{1, 1}, {2, 6, 7, 33}, {2, 6, 7, 33}},
                    {{6, 1}, {1, 9}, {6, 9}}});
  add_fills_and_copies(list, {{}, {0, 3}, {5, 3, 21}, {2, 9, 11, 64}});
  for (DType from : {DType::kF64, DType::kF32, DType::kBF16, DType::kF16, DType::kI64, DType::kI32, DType::kU8, DType::kBool}) {
    for (DType to : {DType::kF64, DType::kF32, DType::kBF16, DType::kF16, DType::kI64, DType::kI32, DType::kU8, DType::kBool}) {
      list.push_back({.method = "copy",
                      .detail = fmt::format("{} to {}", name_of(from), name_of(to)),
                      .slots = {{"x", {3, 41}, Role::kIn, Fit::kStrided, uniform(0, 200), from},
                                {"y", {3, 41}, Role::kOut, Fit::kStrided, {}, to}},
                      .run = [](Backend& b, const Bound& t, bool) { return b.copy(t.strided("x"), t.strided("y")), 0.0; }});
    }
  }
  // Rows of several vectors, with and without a rest.
  add_conversions(list, {{70, 83}, {35, 88}});
  // One operand read with a permutation: what contiguous() does.
  list.push_back({.method = "copy",
                  .detail = "NCHW to NHWC",
                  .slots = {{"x", {2, 5, 6, 7}, Role::kIn, Fit::kStrided}, {"y", {2, 6, 7, 5}, Role::kOut, Fit::kStrided}},
                  .run = [](Backend& b, const Bound& t, bool) {
                    return b.copy(t["x"].permute({0, 2, 3, 1}).strided(), t.strided("y")), 0.0;
                  }});
  // A part whose axes cannot be joined to rows.
  list.push_back({.method = "fill",
                  .detail = "a part of a part",
                  .slots = {{"y", {3, 6, 25}, Role::kOut, Fit::kStrided}},
                  .run = [](Backend& b, const Bound& t, bool) {
                    return b.fill(t["y"].narrow(1, 1, 4).permute({1, 0, 2}).narrow(2, 3, 17).strided(), 3.0), 0.0;
                  }});
  return list;
}

std::vector<OpCase> random_pointwise_cases(Draw& draw) {
  std::vector<OpCase> list;
  Shape x;
  do {
    x = {draw.side(), draw.batch(), draw.channels()};
  } while (numel(x) > 20000);
  add_rowwise(list, {x});
  Pair p{x, x, x};
  for (int axis = 0; axis < 3; ++axis) {
    if (draw.below(3) == 0) (draw.below(2) == 0 ? p.a : p.b)[axis] = 1;
  }
  add_binary(list, {p});
  add_fills_and_copies(list, {x});
  add_conversions(list, {{draw.side(), draw.channels()}});
  return list;
}

}  // namespace tessera::testing
