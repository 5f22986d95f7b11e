// Pooling, upsampling and batch normalisation.
#include <set>

#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

const std::vector<DType> kFloats = {DType::kF32, DType::kBF16, DType::kF16};

// Of each window a tap that lies inside the image: what a forward pass may have chosen.
Values taps_inside(const Shape& x, const Shape& y, const PoolParams& p) {
  return [=](Rng& rng, int64_t i) {
    const int64_t left = i / y[3] % y[2] * p.stride - p.pad;
    const int64_t top = i / (y[3] * y[2]) % y[1] * p.stride - p.pad;
    auto inside = [&](int64_t from, int64_t size) {
      const int64_t first = std::max<int64_t>(0, -from);
      return first + rng.below(std::min(p.kernel, size - from) - first);
    };
    const int64_t ky = inside(top, x[1]);
    return double(ky * p.kernel + inside(left, x[2]));
  };
}

struct Pooled {
  Shape x, y;
  PoolParams p;
};

void add_pooling(std::vector<OpCase>& list, const std::vector<Pooled>& sizes) {
  for (const Pooled& s : sizes) {
    const std::string text = fmt::format("{}x{} s{} {}", s.p.kernel, s.p.kernel, s.p.stride, to_string(s.x));
    const PoolParams p = s.p;
    list.push_back({.method = "max_pool2d",
                    .detail = text,
                    .slots = {{"x", s.x, Role::kIn, Fit::kRows, whole(-4, 4)},
                              {"y", s.y, Role::kOut},
                              {"index", s.y, Role::kOut, Fit::kDense, {}, DType::kU8}},
                    .run = [p](Backend& b, const Bound& t,
                               bool) { return b.max_pool2d(t.image("x"), t.image("y"), t.image("index"), p), 0.0; },
                    .types = {DType::kF32, DType::kBF16}});
    list.push_back({.method = "max_pool2d",
                    .detail = text + " without index",
                    .slots = {{"x", s.x, Role::kIn, Fit::kRows, uniform(-4, 4)}, {"y", s.y, Role::kOut}},
                    .run = [p](Backend& b, const Bound& t, bool) { return b.max_pool2d(t.image("x"), t.image("y"), {}, p), 0.0; },
                    .types = {DType::kF32, DType::kBF16},
                    .rounded_once = true});
    list.push_back({.method = "max_pool2d_backward",
                    .detail = text,
                    .slots = {{"dy", s.y},
                              {"index", s.y, Role::kIn, Fit::kDense, taps_inside(s.x, s.y, p), DType::kU8},
                              {"dx", s.x, Role::kOut}},
                    .run =
                        [p](Backend& b, const Bound& t, bool accumulate) {
                          return b.max_pool2d_backward(t.image("dy"), t.image("index"), t.image("dx"), p, accumulate), 0.0;
                        },
                    .types = {DType::kF32, DType::kBF16},
                    .length = double(p.kernel * p.kernel),
                    .rounded_once = true,
                    .accumulates = true});
  }
}

void add_upsampling(std::vector<OpCase>& list, const std::vector<Shape>& sizes) {
  for (const Shape& x : sizes) {
    const Shape y{x[0], 2 * x[1], 2 * x[2], x[3]};
    list.push_back({.method = "upsample2x",
                    .detail = to_string(x),
                    .slots = {{"x", x}, {"y", y, Role::kOut}},
                    .run = [](Backend& b, const Bound& t, bool) { return b.upsample2x(t.image("x"), t.image("y")), 0.0; },
                    .types = {DType::kF32, DType::kBF16}});
    list.push_back({.method = "upsample2x_backward",
                    .detail = to_string(x),
                    .slots = {{"dy", y}, {"dx", x, Role::kOut}},
                    .run = [](Backend& b, const Bound& t,
                              bool accumulate) { return b.upsample2x_backward(t.image("dy"), t.image("dx"), accumulate), 0.0; },
                    .types = {DType::kF32, DType::kBF16},
                    .length = 4,
                    .rounded_once = true,
                    .accumulates = true});
  }
}

