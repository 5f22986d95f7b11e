#include <doctest/doctest.h>

#include <limits>

#include "tests/cpu/support.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

struct Size {
  int64_t rows, cols, gap;
};

// The relative error of a sum in float precision.
constexpr double kSum = 3e-7;

// What a forward leaves.
template <class F>
float sum_of(F&& forward) {
  float sum = 0;
  forward(&sum);
  return sum;
}

std::vector<float> uniform(size_t n, uint32_t seed, float low, float high) {
  Rows r = Rows::random(1, int64_t(n), 0, seed, low, high);
  return {&r.at(0, 0), &r.at(0, 0) + n};
}

}  // namespace

TEST_CASE("bce_with_logits: forward and backward") {
  for (const Size& s : std::vector<Size>{{1, 1, 0}, {3, 17, 0}, {100, 80, 0}, {60, 80, 5}, {1000, 81, 0}}) {
    INFO("rows " << s.rows << ", cols " << s.cols);
    Rows x = Rows::random(s.rows, s.cols, s.gap, 1, -12, 12), t = Rows::random(s.rows, s.cols, 0, 2, 0, 1);
    const Rows old = Rows::random(s.rows, s.cols, s.gap, 3);
    compare(
        [&](Backend& b) {
          const float scale = 0.37f;
          Rows dx(s.rows, s.cols, 1), sum = old;
          b.bce_with_logits_backward(x.view(), t.view(), &scale, dx.view(), false);
          b.bce_with_logits_backward(x.view(), t.view(), &scale, sum.view(), true);
          Outputs out{sum_of([&](float* y) { b.bce_with_logits(x.view(), t.view(), y); })};
          append(out, dx);
          append(out, sum);
          return out;
        },
        1e-6, kSum);
  }
}

TEST_CASE("bce_with_logits: large logits keep their relative accuracy; NaN and infinities come through") {
  for (float logit : {-100.0f, -80.0f, -30.0f, -17.0f, 17.0f, 30.0f, 100.0f, 1e30f}) {
    CAPTURE(logit);
    const float answer = logit > 0 ? 1.0f : 0.0f;  // right answers: the loss is e^-|x|
    Rows x = Rows::random(1, 40, 0, 4, logit, logit), t = Rows::random(1, 40, 0, 5, answer, answer);
    compare([&](Backend& b) { return Outputs{sum_of([&](float* y) { b.bce_with_logits(x.view(), t.view(), y); })}; }, 5e-13, 1e-6);
  }
  for (float special : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    Rows x = Rows::random(1, 40, 0, 6), t = Rows::random(1, 40, 0, 7, 0.5f, 1);
    x.at(0, 30) = special;
    compare(
        [&](Backend& b) {
          Rows dx(1, 40, 0);
          const float scale = 1;
          b.bce_with_logits_backward(x.view(), t.view(), &scale, dx.view(), false);
          Outputs out{sum_of([&](float* y) { b.bce_with_logits(x.view(), t.view(), y); })};
          append(out, dx);
          return out;
        },
        1e-6, kSum);
  }
}

TEST_CASE("ciou_loss and dfl_loss") {
  for (int64_t n : {1, 5, 700}) {
    CAPTURE(n);
    Rows boxes = Rows::random(n, 4, 0, 8, 0, 30), truth = Rows::random(n, 4, 2, 9, 0, 30);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t c : {0, 1}) {
        boxes.at(i, c + 2) = boxes.at(i, c) + 1 + boxes.at(i, c + 2);
        truth.at(i, c + 2) = truth.at(i, c) + 1 + truth.at(i, c + 2);
      }
    }
    Rows weight = Rows::random(1, n, 0, 10, 0, 1);
    Rows logits = Rows::random(n, 64, 16, 11, -6, 6), distance = Rows::random(n, 4, 0, 12, 0, 14.99f);
    distance.at(0, 0) = 3;  // on a bin
    const Rows old = Rows::random(n, 64, 1, 13);
    compare(
        [&](Backend& b) {
          const float box_scale = 1.3f, bin_scale = 0.7f;
          Rows ciou(1, n, 0), dboxes(n, 4, 3), dlogits(n, 64, 0), sum = old;
          Outputs out{sum_of([&](float* y) { b.ciou_loss(boxes.view(), truth.view(), &weight.at(0, 0), &ciou.at(0, 0), y); })};
          out.push_back(sum_of([&](float* y) { b.ciou_loss(boxes.view(), truth.view(), &weight.at(0, 0), nullptr, y); }));
          b.ciou_loss_backward(boxes.view(), truth.view(), &weight.at(0, 0), &box_scale, dboxes.view());
          out.push_back(sum_of([&](float* y) { b.dfl_loss(logits.view(), distance.view(), &weight.at(0, 0), y); }));
          b.dfl_loss_backward(logits.view(), distance.view(), &weight.at(0, 0), &bin_scale, dlogits.view(), false);
          b.dfl_loss_backward(logits.view(), distance.view(), &weight.at(0, 0), &bin_scale, sum.view(), true);
          for (const Rows* r : {&ciou, &dboxes, &dlogits, &sum}) append(out, *r);
          return out;
        },
        1e-6, 5e-7);
  }
}

TEST_CASE("mask_loss: overlapping index map and separate planes, boxes that leave the image or are empty") {
  for (int64_t k : {32, 32, 7, 40}) {
    for (bool overlap : {true, false}) {
      CAPTURE(k);
      CAPTURE(overlap);
      const int64_t images = 3, h = 37, w = 41, count = 30;
      Rows coefficients = Rows::random(count, k, 4, 14),
           prototypes = Rows::random(images * h * w, k, k == 32 ? 0 : 2, 15, -0.6f, 0.6f);
      std::mt19937 generator(16);
      std::vector<int32_t> masks(size_t((overlap ? images : 5) * h * w)), image, target;
      for (int32_t& m : masks) m = int32_t(generator() % (overlap ? 4 : 2));
      std::vector<float> boxes = uniform(size_t(count) * 4, 17, -5, 40), area = uniform(size_t(count), 18, 0.05f, 0.5f);
      for (size_t i = 0; i < size_t(count); ++i) {
        image.push_back(int32_t(generator() % uint32_t(images)));
        target.push_back(int32_t(overlap ? 1 + generator() % 3 : generator() % 5));
        if (i == 3) continue;  // corners as they come, perhaps empty
        if (i % 3 == 0) boxes[4 * i] = std::floor(boxes[4 * i]), boxes[4 * i + 1] = std::floor(boxes[4 * i + 1]);
        boxes[4 * i + 2] = boxes[4 * i] + std::abs(boxes[4 * i + 2]);
        boxes[4 * i + 3] = boxes[4 * i + 1] + std::abs(boxes[4 * i + 3]);
      }
      const MaskLossItems items{count, image.data(), target.data(), boxes.data(), area.data(), overlap};
      const Rows old_c = Rows::random(count, k, 0, 19), old_p = Rows::random(images * h * w, k, 1, 20);
      compare(
          [&](Backend& b) {
            const float scale = 2.5f;
            Rows dc = old_c, dp = old_p;
            b.mask_loss_backward(coefficients.view(), prototypes.image(images, h, w), masks.data(), items, &scale, dc.view(),
                                 dp.image(images, h, w));
            Outputs out{sum_of([&](float* y) { b.mask_loss(coefficients.view(), prototypes.image(images, h, w), masks.data(), items, y); })};
            append(out, dc);
            append(out, dp);
            return out;
          },
          3e-6, 1e-6);
    }
  }
}
