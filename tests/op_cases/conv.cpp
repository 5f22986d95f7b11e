// Convolution, transposed convolution and matrix products.
#include "tensor/cpu/conv.h"

#include "tensor/cpu/cpu_backend.h"
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

struct Sizes {
  int64_t n, h, w, i, o, k, stride, pad;
  Shape x() const { return {n, h, w, i}; }
  Shape filter() const { return {o, k, k, i}; }
  Shape y() const { return {n, (h + 2 * pad - k) / stride + 1, (w + 2 * pad - k) / stride + 1, o}; }
  ConvParams params() const { return {stride, pad}; }
  std::string text() const { return fmt::format("{}x{} s{} {}x{}x{} {}->{}", k, k, stride, n, h, w, i, o); }
};

// Widths that fill vectors and that do not, odd images, the stem (also wider than a block), the 1x1 of the heads, images smaller than
// the filter, a 1x1 of several jobs of an odd number of pixels; several patches (cuda/conv_patch.cu), channels that end within them
// and that need several tiles.
const std::vector<Sizes> kSizes = {
    {2, 5, 6, 3, 4, 3, 1, 1},   {1, 9, 11, 16, 32, 3, 1, 1},  {2, 13, 10, 3, 16, 3, 2, 1}, {1, 7, 9, 33, 17, 3, 2, 1},
    {2, 4, 5, 6, 7, 1, 1, 0},   {1, 12, 13, 48, 80, 1, 1, 0}, {1, 1, 1, 5, 3, 3, 1, 1},    {1, 8, 8, 64, 64, 3, 1, 1},
    {1, 6, 7, 4, 5, 5, 1, 2},   {2, 6, 6, 8, 9, 1, 2, 0},     {1, 20, 3, 1, 1, 3, 1, 0},   {1, 17, 33, 24, 40, 3, 1, 1},
    {2, 7, 6, 16, 24, 3, 2, 1}, {2, 14, 19, 17, 32, 3, 1, 1}, {4, 9, 9, 33, 16, 3, 1, 0},  {1, 31, 13, 40, 70, 1, 1, 0},
    {1, 9, 10, 16, 72, 3, 2, 1},  {1, 21, 139, 3, 24, 3, 2, 1}, {1, 18, 35, 48, 80, 3, 1, 1},
    {2, 17, 16, 16, 32, 3, 1, 1}, {1, 7, 9, 40, 24, 3, 1, 1}, {3, 2, 2, 32, 40, 3, 1, 1}, {1, 2, 4, 48, 24, 3, 1, 1},
    {1, 3, 5, 16, 88, 3, 1, 1},   {1, 3, 5, 72, 16, 3, 1, 1},
    {1, 11, 13, 128, 120, 1, 1, 0},  // tiles of 128 channels, whole and not
    {1, 7, 28, 16, 24, 3, 2, 1}, {1, 5, 26, 16, 8, 3, 1, 1}, {1, 4, 26, 16, 256, 3, 2, 1},  // wide enough to be read in place
    {1, 2, 33, 768, 48, 1, 1, 0},  // pixels whole KiB apart
    {1, 72, 96, 32, 34, 3, 2, 1},  // enough for Winograd's form with stride 2
    // Patches of many channels (cuda/conv_patch_deep.cu): columns that fill tiles of each width and that do not, an odd tile.
    {1, 10, 19, 80, 96, 3, 1, 1}, {1, 9, 7, 112, 128, 3, 1, 1}, {3, 5, 7, 144, 24, 3, 1, 1}, {1, 8, 8, 80, 80, 3, 1, 1},
    // 1 x 1 (cuda/conv_pointwise.cu): several tiles for a warpgroup, the last one cut, slabs that end within a line, columns that do not
    // fill their tile.
    {1, 20, 33, 32, 40, 1, 1, 0}, {2, 13, 17, 80, 192, 1, 1, 0}, {1, 29, 17, 144, 64, 1, 1, 0},
    // Patches of stride 2 (cuda/conv_patch_stride2.cu), several for a block; channels that end within a slot, and that need two tiles.
    {2, 35, 21, 16, 32, 3, 2, 1}, {1, 34, 18, 32, 64, 3, 2, 1}, {1, 17, 18, 48, 24, 3, 2, 1}, {1, 17, 12, 8, 48, 3, 2, 1},
};
const std::vector<DType> kAllTypes = {DType::kF32, DType::kBF16, DType::kF16};