struct Resized {
  Shape x;
  int64_t h, w;
};

void add_resizing(std::vector<OpCase>& list, const std::vector<Resized>& sizes) {
  for (const Resized& s : sizes) {
    list.push_back({.method = "resize_bilinear",
                    .detail = fmt::format("{} to {}x{}", to_string(s.x), s.h, s.w),
                    .slots = {{"x", s.x}, {"y", {s.x[0], s.h, s.w, s.x[3]}, Role::kOut}},
                    .run = [](Backend& b, const Bound& t, bool) { return b.resize_bilinear(t.image("x"), t.image("y")), 0.0; },
                    .types = kFloats,
                    .length = 4,
                    .rounded_once = true});
  }
}

// Rows as the pixels of one image.
ImageView pixels(const Tensor& x) {
  if (x.rank() == 4) return x.image();
  const RowsView rows = x.rows();
  return {rows.p, rows.t, 1, 1, rows.rows, rows.cols, rows.pitch};
}

RunningStatsView running(const Bound& t) { return {t.raw("running_mean"), t.raw("running_var"), 0.03}; }

void add_norms(std::vector<OpCase>& list, const std::vector<Shape>& shapes) {
  for (const Shape& shape : shapes) {
    const int64_t c = shape.back();
    const double rows = double(numel(shape) / c);
    const bool large = rows > 1000;
    const std::vector<DType> types = large ? std::vector{DType::kF32} : kFloats;
    for (double center : large ? std::vector{0.0} : std::vector{0.0, 100.0}) {
      const std::string text = to_string(shape) + (center > 0 ? " far from 0" : "");
      const Values x = uniform(center - 1, center + 1);
      auto vector = [&](const char* name, double low, double high) {
        return Slot{name, {c}, Role::kIn, Fit::kDense, uniform(low, high), {}, true};
      };
      // In a model's memory gamma and beta begin at any element: here at the second, or at the first.
      const int64_t first = center > 0 ? 0 : 1;
      std::vector<Slot> parameters = {vector("mean", center - 0.1, center + 0.1), vector("rstd", 1, 2), vector("gamma", 0.5, 1.5),
                                      vector("beta", -1, 1)};
      for (size_t i : {2, 3}) parameters[i].shape = {c + first};
      auto view = [first](const Bound& t) {
        auto from_first = [&](const char* name) {
          return static_cast<void*>(static_cast<std::byte*>(t.raw(name)) + size_t(first) * size_t(size_of(t[name].dtype())));
        };
        return BatchNormView{t.raw("mean"), t.raw("rstd"), from_first("gamma"), from_first("beta")};
      };
      auto with_parameters = [&](std::vector<Slot> slots) {
        slots.insert(slots.end(), parameters.begin(), parameters.end());
        return slots;
      };
      auto output = [&](const char* name, Role role = Role::kOut) {
        return Slot{.name = name, .shape = {c}, .role = role, .fit = Fit::kDense, .wide = true};
      };
      for (const bool averages : {false, true}) {
        list.push_back({.method = "batch_norm_stats",
                        .detail = text + (averages ? " averages" : ""),
                        .slots = {{"x", shape, Role::kIn, Fit::kRows, x},
                                  output("mean"),
                                  output("rstd"),
                                  output("running_mean", Role::kInOut),
                                  output("running_var", Role::kInOut)},
                        .run =
                            [=](Backend& b, const Bound& t, bool) {
                              b.batch_norm_stats(pixels(t["x"]), 1e-3, averages ? running(t) : RunningStatsView{}, t.raw("mean"),
                                                 t.raw("rstd"));
                              return 0.0;
                            },
                        .types = types,
                        .length = std::sqrt(rows),
                        .magnitude = 1});
      }
      list.push_back(
          {.method = "batch_norm_part",
           .detail = text,
           .slots = {{"x", shape, Role::kIn, Fit::kRows, x},
                     {.name = "part", .shape = {1 + 2 * c}, .role = Role::kOut, .fit = Fit::kDense, .type = DType::kF64}},
           .run = [](Backend& b, const Bound& t, bool) { return b.batch_norm_part(pixels(t["x"]), t["part"].data<double>()), 0.0; },
           .types = types,
           .length = std::sqrt(rows),
           .magnitude = rows});
      for (Activation act : {Activation::kNone, Activation::kSilu}) {
        if (large && act == Activation::kNone) continue;
        const std::string name = text + (act == Activation::kSilu ? " silu" : "");
        for (bool residual : {false, true}) {
          list.push_back(
              {.method = "batch_norm_apply",
               .detail = name + (residual ? " residual" : ""),
               .slots = with_parameters({{"x", shape, Role::kIn, Fit::kRows, x}, {"residual", shape}, {"y", shape, Role::kOut}}),
               .run =
                   [=](Backend& b, const Bound& t, bool) {
                     b.batch_norm_apply(t.rows("x"), view(t), act, residual ? t.rows("residual") : RowsView{}, t.rows("y"));
                     return 0.0;
                   },
               .types = types,
               .magnitude = 1 + center,  // x * scale + shift, where a kernel folds the mean into the shift
               .rounded_once = true});
        }
        for (bool accumulate : {false, true}) {
          const Role role = accumulate ? Role::kInOut : Role::kOut;
          list.push_back(
              {.method = "batch_norm_backward",
               .detail = name + (accumulate ? " accumulate" : ""),
               .slots = with_parameters({{"x", shape, Role::kIn, Fit::kRows, x},
                                         {"dy", shape},
                                         {"dx", shape, Role::kOut},
                                         {.name = "dgamma", .shape = {c}, .role = role, .fit = Fit::kDense, .wide = true},
                                         {.name = "dbeta", .shape = {c}, .role = role, .fit = Fit::kDense, .wide = true}}),
               .run =
                   [=](Backend& b, const Bound& t, bool) {
                     b.batch_norm_backward(t.rows("x"), t.rows("dy"), view(t), act, t.rows("dx"), t.raw("dgamma"), t.raw("dbeta"),
                                           accumulate);
                     return 0.0;
                   },
               .types = types,
               .length = rows,
               .magnitude = 2 + center,
               .rounded_once = true,
               .in_place = {{"dx", "dy"}}});
        }
      }
    }
  }
}

