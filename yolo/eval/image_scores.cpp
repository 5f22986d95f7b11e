#include "yolo/eval/image_scores.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "tensor/base/check.h"
#include "tensor/base/csv_field.h"

namespace tessera {

double ImageScore::mask_f1() const {
  const int64_t all = 2 * mask.tp + mask.errors();
  return all == 0 ? 1 : 2 * double(mask.tp) / double(all);
}

std::vector<size_t> ImageScores::worst_first() const {
  std::vector<size_t> order(images.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const ImageScore &x = images[a], &y = images[b];
    return x.mask.errors() != y.mask.errors() ? x.mask.errors() > y.mask.errors() : x.mask_iou < y.mask_iou;
  });
  return order;
}

void count_matches(std::span<const DetectionMatch> box, std::span<const DetectionMatch> mask, ImageScores& scores) {
  TESSERA_CHECK(box.size() == mask.size(), "count_matches: {} boxes, {} masks", box.size(), mask.size());
  for (size_t i = 0; i < mask.size(); ++i) {
    if (!(mask[i].score >= scores.confidence)) continue;
    ImageScore& image = scores.images[size_t(mask[i].image)];
    ++image.detections;
    image.mask.tp += mask[i].iou > 0;
    image.mask_iou += mask[i].iou;  // a sum as yet
  }
  for (const DetectionMatch& m : box) {
    if (m.score >= scores.confidence) scores.images[size_t(m.image)].box.tp += m.iou > 0;
  }
  for (ImageScore& image : scores.images) {
    for (ImageScore::Counts* c : {&image.box, &image.mask}) c->fp = image.detections - c->tp, c->fn = image.objects - c->tp;
    if (image.mask.tp > 0) image.mask_iou /= double(image.mask.tp);
  }
}

std::string to_csv(const ImageScores& scores, const std::function<std::string(int64_t index)>& file) {
  std::string text = "image,objects,detections,box_tp,box_fp,box_fn,mask_tp,mask_fp,mask_fn,mask_f1,mask_iou,confidence\n";
  for (const size_t i : scores.worst_first()) {
    const ImageScore& s = scores.images[i];
    fmt::format_to(std::back_inserter(text), "{},{},{},{},{},{},{},{},{},{:.4f},{},{:g}\n", csv_field(file(s.index)), s.objects,
                   s.detections, s.box.tp, s.box.fp, s.box.fn, s.mask.tp, s.mask.fp, s.mask.fn, s.mask_f1(),
                   s.mask.tp > 0 ? fmt::format("{:.4f}", s.mask_iou) : "", scores.confidence);
  }
  return text;
}

}  // namespace tessera
