// Mask loss: the logits of an object are formed only inside its box, row by row, and never stored as an image.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/mask_loss.cpp"
#include <cmath>

#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/cross_entropy-inl.h"
#include "tensor/cpu/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

// First whole number >= v, kept in [0, size]: pixels with v <= p start here, pixels with p < v end here.
int64_t first_pixel(float v, int64_t size, int64_t if_nan) {
  if (std::isnan(v)) return if_nan;
  return int64_t(std::clamp(std::ceil(double(v)), 0.0, double(size)));
}

struct Box {
  Box(const float* corners, int64_t w, int64_t h)
      : x0(first_pixel(corners[0], w, 0)),
        y0(first_pixel(corners[1], h, 0)),
        x1(first_pixel(corners[2], w, w)),
        y1(first_pixel(corners[3], h, h)) {}
  size_t width() const { return size_t(x1 - x0); }
  bool empty() const { return x1 <= x0 || y1 <= y0; }
  int64_t x0, y0, x1, y1;
};

// Sums of the blocks of four lanes of a vector.
template <class D>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> sum_of_blocks(D /*d*/, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return sum_of_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// The sums of the lanes of four vectors.
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> sums_of_four(V a, V b, V c, V d) {
  // Within each block of four lanes: (a0+a2, b0+b2, a1+a3, b1+b3), then (a, b, c, d).
  const hn::RepartitionToWide<F32> pairs;
  const F32 f;
  const auto ab = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(f, a, b), hn::InterleaveUpper(f, a, b)));
  const auto cd = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(f, c, d), hn::InterleaveUpper(f, c, d)));
  const V blocks = hn::Add(hn::BitCast(f, hn::InterleaveLower(pairs, ab, cd)), hn::BitCast(f, hn::InterleaveUpper(pairs, ab, cd)));
  return sum_of_blocks(f, blocks);
}

// What both directions need of one call.
struct Problem {
  RowsView coefficients;
  ImageView prototypes;
  const int32_t* masks;
  const MaskLossItems& items;

  const float* prototype(int64_t image, int64_t y, int64_t x) const {
    return data<const float>(prototypes) + ((image * prototypes.h + y) * prototypes.w + x) * prototypes.pitch;
  }
  Box box(int64_t item) const { return Box(items.boxes + 4 * item, prototypes.w, prototypes.h); }

  // Logits of the pixels of row y of the item's box, and their targets as 0 or 1. The buffers hold prototypes.w + 4 values.
  HWY_INLINE void logits_and_targets(int64_t item, const Box& b, int64_t y, float* logit, float* target) const {
    const size_t n = b.width();
    const float* row = prototype(items.image[item], y, b.x0);
    const float* c = at(coefficients, item);
    for (size_t i = 0; i < n; i += 4) {
      const float* p[4];
      for (size_t j = 0; j < 4; ++j) p[j] = row + int64_t(std::min(i + j, n - 1)) * prototypes.pitch;
      V sum[4] = {hn::Zero(F32()), hn::Zero(F32()), hn::Zero(F32()), hn::Zero(F32())};
      for_each_vector(size_t(prototypes.c), [&](size_t k, auto part) HWY_ATTR {
        const V weight = part.get(c + k);
        for (size_t j = 0; j < 4; ++j) sum[j] = hn::MulAdd(part.get(p[j] + k), weight, sum[j]);
      });
      hn::StoreU(sums_of_four(sum[0], sum[1], sum[2], sum[3]), hn::FixedTag<float, 4>(), logit + i);
    }
    const int64_t plane = items.overlap ? items.image[item] : items.target[item];
    const int32_t* mask = masks + (plane * prototypes.h + y) * prototypes.w + b.x0;
    const int32_t wanted = items.target[item];
    for (size_t i = 0; i < n; ++i) target[i] = (items.overlap ? mask[i] == wanted : mask[i] != 0) ? 1.0f : 0.0f;
  }
};

// Two buffers of one row each.
struct RowBuffers {
  explicit RowBuffers(int64_t width) : logit(size_t(width) + 4), target(size_t(width) + 4) {}
  std::vector<float> logit, target;
};

// The work is cut into bands of rows of one image. A band is done for all items that reach into it, in order, while its prototypes
// are in the L2 cache; each item and band has a slot for its sums, and the slots are joined in order at the end.
class Bands {
 public:
  static constexpr int64_t kRows = 8;

  explicit Bands(const Problem& problem)
      : problem_(problem),
        per_image_((problem.prototypes.h + kRows - 1) / kRows),
        of_image_(size_t(problem.prototypes.n)),
        slot_(size_t(problem.items.count) + 1) {
    for (int64_t i = 0; i < problem.items.count; ++i) {
      const Box b = problem.box(i);
      const int64_t touched = b.empty() ? 0 : (b.y1 - 1) / kRows - b.y0 / kRows + 1;
      slot_[size_t(i) + 1] = slot_[size_t(i)] + size_t(touched);
      if (touched != 0) of_image_[size_t(problem.items.image[i])].push_back(i);
    }
  }