// What ranks with some of the rows each tell each other, joined; channels, ranks.
void joined_norm_cases(std::vector<OpCase>& list) {
  for (const auto& [c, ranks] : {std::pair<int64_t, int64_t>{1, 1}, {3, 2}, {17, 3}, {300, 8}}) {
    const Shape channels{c};
    const int64_t width = 1 + 2 * c;
    const Values part = [=](Rng& rng, int64_t i) {  // rows, sums, squares about the mean
      const int64_t at = i % width;
      return at == 0 ? double(ranks == 1 ? 1 : 1 + rng.below(50)) : at <= c ? rng.uniform(-90, 90) : rng.uniform(0, 60);
    };
    const Slot parts{"parts", {ranks, width}, Role::kIn, Fit::kDense, part, DType::kF64};
    const auto out = [&](const char* name, Role role = Role::kOut) { return Slot{name, channels, role, Fit::kDense}; };
    const std::string text = fmt::format("{} channels of {} ranks", c, ranks);
    list.push_back({.method = "batch_norm_join",
                    .detail = text,
                    .slots = {parts, out("mean"), out("rstd"), out("running_mean", Role::kInOut), out("running_var", Role::kInOut)},
                    .run =
                        [](Backend& b, const Bound& t, bool) {
                          b.batch_norm_join(t.rows("parts"), 1e-3, running(t), t["mean"].dtype(), t.raw("mean"), t.raw("rstd"));
                          return 0.0;
                        },
                    .length = double(ranks)});
    list.push_back({.method = "batch_norm_rstd",
                    .detail = fmt::format("{} channels", c),
                    .slots = {{"var", {1, c}, Role::kIn, Fit::kDense, uniform(0, 2)}, out("rstd")},
                    .run = [](Backend& b, const Bound& t, bool) { return b.batch_norm_rstd(t.rows("var"), 1e-3, t.raw("rstd")), 0.0; }});
    for (const int64_t own : std::set<int64_t>{0, ranks - 1}) {
      list.push_back({.method = "batch_norm_correction",
                      .detail = fmt::format("{}, {}", text, own),
                      .slots = {parts,
                                {"sums", {ranks, 2 * c}, Role::kIn, Fit::kDense, uniform(-20, 20)},
                                {"gamma", channels, Role::kIn, Fit::kDense, uniform(0.5, 1.5)},
                                {"rstd", channels, Role::kIn, Fit::kDense, uniform(1, 2)},
                                out("slope"),
                                out("offset")},
                      .run =
                          [=](Backend& b, const Bound& t, bool) {
                            b.batch_norm_correction(t.rows("parts"), t.rows("sums"), own, t.raw("gamma"), t.raw("rstd"),
                                                    t.raw("slope"), t.raw("offset"));
                            return 0.0;
                          },
                      .length = double(ranks)});
    }
  }
}

}  // namespace

