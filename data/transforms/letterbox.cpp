#include "data/transforms/letterbox.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "tensor/base/check.h"

namespace tessera {

namespace {
int round_even(double x) { return int(std::nearbyint(x)); }
}  // namespace

Size dataset_size(Size image, Size within) {
  const double r = std::min(double(within.height) / image.height, double(within.width) / image.width);
  if (r == 1) return image;
  return {std::min(int(std::ceil(image.height * r)), within.height), std::min(int(std::ceil(image.width * r)), within.width)};
}

LetterboxPlan plan_letterbox(Size image, Size target, const LetterboxOptions& options) {
  LetterboxPlan plan;
  plan.ratio = std::min(double(target.height) / image.height, double(target.width) / image.width);
  if (!options.scaleup) plan.ratio = std::min(plan.ratio, 1.0);
  plan.resized_width = std::max(round_even(image.width * plan.ratio), 1);  // a hair-thin image keeps one pixel
  plan.resized_height = std::max(round_even(image.height * plan.ratio), 1);
  double dw = target.width - plan.resized_width, dh = target.height - plan.resized_height;
  if (options.auto_shape) dw = std::fmod(dw, options.stride), dh = std::fmod(dh, options.stride);
  dw /= 2;
  dh /= 2;
  plan.top = round_even(dh - 0.1);
  plan.bottom = round_even(dh + 0.1);
  plan.left = round_even(dw - 0.1);
  plan.right = round_even(dw + 0.1);
  return plan;
}

void letterbox(const Image& image, const LetterboxPlan& plan, uint8_t* out) {
  const bool same = image.height == plan.resized_height && image.width == plan.resized_width;
  Image resized;
  if (!same) resized = resize_bilinear(image, plan.resized_height, plan.resized_width);
  const Image& inner = same ? image : resized;
  const size_t left = size_t(plan.left) * 3, middle = size_t(inner.width) * 3, right = size_t(plan.right) * 3;
  for (int y = 0; y < plan.height(); ++y) {
    uint8_t* row = out + size_t(y) * (left + middle + right);
    if (y < plan.top || y >= plan.top + inner.height) {
      std::memset(row, kBorderValue, left + middle + right);
      continue;
    }
    std::memset(row, kBorderValue, left);
    std::memcpy(row + left, inner.row(y - plan.top), middle);
    std::memset(row + left + middle, kBorderValue, right);
  }
}

Image letterbox(const Image& image, const LetterboxPlan& plan) {
  Image out(plan.height(), plan.width());
  letterbox(image, plan, out.pixels.data());
  return out;
}

void letterbox(std::vector<Instance>& instances, const LetterboxPlan& plan) {
  const float r = float(plan.ratio), dx = float(plan.left), dy = float(plan.top);
  for (Instance& i : instances) {
    i.box = {i.box.x1 * r + dx, i.box.y1 * r + dy, i.box.x2 * r + dx, i.box.y2 * r + dy};
    for (Point& p : i.polygon) p = {p.x * r + dx, p.y * r + dy};
  }
}

RectBatches rect_batches(std::span<const Size> sizes, int64_t batch, int imgsz, int stride, double pad) {
  TESSERA_CHECK(batch > 0, "rect_batches: batch = {}", batch);
  RectBatches out;
  out.order.resize(sizes.size());
  std::iota(out.order.begin(), out.order.end(), int64_t(0));
  const auto aspect = [&](int64_t i) { return double(sizes[size_t(i)].height) / sizes[size_t(i)].width; };
  std::stable_sort(out.order.begin(), out.order.end(), [&](int64_t a, int64_t b) { return aspect(a) < aspect(b); });
  for (size_t first = 0; first < sizes.size(); first += size_t(batch)) {
    const size_t last = std::min(first + size_t(batch), sizes.size()) - 1;
    const double low = aspect(out.order[first]), high = aspect(out.order[last]);
    double h = 1, w = 1;
    if (high < 1)
      h = high;
    else if (low > 1)
      w = 1 / low;
    const auto side = [&](double factor) { return int(std::ceil(factor * imgsz / stride + pad)) * stride; };
    out.shapes.push_back({side(h), side(w)});
  }
  return out;
}

}  // namespace tessera
