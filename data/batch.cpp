#include "data/batch.h"

#include <algorithm>
#include <cstring>

namespace tessera {

Batch collate(std::vector<Sample>&& samples, Tensor images) {
  TESSERA_CHECK(!samples.empty(), "collate: no samples");
  const Sample& first = samples[0];
  int64_t targets = 0;
  for (const Sample& s : samples) {
    TESSERA_CHECK(s.height == first.height && s.width == first.width && s.mask_height == first.mask_height &&
                      s.mask_width == first.mask_width && s.overlap == first.overlap && s.plan.has_value() == first.plan.has_value(),
                  "collate: {} is {}x{}, {} is {}x{}", first.file, first.height, first.width, s.file, s.height, s.width);
    targets += int64_t(s.targets.size());
  }
  const int64_t n = int64_t(samples.size());
  Batch batch;
  batch.overlap = first.overlap;
  if (first.plan) {
    std::vector<PixelPlan> plans;
    for (Sample& s : samples) plans.push_back(std::move(*s.plan));
    batch.tiles = pack_tiles(plans, first.height, first.width);
  } else {
    const Shape shape = {n, first.height, first.width, 3};
    TESSERA_CHECK(!images.defined() || images.shape() == shape, "collate: images {}, samples {}", to_string(images.shape()),
                  to_string(shape));
    batch.images = images.defined() ? std::move(images) : Tensor::empty(shape, DType::kU8);
  }
  batch.masks = Tensor::empty({batch.overlap ? n : targets, first.mask_height, first.mask_width}, DType::kI32);
  batch.targets.reserve(size_t(targets));
  batch.target_image.reserve(size_t(targets));
  auto* masks = batch.masks.data<int32_t>();
  for (int64_t i = 0; i < n; ++i) {
    Sample& s = samples[size_t(i)];
    if (!s.pixels.empty())
      std::memcpy(batch.images.data<uint8_t>() + size_t(i) * s.pixels.size(), s.pixels.data(), s.pixels.size());
    masks = std::copy(s.masks.begin(), s.masks.end(), masks);
    batch.targets.insert(batch.targets.end(), s.targets.begin(), s.targets.end());
    batch.target_image.insert(batch.target_image.end(), s.targets.size(), int32_t(i));
    batch.files.push_back(std::move(s.file));
    batch.indices.push_back(s.index);
    batch.geometry.push_back(s.geometry);
  }
  return batch;
}

}  // namespace tessera