std::vector<OpCase> image_cases() {
  std::vector<OpCase> list;
  add_pooling(list, {{{2, 6, 7, 19}, {2, 6, 7, 19}, {5, 1, 2}},
                     {{2, 6, 8, 4}, {2, 3, 4, 4}, {2, 2, 0}},
                     {{1, 5, 7, 33}, {1, 2, 3, 33}, {2, 2, 0}},
                     {{1, 2, 2, 3}, {1, 2, 2, 3}, {5, 1, 2}},
                     {{1, 9, 9, 16}, {1, 5, 5, 16}, {3, 2, 1}},
                     {{1, 20, 20, 64}, {1, 20, 20, 64}, {5, 1, 2}}});
  add_upsampling(list, {{2, 3, 4, 5}, {1, 7, 5, 64}});
  add_resizing(list, {{{2, 8, 6, 3}, 12, 9},
                      {{1, 9, 12, 3}, 5, 7},
                      {{1, 5, 4, 16}, 11, 4},
                      {{2, 1, 7, 5}, 3, 1},
                      {{1, 6, 6, 8}, 6, 6},
                      {{2, 64, 96, 3}, 32, 160}});
  // On CUDA: groups of rows that end with a chunk, a gap in the last tile of channels (cuda/device/columns.cuh), several rows for
  // each thread.
  add_norms(list, {{1, 3}, {2, 5, 4, 3}, {1, 9, 7, 64}, {257, 17}, {20, 320}, {384, 32}, {30, 88}, {6400, 127}});
  joined_norm_cases(list);
  return list;
}

std::vector<OpCase> random_image_cases(Draw& draw) {
  std::vector<OpCase> list;
  const auto image = [&] {
    Shape x;
    do {
      x = {draw.batch(), draw.side(), draw.side(), draw.channels()};
    } while (numel(x) > 60000);
    return x;
  };
  Pooled pooled;
  do {
    const Shape x = image();
    PoolParams& p = pooled.p;
    p.kernel = draw.below(3) == 0 ? 5 : 1 + draw.below(6);
    p.stride = draw.below(2) == 0 ? 1 : 1 + draw.below(3);
    p.pad = draw.below(p.kernel / 2 + 1);
    const auto outputs = [&](int64_t size) {
      return size + 2 * p.pad < p.kernel ? 0 : (size + 2 * p.pad - p.kernel) / p.stride + 1;
    };
    pooled.x = x, pooled.y = {x[0], outputs(x[1]), outputs(x[2]), x[3]};
  } while (numel(pooled.y) == 0);
  add_pooling(list, {pooled});
  add_upsampling(list, {image()});
  add_resizing(list, {{image(), draw.side(), draw.side()}});
  add_norms(list, {draw.below(2) == 0 ? image() : Shape{1 + draw.below(700), draw.channels()}});
  return list;
}

}  // namespace tessera::testing
