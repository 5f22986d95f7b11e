#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "tests/cpu/support.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

struct Size {
  int64_t rows, cols, gap;
};
// Odd channel counts, counts that divide a vector, more than a strip of vectors; several chunks; rows left over.
const std::vector<Size> kSizes = {{1, 1, 0},    {2, 3, 0},   {50, 3, 0},  {9, 16, 0},    {1001, 16, 0},
                                  {37, 16, 48}, {30, 24, 0}, {65, 80, 0}, {130, 80, 7},  {21, 101, 0},
                                  {21, 101, 9}, {70, 64, 0}, {5, 640, 0}, {9001, 17, 0}, {6000, 32, 0}};

struct Channels {
  explicit Channels(int64_t c)
      : mean(Rows::random(1, c, 0, 11, -0.5f, 0.5f)),
        rstd(Rows::random(1, c, 0, 12, 0.3f, 0.9f)),
        gamma(Rows::random(1, c, 0, 13, 0.5f, 1.5f)),
        beta(Rows::random(1, c, 0, 14, -0.5f, 0.5f)) {}
  BatchNormView view() { return {&mean.at(0, 0), &rstd.at(0, 0), &gamma.at(0, 0), &beta.at(0, 0)}; }
  Rows mean, rstd, gamma, beta;
};

// Of x as `images` equal images.
Outputs stats(Backend& b, Rows& x, int64_t images = 1) {
  Rows mean(1, x.cols_, 0), rstd(1, x.cols_, 0), running_mean(1, x.cols_, 0), running_var(1, x.cols_, 0);
  b.batch_norm_stats(x.image(images, 1, x.rows_ / images), 1e-3, {&running_mean.at(0, 0), &running_var.at(0, 0), 1}, &mean.at(0, 0),
                     &rstd.at(0, 0));
  Outputs out;
  for (const Rows* r : {&mean, &rstd, &running_mean, &running_var}) append(out, *r);
  return out;
}

}  // namespace

TEST_CASE("batch_norm_stats") {
  for (const Size& s : kSizes) {
    INFO("rows " << s.rows << ", cols " << s.cols << ", gap " << s.gap);
    Rows x = Rows::random(s.rows, s.cols, s.gap, 1, -2, 4);
    compare([&](Backend& b) { return stats(b, x); }, 1e-6, 2e-6);
  }
}

// More images than one in a part, pieces of one, channels side by side with pixels left over.
TEST_CASE("batch_norm_stats: images in any order, and on any rank, give the same bits") {
  Backend& b = backend_for(Device::cpu());
  for (const auto& [images, pixels, channels, gap] : std::vector<std::array<int64_t, 4>>{
           {7, 4, 256, 0}, {4, 9, 64, 3}, {5, 35, 24, 0}, {6, 1000, 16, 0}, {3, 7001, 17, 0}, {4, 2003, 96, 5}}) {
    INFO(images << " images of " << pixels << " pixels, " << channels << " channels, gap " << gap);
    Rows x = Rows::random(images * pixels, channels, gap, 3, 1, 4);
    const Outputs whole = stats(b, x, images);
    compare([&](Backend& any) { return stats(any, x, images); }, 1e-6, 2e-6);

    Rows turned = x;
    for (int64_t n = 0; n < images; ++n) {
      for (int64_t p = 0; p < pixels; ++p) {
        for (int64_t c = 0; c < channels; ++c) turned.at(n * pixels + p, c) = x.at((images - 1 - n) * pixels + p, c);
      }
    }
    CHECK(stats(b, turned, images) == whole);

    const int64_t width = 1 + 2 * channels;  // one rank has two images, the other the rest
    std::vector<double> parts(size_t(2 * width));
    for (const auto& [rank, first, end] : std::vector<std::array<int64_t, 3>>{{0, 0, 2}, {1, 2, images}}) {
      ImageView own = x.image(end - first, 1, pixels);
      own.p = &x.at(first * pixels, 0);
      b.batch_norm_part(own, parts.data() + rank * width);
    }
    Rows mean(1, channels, 0), rstd(1, channels, 0);
    b.batch_norm_join({parts.data(), DType::kF64, 2, width, width}, 1e-3, {}, DType::kF32, &mean.at(0, 0), &rstd.at(0, 0));
    Outputs joined;
    for (const Rows* r : {&mean, &rstd}) append(joined, *r);
    CHECK(std::equal(joined.begin(), joined.end(), whole.begin()));
  }
}

