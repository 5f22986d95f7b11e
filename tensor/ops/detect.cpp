#include "tensor/ops/detect.h"

#include <algorithm>
#include <vector>

#include "tensor/ops/checks.h"
#include "tensor/ops/detect_math.h"

namespace tessera {

void DetectOps::each_mask(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, const TakeMask& take) {
  for (size_t i = 0; i < items.size(); ++i) {
    MaskItem item = items[i];
    item.offset = 0;
    std::vector<uint32_t> words(size_t(item.words()));
    mask_patches(prototypes, coefficients, {&item, 1}, words.data());
    take(int64_t(i), words.data());
  }
}

namespace ops {

namespace {

DetectInput input_of(const DetectMaps& maps) {
  constexpr std::string_view op = "detect";
  check_defined(op, "box map", maps.box[0]);
  const Device device = maps.box[0].device();
  DetectInput in{};
  in.decoded = maps.decoded;
  const int64_t box_channels = maps.decoded ? 4 : detect_math::kSides * detect_math::kBins;
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    const Tensor &box = maps.box[i], &cls = maps.cls[i], &coefficients = maps.coefficients[i];
    for (const auto& [what, map] : {std::pair{"box", box}, std::pair{"cls", cls}, std::pair{"coefficients", coefficients}}) {
      check_type_and_device(op, what, map, DType::kF32, device);
      TESSERA_CHECK(map.rank() == 4 && map.size(0) == maps.box[0].size(0) && map.size(1) == box.size(1) &&
                        map.size(2) == box.size(2) && map.size(3) > 0 && map.layout() != Layout::kGeneral,
                    "{}: got {} map {} of level {}, expected ({}, {}, {}, channels) in dense or pitched rows", op, what,
                    describe(map), i, maps.box[0].size(0), box.size(1), box.size(2));
    }
    TESSERA_CHECK(
        box.size(3) == box_channels && cls.size(3) == maps.cls[0].size(3) && coefficients.size(3) == maps.coefficients[0].size(3),
        "{}: got maps {}, {}, {} of level {}, expected {} channels, and as many classes and coefficients as level 0", op,
        describe(box), describe(cls), describe(coefficients), i, box_channels);
    in.levels[i] = {box.image(), cls.image(), coefficients.image(), maps.strides[i]};
  }
  // A detection's class and anchor are floats; classes and anchors together are counted in 32 bits.
  constexpr int64_t kExact = int64_t{1} << 24, kCounted = int64_t{1} << 31;
  TESSERA_CHECK(in.classes() < kExact && in.anchors() < kExact && in.classes() * in.anchors() < kCounted,
                "{}: {} anchors and {} classes are too many", op, in.anchors(), in.classes());
  return in;
}

}  // namespace

DetectResult detect(const DetectMaps& maps, const DetectParams& params, std::span<const int32_t> classes) {
  if (!(params.confidence >= 0 && params.confidence <= 1))
    throw Error(ErrorCode::kUsage, fmt::format("conf is {}, allowed are 0 to 1", params.confidence));
  if (!(params.iou >= 0 && params.iou <= 1))
    throw Error(ErrorCode::kUsage, fmt::format("iou is {}, allowed are 0 to 1", params.iou));
  TESSERA_CHECK(params.max_detections >= 0 && params.max_candidates >= 0, "detect: got at most {} detections of {} candidates",
                params.max_detections, params.max_candidates);
  DetectInput in = input_of(maps);
  const Device device = maps.box[0].device();
  Tensor wanted;
  if (!classes.empty()) {
    std::vector<uint8_t> flags(size_t(in.classes()), 0);
    for (const int32_t c : classes) {
      if (c >= 0 && c < in.classes()) flags[size_t(c)] = 1;
    }
    wanted = Tensor::from_vector(flags, {in.classes()}).to(device);
    in.wanted = wanted.data<uint8_t>();
  }
  DetectParams fitting = params;
  const int64_t most = in.anchors() * (params.multi_label ? in.classes() : 1);
  fitting.max_detections = std::min({params.max_detections, params.max_candidates, most});
  DetectResult r{Tensor::empty({in.images(), fitting.max_detections, kDetectionColumns}, DType::kF32, device),
                 Tensor::empty({in.images(), fitting.max_detections, in.masks()}, DType::kF32, device)};
  backend_for(device).detect(in, fitting, r.detections.data<float>(), r.coefficients.data<float>());
  return r;
}

namespace {

void check_masks(std::string_view op, const Tensor& prototypes, const Tensor& coefficients, std::span<const MaskItem> items) {
  check_defined(op, "prototypes", prototypes);
  const Device device = prototypes.device();
  check_type_and_device(op, "prototypes", prototypes, DType::kF32, device);
  check_type_and_device(op, "coefficients", coefficients, DType::kF32, device);
  TESSERA_CHECK(prototypes.rank() == 4 && prototypes.layout() != Layout::kGeneral && coefficients.layout() != Layout::kGeneral &&
                    coefficients.size(-1) == prototypes.size(3),
                "{}: got prototypes {} and coefficients {}, expected (N, h, w, k) and (..., k) in dense or pitched rows", op,
                describe(prototypes), describe(coefficients));
  const ImageView p = prototypes.image();
  const RowsView k = coefficients.rows();
  const auto within = [](const PixelBox& r, int64_t h, int64_t w) {
    return r.x0 >= 0 && r.y0 >= 0 && r.x0 <= r.x1 && r.y0 <= r.y1 && r.x1 <= w && r.y1 <= h;
  };
  for (size_t i = 0; i < items.size(); ++i) {
    const MaskItem& m = items[i];
    TESSERA_CHECK(m.image >= 0 && m.image < p.n && m.row >= 0 && m.row < k.rows && within(m.slice, p.h, p.w) &&
                      m.slice.width() > 0 && m.slice.height() > 0 && within(m.where, m.height, m.width) && m.offset >= 0,
                  "{}: item {} (image {}, row {}, {} x {} pixels) reaches beyond {} and {}", op, i, m.image, m.row, m.height,
                  m.width, describe(prototypes), describe(coefficients));
  }
}

}  // namespace

void mask_patches(const Tensor& prototypes, const Tensor& coefficients, std::span<const MaskItem> items, uint32_t* words) {
  check_masks("mask_patches", prototypes, coefficients, items);
  backend_for(prototypes.device()).mask_patches(prototypes.image(), coefficients.rows(), items, words);
}

void each_mask(const Tensor& prototypes, const Tensor& coefficients, std::span<const MaskItem> items, const TakeMask& take) {
  check_masks("each_mask", prototypes, coefficients, items);
  const Device device = prototypes.device();
  TESSERA_CHECK(device == Device::cpu(), "each_mask: got prototypes {}, expected memory of the host", describe(prototypes));
  backend_for(device).each_mask(prototypes.image(), coefficients.rows(), items, take);
}

}  // namespace ops

}  // namespace tessera