void add_convs(std::vector<OpCase>& list, const std::vector<Sizes>& sizes) {
  for (const Sizes& s : sizes) {
    const ConvParams p = s.params();
    // Its errors are 5 times as large on average, with stride 2 hardly larger (docs/adr/0012-winograd.md); small images are
    // direct in any case.
    const double winograd = s.k != 3 || std::min(s.i, s.o) < 16 ? 0 : s.stride == 1 ? 4 : s.stride == 2 && s.pad == 1 ? 2 : 0;
    const double flops = 2.0 * double(numel(s.y())) * double(s.k * s.k * s.i);
    // bf16 everywhere, f16 where channels fill vectors, with both strides, and where they do not.
    const bool all_types = s.o == 4 || s.o == 24 || s.o == 32 || s.o == 40;
    const std::vector<DType> types = all_types ? kAllTypes : std::vector{DType::kF32, DType::kBF16};
    auto forward = [&](std::string detail, bool bias, Activation act, bool residual) {
      list.push_back({.method = "conv2d",
                      .detail = s.text() + detail,
                      .slots = {{"x", s.x()},
                                {"w", s.filter(), Role::kIn, Fit::kDense},
                                {.name = "bias", .shape = {s.o}, .fit = Fit::kDense, .wide = true},
                                {"residual", s.y()},
                                {"y", s.y(), Role::kOut}},
                      .run =
                          [=](Backend& b, const Bound& t, bool) {
                            ConvEpilogue e{.activation = act};
                            if (bias) e.bias = t.raw("bias");
                            if (residual) e.residual = t.image("residual");
                            b.conv2d(t.image("x"), t.filter("w"), t.image("y"), p, e);
                            return 0.0;
                          },
                      .types = types,
                      .length = double(s.k * s.k * s.i),
                      .winograd = winograd,
                      .flops = flops});
    };
    list.push_back({.method = "conv2d",
                    .detail = s.text() + " wide result",
                    .slots = {{"x", s.x()},
                              {"w", s.filter(), Role::kIn, Fit::kDense},
                              {.name = "bias", .shape = {s.o}, .fit = Fit::kDense, .wide = true},
                              {.name = "y", .shape = s.y(), .role = Role::kOut, .wide = true}},
                    .run =
                        [=](Backend& b, const Bound& t, bool) {
                          const ConvEpilogue e{.bias = t.raw("bias")};
                          if (b.conv2d_writes_wide()) return b.conv2d(t.image("x"), t.filter("w"), t.image("y"), p, e), 0.0;
                          // What is there instead: the operands widened.
                          const Tensor x = t["x"].to(t["y"].dtype()), w = t["w"].to(t["y"].dtype());
                          return b.conv2d(x.image(), w.filter(), t.image("y"), p, e), 0.0;
                        },
                    .types = {DType::kBF16, DType::kF16},
                    .length = double(s.k * s.k * s.i),
                    .winograd = winograd,
                    .flops = flops});
    forward("", false, Activation::kNone, false);
    forward(" bias", true, Activation::kNone, false);
    forward(" bias silu residual", true, Activation::kSilu, true);
    // Of small whole numbers the result is exact in every type, so that what is formed from it can be compared closely.
    const auto channels = [&](const char* name, Role role) {
      return Slot{.name = name, .shape = {s.o}, .role = role, .fit = Fit::kDense, .wide = true};
    };
    for (const bool averages : {false, true}) {
      list.push_back({.method = "conv2d_with_stats",
                      .detail = s.text() + (averages ? " averages" : ""),
                      .slots = {{"x", s.x(), Role::kIn, Fit::kRows, whole(-1, 1)},
                                {"w", s.filter(), Role::kIn, Fit::kDense, whole(-1, 1)},
                                {"y", s.y(), Role::kOut},
                                channels("mean", Role::kOut),
                                channels("rstd", Role::kOut),
                                channels("running_mean", Role::kInOut),
                                channels("running_var", Role::kInOut)},
                      .run =
                          [=](Backend& b, const Bound& t, bool) {
                            const RunningStatsView running{t.raw("running_mean"), t.raw("running_var"), 0.03};
                            b.conv2d_with_stats(t.image("x"), t.filter("w"), t.image("y"), p, 1e-3,
                                                averages ? running : RunningStatsView{}, t.raw("mean"), t.raw("rstd"));
                            return 0.0;
                          },
                      .types = types,
                      .length = std::sqrt(double(numel(s.y()) / s.o)),
                      .magnitude =
                          std::max(1.0, std::sqrt(double(s.k * s.k * s.i)) / 8),  // a mean rounds as the numbers that it is of
                      .flops = flops});
    }
    list.push_back({.method = "conv2d_backward_data",
                    .detail = s.text(),
                    .slots = {{"dy", s.y()}, {"w", s.filter(), Role::kIn, Fit::kDense}, {"dx", s.x(), Role::kOut}},
                    .run =
                        [p](Backend& b, const Bound& t, bool accumulate) {
                          return b.conv2d_backward_data(t.image("dy"), t.filter("w"), t.image("dx"), p, accumulate), 0.0;
                        },
                    .types = types,
                    .length = double(s.k * s.k * s.o),
                    .winograd = winograd,
                    .accumulates = true,
                    .flops = flops});
    list.push_back({.method = "conv2d_backward_weight",
                    .detail = s.text(),
                    .slots = {{"x", s.x()},
                              {"dy", s.y()},
                              {.name = "dw", .shape = s.filter(), .role = Role::kOut, .fit = Fit::kDense, .wide = true}},
                    .run =
                        [p](Backend& b, const Bound& t, bool accumulate) {
                          return b.conv2d_backward_weight(t.image("x"), t.image("dy"), t.filter("dw"), p, accumulate), 0.0;
                        },
                    .types = types,
                    .length = double(numel(s.y()) / s.o),
                    .winograd = winograd,
                    .accumulates = true,
                    .flops = flops});
    list.push_back(
        {.method = "bias_backward",
         .detail = s.text(),
         .slots = {{"dy", s.y()}, {.name = "dbias", .shape = {s.o}, .role = Role::kOut, .fit = Fit::kDense, .wide = true}},
         .run = [](Backend& b, const Bound& t,
                   bool accumulate) { return b.bias_backward(t.rows("dy"), t.raw("dbias"), accumulate), 0.0; },
         .types = types,
         .length = double(numel(s.y()) / s.o),
         .accumulates = true});
  }
}