  size_t slots() const { return slot_.back(); }
  size_t first_slot(int64_t item) const { return slot_[size_t(item)]; }

  // Calls body(item, box, y, slot, buffers) for each row of each item's box; different bands in parallel.
  template <class F>
  void for_each_row(const F& body) const {
    parallel_chunks(problem_.prototypes.n * per_image_, [&](int64_t chunk) HWY_ATTR {
      const int64_t image = chunk / per_image_, band = chunk % per_image_;
      RowBuffers buffers(problem_.prototypes.w);
      for (int64_t i : of_image_[size_t(image)]) {
        const Box b = problem_.box(i);
        const int64_t begin = std::max(b.y0, band * kRows), end = std::min(b.y1, (band + 1) * kRows);
        const size_t slot = first_slot(i) + size_t(band - b.y0 / kRows);
        for (int64_t y = begin; y < end; ++y) body(i, b, y, slot, buffers);
      }
    });
  }

 private:
  const Problem& problem_;
  int64_t per_image_;
  std::vector<std::vector<int64_t>> of_image_;
  std::vector<size_t> slot_;
};

double MaskLoss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items) {
  const Problem problem{coefficients, prototypes, masks, items};
  const Bands bands(problem);
  std::vector<double> sums(bands.slots());
  bands.for_each_row([&](int64_t i, const Box& b, int64_t y, size_t slot, RowBuffers& row) HWY_ATTR {
    problem.logits_and_targets(i, b, y, row.logit.data(), row.target.data());
    sums[slot] += sum_run(
        b.width(), [](V x, V t) HWY_ATTR { return cross_entropy(x, t); }, std::as_const(row.logit).data(),
        std::as_const(row.target).data());
  });
  double total = 0;
  for (int64_t i = 0; i < items.count; ++i) {
    double of_item = 0;
    for (size_t s = bands.first_slot(i); s < bands.first_slot(i + 1); ++s) of_item += sums[s];
    if (of_item != 0) total += of_item / double(prototypes.h * prototypes.w) / double(items.area[i]);
  }
  return total;
}

// A band belongs to one thread, which alone adds to the gradient of its prototypes.
void MaskLossBackward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, double scale,
                      RowsView dcoefficients, ImageView dprototypes) {
  const Problem problem{coefficients, prototypes, masks, items};
  const Bands bands(problem);
  const auto k = size_t(prototypes.c);
  std::vector<float> sums(bands.slots() * k);
  bands.for_each_row([&](int64_t i, const Box& b, int64_t y, size_t slot, RowBuffers& row) HWY_ATTR {
    float* gradient = row.logit.data();
    problem.logits_and_targets(i, b, y, gradient, row.target.data());
    const V factor = splat(float(scale / double(prototypes.h * prototypes.w) / double(items.area[i])));
    map_run(
        b.width(), gradient, false, [=](V x, V t) HWY_ATTR { return hn::Mul(hn::Sub(sigmoid(x), t), factor); },
        std::as_const(row.logit).data(), std::as_const(row.target).data());
    const float* p = problem.prototype(items.image[i], y, b.x0);
    float* dp = data<float>(dprototypes) + ((items.image[i] * prototypes.h + y) * prototypes.w + b.x0) * dprototypes.pitch;
    for_each_vector(k, [&](size_t c, auto part) HWY_ATTR {
      const V weight = part.get(at(coefficients, i) + c);
      V of_row = hn::Zero(F32());
      for (size_t x = 0; x < b.width(); ++x) {
        const V g = splat(gradient[x]);
        float* out = dp + int64_t(x) * dprototypes.pitch + c;
        of_row = hn::MulAdd(g, part.get(p + int64_t(x) * prototypes.pitch + c), of_row);
        part.put(hn::MulAdd(g, weight, part.get(out)), out);
      }
      float* sum = sums.data() + slot * k + c;
      part.put(hn::Add(part.get(sum), of_row), sum);
    });
  });
  for (int64_t i = 0; i < items.count; ++i) {
    float* out = at(dcoefficients, i);
    for (size_t c = 0; c < k; ++c) {
      double total = 0;
      for (size_t s = bands.first_slot(i); s < bands.first_slot(i + 1); ++s) total += double(sums[s * k + c]);
      out[c] = float(total);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(MaskLoss);
HWY_EXPORT(MaskLossBackward);

double mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items) {
  return HWY_DYNAMIC_DISPATCH(MaskLoss)(coefficients, prototypes, masks, items);
}
void mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, double scale,
                        RowsView dcoefficients, ImageView dprototypes) {
  HWY_DYNAMIC_DISPATCH(MaskLossBackward)(coefficients, prototypes, masks, items, scale, dcoefficients, dprototypes);
}

}  // namespace tessera::cpu
#endif
