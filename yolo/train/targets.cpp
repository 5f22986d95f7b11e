#include "yolo/train/targets.h"

#include <algorithm>

namespace tessera {

PaddedTargets pad_targets(const std::vector<Target>& targets, const std::vector<int32_t>& target_image, bool overlap,
                          int64_t images, int64_t height, int64_t width, int64_t room) {
  TESSERA_CHECK(targets.size() == target_image.size(), "{} targets with {} image numbers", targets.size(), target_image.size());
  std::vector<int64_t> filled(size_t(images), 0);
  for (int32_t image : target_image) {
    TESSERA_CHECK(image >= 0 && image < images, "target of image {} in a batch of {}", image, images);
    room = std::max(room, ++filled[size_t(image)]);
  }
  PaddedTargets out{Tensor::zeros({images, room, 4}), Tensor::full({images, room}, -1, DType::kI32),
                    Tensor::zeros({images, room}, DType::kI32)};
  std::fill(filled.begin(), filled.end(), 0);
  const float w = float(width), h = float(height);
  for (size_t t = 0; t < targets.size(); ++t) {
    const int32_t class_id = targets[t].class_id;
    TESSERA_CHECK(class_id >= 0, "target {} has class {}", t, class_id);
    const int64_t column = filled[size_t(target_image[t])]++;
    const int64_t at = target_image[t] * room + column;
    const auto [cx, cy, bw, bh] = targets[t].box;
    const std::array<float, 4> box{cx * w - bw * w / 2, cy * h - bh * h / 2, cx * w + bw * w / 2, cy * h + bh * h / 2};
    std::copy(box.begin(), box.end(), out.boxes.data<float>() + 4 * at);
    if (box[0] + box[1] + box[2] + box[3] > 0) out.classes.data<int32_t>()[at] = class_id;
    out.mask_ids.data<int32_t>()[at] = int32_t(overlap ? column + 1 : int64_t(t));
    out.largest_class = std::max(out.largest_class, class_id);
  }
  return out;
}

}  // namespace tessera