struct Transposed {
  int64_t n, h, w, i, o;
};

void add_transposed(std::vector<OpCase>& list, const std::vector<Transposed>& sizes) {
  for (const Transposed& s : sizes) {
    const Shape x{s.n, s.h, s.w, s.i};
    const Shape y{s.n, 2 * s.h, 2 * s.w, s.o};
    const Shape w{s.o, 2, 2, s.i};
    const std::string text = fmt::format("{}x{}x{} {}->{}", s.n, s.h, s.w, s.i, s.o);
    const std::vector<DType> types = s.i == 1 ? std::vector{DType::kF32} : s.i == 64 ? std::vector{DType::kF32, DType::kBF16} : kAllTypes;
    for (bool bias : {false, true}) {
      list.push_back({.method = "conv_transpose2x2",
                      .detail = text + (bias ? " bias" : ""),
                      .slots = {{"x", x},
                                {"w", w, Role::kIn, Fit::kDense},
                                {.name = "bias", .shape = {s.o}, .fit = Fit::kDense, .wide = true},
                                {"y", y, Role::kOut}},
                      .run =
                          [bias](Backend& b, const Bound& t, bool) {
                            return b.conv_transpose2x2(t.image("x"), t.filter("w"), t.image("y"), bias ? t.raw("bias") : nullptr),
                                   0.0;
                          },
                      .types = types,
                      .length = double(s.i)});
    }
    list.push_back({.method = "conv_transpose2x2_backward_data",
                    .detail = text,
                    .slots = {{"dy", y}, {"w", w, Role::kIn, Fit::kDense}, {"dx", x, Role::kOut}},
                    .run =
                        [](Backend& b, const Bound& t, bool accumulate) {
                          return b.conv_transpose2x2_backward_data(t.image("dy"), t.filter("w"), t.image("dx"), accumulate), 0.0;
                        },
                    .types = types,
                    .length = double(4 * s.o),
                    .accumulates = true});
    list.push_back(
        {.method = "conv_transpose2x2_backward_weight",
         .detail = text,
         .slots = {{"x", x}, {"dy", y}, {.name = "dw", .shape = w, .role = Role::kOut, .fit = Fit::kDense, .wide = true}},
         .run =
             [](Backend& b, const Bound& t, bool accumulate) {
               return b.conv_transpose2x2_backward_weight(t.image("x"), t.image("dy"), t.filter("dw"), accumulate), 0.0;
             },
         .types = types,
         .length = double(s.n * s.h * s.w),
         .accumulates = true});
  }
}

