#include <doctest/doctest.h>

#include "tests/cpu/support.h"

using namespace tessera;
using namespace tessera::testing;

TEST_CASE("max pooling: values, the first maximum's index, backward; with and without index") {
  struct Case {
    int64_t n, h, w, c, gap;
    PoolParams p;
  };
  const std::vector<Case> cases = {
      {2, 20, 20, 16, 0, {5, 1, 2}},  // SPPF
      {1, 7, 9, 19, 3, {5, 1, 2}},   {2, 8, 6, 5, 0, {2, 2, 0}},  {1, 9, 11, 33, 1, {3, 2, 1}},
      {1, 5, 5, 1, 0, {3, 1, 0}},    {1, 3, 2, 16, 0, {5, 1, 2}}, {1, 12, 12, 4, 0, {2, 3, 0}},
  };
  for (const Case& k : cases) {
    INFO("kernel " << k.p.kernel << ", stride " << k.p.stride << ", pad " << k.p.pad << ", channels " << k.c);
    Rows x = Rows::random(k.n * k.h * k.w, k.c, k.gap, 1);
    for (size_t i = 0; i < x.buffer.size(); ++i) {
      if (x.buffer[i] != kCanary) x.buffer[i] = std::round(x.buffer[i]);  // many ties
    }
    const int64_t oh = (k.h + 2 * k.p.pad - k.p.kernel) / k.p.stride + 1, ow = (k.w + 2 * k.p.pad - k.p.kernel) / k.p.stride + 1;
    Rows dy = Rows::random(k.n * oh * ow, k.c, 0, 2);
    const Rows old = Rows::random(k.n * k.h * k.w, k.c, k.gap, 3);
    compare(
        [&](Backend& b) {
          Rows y(k.n * oh * ow, k.c, k.gap), without(k.n * oh * ow, k.c, 0), dx(k.n * k.h * k.w, k.c, 0), sum = old;
          std::vector<uint8_t> index(size_t(k.n * oh * ow * k.c) + 1, 255);
          const ImageView taps{index.data(), DType::kU8, k.n, oh, ow, k.c, k.c};
          b.max_pool2d(x.image(k.n, k.h, k.w), y.image(k.n, oh, ow), taps, k.p);
          b.max_pool2d(x.image(k.n, k.h, k.w), without.image(k.n, oh, ow), {}, k.p);
          b.max_pool2d_backward(dy.image(k.n, oh, ow), taps, dx.image(k.n, k.h, k.w), k.p, false);
          b.max_pool2d_backward(dy.image(k.n, oh, ow), taps, sum.image(k.n, k.h, k.w), k.p, true);
          Outputs out(index.begin(), index.end());
          for (const Rows* r : {&y, &without, &dx, &sum}) append(out, *r);
          return out;
        },
        1e-5, 1e-6);
  }
}

TEST_CASE("upsampling by two, forward and backward") {
  struct Case {
    int64_t n, h, w, c, gap;
  };
  for (const Case& k : std::vector<Case>{{1, 1, 1, 1, 0}, {2, 10, 6, 16, 0}, {1, 5, 7, 19, 4}, {2, 20, 20, 64, 32}}) {
    Rows x = Rows::random(k.n * k.h * k.w, k.c, k.gap, 4), dy = Rows::random(4 * k.n * k.h * k.w, k.c, k.gap, 5);
    compare(
        [&](Backend& b) {
          Rows y(4 * k.n * k.h * k.w, k.c, k.gap), dx(k.n * k.h * k.w, k.c, 2), sum = x;
          b.upsample2x(x.image(k.n, k.h, k.w), y.image(k.n, 2 * k.h, 2 * k.w));
          b.upsample2x_backward(dy.image(k.n, 2 * k.h, 2 * k.w), dx.image(k.n, k.h, k.w), false);
          b.upsample2x_backward(dy.image(k.n, 2 * k.h, 2 * k.w), sum.image(k.n, k.h, k.w), true);
          Outputs out;
          for (const Rows* r : {&y, &dx, &sum}) append(out, *r);
          return out;
        },
        1e-6, 1e-6);
  }
}
