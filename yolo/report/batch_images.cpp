#include "yolo/report/batch_images.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "tensor/base/check.h"
#include "yolo/report/annotate.h"
#include "yolo/report/grid.h"

namespace tessera {

namespace {

constexpr int kMaxImages = 16;
constexpr int kSheetSide = 1440;
constexpr float kShownScore = 0.25f;

std::string class_name(const std::vector<std::string>& names, int32_t id) {
  return id >= 0 && size_t(id) < names.size() ? names[size_t(id)] : std::to_string(id);
}

Image network_image(const Tensor& images, int64_t index) {
  const Tensor one = images.select(0, index).contiguous();
  Image out(int(one.size(0)), int(one.size(1)));
  std::memcpy(out.pixels.data(), one.data<uint8_t>(), out.pixels.size());
  return out;
}

// `list` in network-input pixels.
Image drawn(const Batch& batch, int image, double factor, std::vector<Annotation> list) {
  const int height = int(batch.images.size(1)), width = int(batch.images.size(2));
  Image annotated = network_image(batch.images, image);
  if (factor >= 1) {
    annotated = enlarge(annotated, int(factor));
  } else {
    annotated =
        resize_bilinear(annotated, std::max(1, int(std::lround(height * factor))), std::max(1, int(std::lround(width * factor))));
  }
  for (Annotation& a : list) a = scaled(a, factor);
  AnnotateOptions options;
  options.font_size = 12;
  options.line_width = 2;
  annotate(annotated, list, options);
  return annotated;
}

// annotations(i): those of image i in network-input pixels.
void draw_sheet(const std::filesystem::path& file, const Batch& batch,
                const std::function<std::vector<Annotation>(int)>& annotations) {
  const int count = int(std::min<int64_t>(batch.size(), kMaxImages));
  if (count == 0) return;
  const GridPlan plan = plan_grid(count, int(batch.images.size(1)), int(batch.images.size(2)), kSheetSide);
  std::vector<Image> images;
  std::vector<std::string> captions;
  for (int i = 0; i < count; ++i) {
    images.push_back(drawn(batch, i, plan.scale, annotations(i)));
    captions.push_back(size_t(i) < batch.files.size() ? std::filesystem::path(batch.files[size_t(i)]).filename().string() : "");
  }
  write_png(file, tile_images(images, captions, plan.columns, kSheetSide + 64));
}

// The mask of target `t` (position `nth` among those of its image), its tight rectangle enlarged to network-input pixels.
Annotation label_annotation(const Batch& batch, size_t t, int64_t nth, const Tensor& masks, int height, int width) {
  const Target& target = batch.targets[t];
  const float cx = target.box[0] * float(width), cy = target.box[1] * float(height);
  const float w = target.box[2] * float(width), h = target.box[3] * float(height);
  Annotation a{target.class_id, {}, {cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2}, {}};
  if (!masks.defined() || masks.numel() == 0) return a;
  const int mask_height = int(masks.size(1)), mask_width = int(masks.size(2));
  const int64_t plane = batch.overlap ? batch.target_image[t] : int64_t(t);
  const int32_t* values = masks.data<int32_t>() + plane * mask_height * mask_width;
  const auto set = [&](int y, int x) {
    const int32_t v = values[int64_t(y) * mask_width + x];
    return batch.overlap ? v == int32_t(nth + 1) : v != 0;
  };
  PixelBox where{mask_width, mask_height, 0, 0};
  for (int y = 0; y < mask_height; ++y) {
    for (int x = 0; x < mask_width; ++x) {
      if (!set(y, x)) continue;
      where = {std::min(where.x0, x), std::min(where.y0, y), std::max(where.x1, x + 1), std::max(where.y1, y + 1)};
    }
  }
  if (where.empty()) return a;
  Annotation small{target.class_id, {}, {}, {where, {}}};
  for (int y = where.y0; y < where.y1; ++y) {
    for (int x = where.x0; x < where.x1; ++x) small.mask.bytes.push_back(set(y, x));
  }
  a.mask = scaled(small, double(height) / mask_height).mask;
  return a;
}

std::vector<Annotation> label_annotations(const Batch& batch, int image, const Tensor& masks, const std::vector<std::string>& class_names) {
  std::vector<Annotation> list;
  for (size_t t = 0; t < batch.targets.size(); ++t) {
    if (batch.target_image[t] != image) continue;
    Annotation a = label_annotation(batch, t, int64_t(list.size()), masks, int(batch.images.size(1)), int(batch.images.size(2)));
    a.label = class_name(class_names, a.class_id);
    list.push_back(std::move(a));
  }
  return list;
}

Annotation prediction_annotation(const PredictedObject& o, const std::vector<std::string>& class_names) {
  return {o.class_id, fmt::format("{} {:.2f}", class_name(class_names, o.class_id), o.score), o.box, o.mask};
}

Tensor label_planes(const Batch& batch) { return batch.masks.defined() ? batch.masks.contiguous() : Tensor(); }

}  // namespace

void draw_label_batch(const std::filesystem::path& file, const Batch& batch, const std::vector<std::string>& class_names) {
  const Tensor masks = label_planes(batch);
  draw_sheet(file, batch, [&](int image) { return label_annotations(batch, image, masks, class_names); });
}

void draw_prediction_batch(const std::filesystem::path& file, const Batch& batch,
                           const std::vector<std::vector<PredictedObject>>& objects, const std::vector<std::string>& class_names) {
  TESSERA_CHECK(int64_t(objects.size()) == batch.size(), "draw_prediction_batch: {} lists for {} images", objects.size(),
                batch.size());
  draw_sheet(file, batch, [&](int image) {
    std::vector<Annotation> list;
    for (const PredictedObject& o : objects[size_t(image)]) {
      if (!(o.score > kShownScore)) continue;
      list.push_back(prediction_annotation(o, class_names));
    }
    return list;
  });
}

void draw_comparisons(const std::filesystem::path& file, const std::vector<ImageComparison>& images,
                      const std::vector<std::string>& class_names) {
  constexpr int kImagesInRow = 4, kImageSide = 320;
  std::vector<Image> tiles;
  std::vector<std::string> captions;
  for (const ImageComparison& c : images) {
    const double scale = plan_grid(1, int(c.batch.images.size(1)), int(c.batch.images.size(2)), kImageSide).scale;
    std::vector<Annotation> found;
    for (const PredictedObject& o : c.objects) found.push_back(prediction_annotation(o, class_names));
    tiles.push_back(drawn(c.batch, 0, scale, label_annotations(c.batch, 0, label_planes(c.batch), class_names)));
    tiles.push_back(drawn(c.batch, 0, scale, std::move(found)));
    captions.push_back(c.caption);
    captions.push_back(c.found_caption);
  }
  write_png(file, tile_images(tiles, captions, 2 * kImagesInRow, 2 * kImagesInRow * (kImageSide + 4)));
}

}  // namespace tessera