struct Product {
  int64_t batch_a, batch_b, m, k, n;
};

void add_products(std::vector<OpCase>& list, const std::vector<Product>& sizes) {
  for (const Product& s : sizes) {
    for (bool transpose_a : {false, true}) {
      for (bool transpose_b : {false, true}) {
        const int64_t batch = std::max(s.batch_a, s.batch_b);
        auto matrix = [batch](const Tensor& t, bool transpose) {
          MatrixView m{t.raw(),        t.dtype(),     batch, t.size(1), t.size(2), t.size(0) == 1 ? 0 : t.strides()[0],
                       t.strides()[1], t.strides()[2]};
          if (transpose) {
            std::swap(m.rows, m.cols);
            std::swap(m.row_stride, m.col_stride);
          }
          return m;
        };
        list.push_back(
            {.method = "matmul",
             .detail = fmt::format("{}x{} batch {}x{}x{}{}{}", s.batch_a, s.batch_b, s.m, s.k, s.n, transpose_a ? " At" : "",
                                   transpose_b ? " Bt" : ""),
             .slots = {{"a", transpose_a ? Shape{s.batch_a, s.k, s.m} : Shape{s.batch_a, s.m, s.k}, Role::kIn, Fit::kStrided},
                       {"b", transpose_b ? Shape{s.batch_b, s.n, s.k} : Shape{s.batch_b, s.k, s.n}, Role::kIn, Fit::kStrided},
                       {"c", {batch, s.m, s.n}, Role::kOut, Fit::kStrided}},
             .run =
                 [=](Backend& b, const Bound& t, bool accumulate) {
                   return b.matmul(matrix(t["a"], transpose_a), matrix(t["b"], transpose_b), matrix(t["c"], false), accumulate),
                          0.0;
                 },
             .types = s.m >= 17 ? kAllTypes : std::vector{DType::kF32},
             .length = double(s.k),
             .accumulates = true,
             .flops = 2.0 * double(batch * s.m * s.n * s.k)});
      }
    }
  }
}

}  // namespace

std::vector<OpCase> conv_cases() {
  std::vector<OpCase> list;
  add_convs(list, kSizes);
  // The last on CUDA: a filter's gradient in more chunks of pixels than a thread adds together.
  add_transposed(list, {{2, 3, 4, 5, 6}, {1, 5, 3, 16, 16}, {1, 7, 9, 64, 33}, {1, 64, 64, 1, 1}});
  add_products(list,
               {{1, 1, 5, 7, 6}, {3, 3, 4, 5, 2}, {1, 3, 17, 33, 9}, {2, 1, 1, 20, 31}, {1, 1, 70, 130, 65}, {1, 1, 3, 1, 1}});
  return list;
}

