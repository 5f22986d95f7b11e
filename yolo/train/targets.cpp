#include "yolo/train/targets.h"

#include <algorithm>

namespace tessera {

PaddedTargets pad_targets(const std::vector<Target>& targets, const std::vector<int32_t>& target_image, int64_t images,
                          int64_t height, int64_t width) {
  TESSERA_CHECK(targets.size() == target_image.size(), "{} targets with {} image numbers", targets.size(), target_image.size());
  std::vector<int64_t> filled(size_t(images), 0);
  for (int32_t image : target_image) {
    TESSERA_CHECK(image >= 0 && image < images, "target of image {} in a batch of {}", image, images);
    ++filled[size_t(image)];
  }
  PaddedTargets out;
  out.images = images;
  out.width = images > 0 ? *std::max_element(filled.begin(), filled.end()) : 0;
  const size_t n = size_t(images * out.width);
  out.classes.assign(n, 0);
  out.boxes.assign(n, {});
  out.valid.assign(n, 0);
  out.source.assign(n, -1);
  std::fill(filled.begin(), filled.end(), 0);
  const float w = float(width), h = float(height);
  for (size_t t = 0; t < targets.size(); ++t) {
    const size_t i = out.at(target_image[t], filled[size_t(target_image[t])]++);
    const auto [cx, cy, bw, bh] = targets[t].box;
    const std::array<float, 4> box{cx * w - bw * w / 2, cy * h - bh * h / 2, cx * w + bw * w / 2, cy * h + bh * h / 2};
    out.classes[i] = targets[t].class_id;
    out.boxes[i] = box;
    out.valid[i] = box[0] + box[1] + box[2] + box[3] > 0;
    out.source[i] = int32_t(t);
  }
  return out;
}

Anchors make_anchors(const std::array<std::array<int64_t, 2>, kLevels>& maps, int64_t image_height) {
  Anchors a;
  for (size_t level = 0; level < kLevels; ++level) {
    const auto [rows, cols] = maps[level];
    a.level_stride[level] = image_height / rows;
    const float stride = float(a.level_stride[level]);
    for (int64_t y = 0; y < rows; ++y) {
      for (int64_t x = 0; x < cols; ++x) {
        a.x.push_back((float(x) + 0.5f) * stride);
        a.y.push_back((float(y) + 0.5f) * stride);
        a.stride.push_back(stride);
      }
    }
    a.first[level + 1] = int64_t(a.x.size());
  }
  return a;
}

}  // namespace tessera
