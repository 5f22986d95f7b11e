#include "tensor/ops/losses.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
void check_wide(std::string_view op, std::string_view what, const Tensor& t) {
  check_defined(op, what, t);
  TESSERA_CHECK(t.dtype() == DType::kF32 || t.dtype() == DType::kF64, "{}: got {} {}, expected f32 or f64", op, what, describe(t));
}

Tensor scalar_like(const Tensor& x) { return Tensor::empty({}, x.dtype(), x.device()); }

// Where a sum goes.
Tensor sum_for(std::string_view op, const Tensor& x, const Tensor& into) {
  if (!into.defined()) return scalar_like(x);
  check_vector(op, "into", into, 1, x);
  into.bump_version();
  return into;
}

struct LabelledRows {
  std::vector<Tensor> x;
  std::vector<RowsView> views;
};
LabelledRows check_labels(std::string_view op, std::span<const Tensor> x, const Tensor& label, const Tensor& score) {
  TESSERA_CHECK(!x.empty() && x.size() <= kMostMaps, "{}: got {} maps, expected 1 .. {}", op, x.size(), kMostMaps);
  LabelledRows all;
  int64_t rows = 0;
  for (const Tensor& map : x) {
    check_wide(op, "x", map);
    TESSERA_CHECK(map.rank() >= 1 && map.dtype() == x[0].dtype() && map.device() == x[0].device() && map.size(-1) == x[0].size(-1),
                  "{}: got x {} beside {}, expected (rows..., classes) of the same type, place and classes", op, describe(map),
                  describe(x[0]));
    all.views.push_back(all.x.emplace_back(readable(map)).rows());
    rows += all.views.back().rows;
  }
  check_vector(op, "label", label, rows, DType::kI32, x[0].device());
  check_vector(op, "score", score, rows, DType::kF32, x[0].device());
  if (x[0].device().kind != Device::Kind::kCpu) return all;
  const auto* const p = label.data<int32_t>();
  for (int64_t i = 0; i < rows; ++i) {
    TESSERA_CHECK(p[i] >= -1 && p[i] < x[0].size(-1), "{}: got label[{}] = {}, expected -1 <= label < {}", op, i, p[i], x[0].size(-1));
  }
  return all;
}

void check_boxes(std::string_view op, const Tensor& boxes, const Tensor& target, const Tensor& weight) {
  check_wide(op, "boxes", boxes);
  TESSERA_CHECK(boxes.rank() == 2 && boxes.shape()[1] == 4, "{}: got boxes {}, expected (n, 4)", op, describe(boxes));
  check_like(op, "target", target, boxes.shape(), boxes);
  check_vector(op, "weight", weight, boxes.shape()[0], boxes);
}

void check_dfl(std::string_view op, const Tensor& logits, const Tensor& target, const Tensor& weight) {
  check_wide(op, "logits", logits);
  TESSERA_CHECK(logits.rank() == 2 && logits.shape()[1] % 4 == 0 && logits.shape()[1] >= 8,
                "{}: got logits {}, expected (n, 4 * bins) with two bins or more", op, describe(logits));
  check_like(op, "target", target, {logits.shape()[0], 4}, logits);
  check_vector(op, "weight", weight, logits.shape()[0], logits);
}