std::vector<OpCase> random_conv_cases(Draw& draw) {
  std::vector<OpCase> list;
  Sizes s{};
  const bool winograd = draw.below(2) == 0;  // large enough for that form
  while (winograd) {
    s = {draw.batch(), draw.side(), draw.side(), draw.channels(), draw.channels(), 3, 1 + draw.below(2), 0};
    s.pad = s.stride == 2 ? 1 : draw.below(3);
    if (s.h + 2 * s.pad < 3 || s.w + 2 * s.pad < 3) continue;
    const int64_t pixels = numel(s.y()) / s.o, pairs = s.i * s.o, least = s.stride == 1 ? 16 : 32;
    if (pixels > 280 + 240000 / pairs && std::min(s.i, s.o) >= least && 9 * pixels * pairs <= 8 * draw.most_work()) break;
  }
  while (!winograd) {
    const int64_t kernel = draw.below(10);
    s.k = kernel < 2 ? 1 : kernel < 8 ? 3 : 2 + draw.below(6);
    s.stride = draw.below(3) == 0 ? 2 : draw.below(12) == 0 ? 3 : 1;
    s.pad = draw.below(4) > 0 ? s.k / 2 : draw.below(s.k + 1);
    s.n = draw.batch(), s.h = draw.side(), s.w = draw.side(), s.i = draw.channels(), s.o = draw.channels();
    if (s.h + 2 * s.pad < s.k || s.w + 2 * s.pad < s.k) continue;
    if (numel(s.y()) * s.k * s.k * s.i <= draw.most_work() && std::max(numel(s.x()), numel(s.y())) <= 200000) break;
  }
  add_convs(list, {s});
  // Only large results are measured on the way by themselves.
  for (size_t i = 0, n = list.size(); i < n; ++i) {
    if (list[i].method != "conv2d_with_stats") continue;
    OpCase& c = list.emplace_back(list[i]);
    c.detail += " on the way";
    c.run = [p = s.params(), otherwise = c.run, averages = c.detail.find("averages") != std::string::npos](Backend& b,
                                                                                                           const Bound& t, bool) {
      if (dynamic_cast<CpuBackend*>(&b) == nullptr || t["x"].dtype() == DType::kF16) return otherwise(b, t, false);
      const ImageView y = t.image("y");
      std::vector<double> part(size_t(1 + 2 * y.c));
      part[0] = double(y.n * y.h * y.w);
      cpu::conv2d_with_stats(t.image("x"), t.filter("w"), y, p, part.data() + 1, part.data() + 1 + y.c);
      const auto width = int64_t(part.size());
      const RunningStatsView running{t.raw("running_mean"), t.raw("running_var"), 0.03};
      b.batch_norm_join({part.data(), DType::kF64, 1, width, width}, 1e-3, averages ? running : RunningStatsView{}, DType::kF32,
                        t.raw("mean"), t.raw("rstd"));
      return 0.0;
    };
  }
  Transposed t{};
  do {
    t = {draw.batch(), draw.side(), draw.side(), draw.channels(), draw.channels()};
  } while (4 * t.n * t.h * t.w * t.i * t.o > draw.most_work() || t.n * t.h * t.w * std::max(t.i, 4 * t.o) > 200000);
  add_transposed(list, {t});
  Product m{};
  do {
    const int64_t batch = draw.batch();
    m = {batch, draw.below(3) == 0 ? 1 : batch, draw.channels(), draw.channels(), draw.channels()};
    if (draw.below(2) == 0) std::swap(m.batch_a, m.batch_b);
  } while (std::max(m.batch_a, m.batch_b) * m.m * m.k * m.n > draw.most_work());
  add_products(list, {m});
  return list;
}

}  // namespace tessera::testing