TEST_CASE("batch_norm_stats: no cancellation when the mean is far from zero, or the first row is far from the mean") {
  for (const Size& s : std::vector<Size>{{5000, 16, 0}, {3000, 20, 4}, {4000, 5, 0}}) {
    INFO("rows " << s.rows << ", cols " << s.cols);
    Rows x = Rows::random(s.rows, s.cols, s.gap, 2, 9999.0f, 10001.0f);
    compare([&](Backend& b) { return stats(b, x); }, 0, 2e-5);
    Rows outlier = x;
    for (int64_t c = 0; c < s.cols; ++c) outlier.at(0, c) = -3e4f;
    compare([&](Backend& b) { return stats(b, outlier); }, 0, 2e-5);
  }
}

TEST_CASE("batch_norm_apply: activation, residual, pitched output") {
  for (const Size& s : kSizes) {
    INFO("rows " << s.rows << ", cols " << s.cols << ", gap " << s.gap);
    Channels k(s.cols);
    Rows x = Rows::random(s.rows, s.cols, s.gap, 3), residual = Rows::random(s.rows, s.cols, 5, 4);
    compare(
        [&](Backend& b) {
          Outputs out;
          for (Activation act : {Activation::kNone, Activation::kSilu}) {
            for (const RowsView& add : {RowsView{}, residual.view()}) {
              Rows y(s.rows, s.cols, 0), pitched(s.rows, s.cols, 3);
              b.batch_norm_apply(x.view(), k.view(), act, add, y.view());
              b.batch_norm_apply(x.view(), k.view(), act, add, pitched.view());
              append(out, y);
              append(out, pitched);
            }
          }
          return out;
        },
        2e-6, 1e-6);
  }
}

TEST_CASE("batch_norm_backward: dx, dgamma, dbeta, accumulated or not, in place") {
  for (const Size& s : kSizes) {
    INFO("rows " << s.rows << ", cols " << s.cols << ", gap " << s.gap);
    Channels k(s.cols);
    Rows x = Rows::random(s.rows, s.cols, s.gap, 5), dy = Rows::random(s.rows, s.cols, 0, 6);
    compare(
        [&](Backend& b) {
          Outputs out;
          for (Activation act : {Activation::kNone, Activation::kSilu}) {
            Rows dx(s.rows, s.cols, s.gap), in_place = dy, dgamma(1, s.cols, 0), dbeta(1, s.cols, 0);
            b.batch_norm_backward(x.view(), dy.view(), k.view(), act, dx.view(), &dgamma.at(0, 0), &dbeta.at(0, 0), false);
            b.batch_norm_backward(x.view(), in_place.view(), k.view(), act, in_place.view(), &dgamma.at(0, 0), &dbeta.at(0, 0),
                                  true);
            for (const Rows* r : {&dx, &in_place, &dgamma, &dbeta}) append(out, *r);
          }
          return out;
        },
        5e-5, 5e-6);
  }
}

TEST_CASE("batch norm: outputs that bypass the caches") {
  const int64_t rows = (1 << 18) + 5, cols = 16;  // 16 MiB and a rest
  Channels k(cols);
  Rows x = Rows::random(rows, cols, 0, 7), dy = Rows::random(rows, cols, 0, 8);
  compare(
      [&](Backend& b) {
        Rows y(rows, cols, 0), dx(rows, cols, 0), dgamma(1, cols, 0), dbeta(1, cols, 0);
        b.batch_norm_apply(x.view(), k.view(), Activation::kSilu, {}, y.view());
        b.batch_norm_backward(x.view(), dy.view(), k.view(), Activation::kSilu, dx.view(), &dgamma.at(0, 0), &dbeta.at(0, 0),
                              false);
        Outputs out;
        for (const Rows* r : {&y, &dx, &dgamma, &dbeta}) append(out, *r);
        return out;
      },
      3e-3, 1e-5);  // sums of 2^18 rows
}

TEST_CASE("batch norm: NaN and infinity reach the result") {
  Channels k(16);
  Rows x = Rows::random(40, 16, 0, 9);
  x.at(20, 3) = std::numeric_limits<float>::quiet_NaN();
  x.at(21, 4) = std::numeric_limits<float>::infinity();
  compare([&](Backend& b) { return stats(b, x); }, 1e-6, 2e-6);
  compare(
      [&](Backend& b) {
        Rows y(40, 16, 0);
        b.batch_norm_apply(x.view(), k.view(), Activation::kSilu, {}, y.view());
        Outputs out;
        append(out, y);
        return out;
      },
      2e-6, 1e-6);
}