void check_mask(std::string_view op, const Tensor& coefficients, const Tensor& prototypes, const Tensor& masks,
                const MaskLossItems& items) {
  check_defined(op, "prototypes", prototypes);
  if (!is_floating(prototypes.dtype()) || !backend_for(prototypes.device()).losses_take_narrow()) check_wide(op, "prototypes", prototypes);
  TESSERA_CHECK(prototypes.rank() == 4, "{}: got prototypes {}, expected (N, mh, mw, k)", op, describe(prototypes));
  const Shape& s = prototypes.shape();
  check_type_and_device(op, "coefficients", coefficients, wide_of(prototypes.dtype()), prototypes.device());
  check_like(op, "coefficients", coefficients, {items.count, s[3]}, coefficients);
  check_type_and_device(op, "masks", masks, DType::kI32, prototypes.device());
  TESSERA_CHECK(masks.rank() == 3 && masks.is_dense() && masks.shape()[1] == s[1] && masks.shape()[2] == s[2] &&
                    (!items.overlap || masks.shape()[0] == s[0]),
                "{}: got masks {}, expected dense ({}, {}, {})", op, describe(masks),
                items.overlap ? std::to_string(s[0]) : "planes", s[1], s[2]);
  if (prototypes.device().kind != Device::Kind::kCpu) return;
  for (int64_t i = 0; i < items.count; ++i) {
    TESSERA_CHECK(items.image[i] >= 0 && items.image[i] < s[0], "{}: got image[{}] = {}, expected 0 <= image < {}", op, i,
                  items.image[i], s[0]);
    TESSERA_CHECK(items.overlap || (items.target[i] >= 0 && items.target[i] < masks.shape()[0]),
                  "{}: got target[{}] = {}, expected 0 <= target < {}", op, i, items.target[i], masks.shape()[0]);
    TESSERA_CHECK(items.area[i] > 0, "{}: got area[{}] = {}, expected a positive number", op, i, items.area[i]);
  }
}
}  // namespace

Tensor bce_with_logits(const Tensor& x, const Tensor& target) {
  check_wide("bce_with_logits", "x", x);
  check_like("bce_with_logits", "target", target, x.shape(), x);
  const Tensor in = readable(x);
  const Tensor wanted = readable(target);
  Tensor sum = scalar_like(x);
  backend_for(x.device()).bce_with_logits(in.rows(), wanted.rows(), sum.raw());
  return sum;
}

void bce_with_logits_backward(const Tensor& x, const Tensor& target, const Tensor& scale, const Tensor& dx, bool accumulate) {
  check_wide("bce_with_logits_backward", "x", x);
  check_like("bce_with_logits_backward", "target", target, x.shape(), x);
  check_like("bce_with_logits_backward", "dx", dx, x.shape(), x);
  check_vector("bce_with_logits_backward", "scale", scale, 1, x);
  const Tensor in = readable(x);
  const Tensor wanted = readable(target);
  const RowsView gradient = written("bce_with_logits_backward", "dx", dx).rows();
  backend_for(x.device()).bce_with_logits_backward(in.rows(), wanted.rows(), scale.raw(), gradient, accumulate);
}

Tensor bce_with_labels(std::span<const Tensor> x, const Tensor& label, const Tensor& score, const Tensor& into) {
  const LabelledRows all = check_labels("bce_with_labels", x, label, score);
  Tensor sum = sum_for("bce_with_labels", x[0], into);
  backend_for(sum.device()).bce_with_labels(all.views, label.data<int32_t>(), score.data<float>(), sum.raw());
  return sum;
}

std::vector<Tensor> bce_with_labels_backward(std::span<const Tensor> x, const Tensor& label, const Tensor& score,
                                             const Tensor& scale) {
  return bce_with_labels_backward(x, label, score, scale, x.empty() ? DType::kF32 : x[0].dtype());
}

std::vector<Tensor> bce_with_labels_backward(std::span<const Tensor> x, const Tensor& label, const Tensor& score,
                                             const Tensor& scale, DType type) {
  const LabelledRows all = check_labels("bce_with_labels_backward", x, label, score);
  const bool narrow = type != x[0].dtype() && wide_of(type) == x[0].dtype();
  TESSERA_CHECK(type == x[0].dtype() || (narrow && backend_for(x[0].device()).losses_take_narrow()),
                "bce_with_labels_backward: got gradients of {} for logits {}", name_of(type), describe(x[0]));
  check_vector("bce_with_labels_backward", "scale", scale, 1, x[0]);
  std::vector<Tensor> dx;
  std::vector<RowsView> views;
  for (const Tensor& map : x) views.push_back(dx.emplace_back(Tensor::empty(map.shape(), type, map.device())).rows());
  backend_for(scale.device())
      .bce_with_labels_backward(all.views, label.data<int32_t>(), score.data<float>(), scale.raw(), views);
  return dx;
}

Tensor ciou_loss(const Tensor& boxes, const Tensor& target, const Tensor& weight, const Tensor& ciou, const Tensor& into) {
  check_boxes("ciou_loss", boxes, target, weight);
  void* values = nullptr;
  if (ciou.defined()) {
    check_vector("ciou_loss", "ciou", ciou, boxes.shape()[0], boxes);
    ciou.bump_version();
    values = ciou.raw();
  }
  const Tensor in = readable(boxes);
  const Tensor wanted = readable(target);
  Tensor sum = sum_for("ciou_loss", boxes, into);
  backend_for(boxes.device()).ciou_loss(in.rows(), wanted.rows(), weight.raw(), values, sum.raw());
  return sum;
}

Tensor ciou_loss_backward(const Tensor& boxes, const Tensor& target, const Tensor& weight, const Tensor& scale) {
  check_boxes("ciou_loss_backward", boxes, target, weight);
  check_vector("ciou_loss_backward", "scale", scale, 1, boxes);
  const Tensor in = readable(boxes);
  const Tensor wanted = readable(target);
  Tensor dboxes = Tensor::empty(boxes.shape(), boxes.dtype(), boxes.device());
  backend_for(boxes.device()).ciou_loss_backward(in.rows(), wanted.rows(), weight.raw(), scale.raw(), dboxes.rows());
  return dboxes;
}

Tensor dfl_loss(const Tensor& logits, const Tensor& target, const Tensor& weight, const Tensor& into) {
  check_dfl("dfl_loss", logits, target, weight);
  const Tensor in = readable(logits);
  const Tensor wanted = readable(target);
  Tensor sum = sum_for("dfl_loss", logits, into);
  backend_for(logits.device()).dfl_loss(in.rows(), wanted.rows(), weight.raw(), sum.raw());
  return sum;
}

Tensor dfl_loss_backward(const Tensor& logits, const Tensor& target, const Tensor& weight, const Tensor& scale) {
  check_dfl("dfl_loss_backward", logits, target, weight);
  check_vector("dfl_loss_backward", "scale", scale, 1, logits);
  const Tensor in = readable(logits);
  const Tensor wanted = readable(target);
  Tensor dlogits = Tensor::empty(logits.shape(), logits.dtype(), logits.device());
  backend_for(logits.device())
      .dfl_loss_backward(in.rows(), wanted.rows(), weight.raw(), scale.raw(), dlogits.rows(), /*accumulate=*/false);
  return dlogits;
}

Tensor mask_loss(const Tensor& coefficients, const Tensor& prototypes, const Tensor& masks, const MaskLossItems& items,
                 const Tensor& into) {
  check_mask("mask_loss", coefficients, prototypes, masks, items);
  const Tensor c = readable(coefficients);
  const Tensor p = readable(prototypes);
  Tensor sum = sum_for("mask_loss", c, into);
  backend_for(p.device()).mask_loss(c.rows(), p.image(), masks.data<int32_t>(), items, sum.raw());
  return sum;
}

void mask_loss_backward(const Tensor& coefficients, const Tensor& prototypes, const Tensor& masks, const MaskLossItems& items,
                        const Tensor& scale, const Tensor& dcoefficients, const Tensor& dprototypes) {
  check_mask("mask_loss_backward", coefficients, prototypes, masks, items);
  check_vector("mask_loss_backward", "scale", scale, 1, coefficients);
  check_like("mask_loss_backward", "dcoefficients", dcoefficients, coefficients.shape(), coefficients);
  check_like("mask_loss_backward", "dprototypes", dprototypes, prototypes.shape(), prototypes);
  const Tensor c = readable(coefficients);
  const Tensor p = readable(prototypes);
  const RowsView dc = written("mask_loss_backward", "dcoefficients", dcoefficients).rows();
  const ImageView dp = written("mask_loss_backward", "dprototypes", dprototypes).image();
  backend_for(p.device()).mask_loss_backward(c.rows(), p.image(), masks.data<int32_t>(), items, scale.raw(), dc, dp);
}

}  // namespace tessera::ops
