#include "yolo/train/memory_request.h"

#include <algorithm>

#include "data/loader.h"
#include "yolo/config_values.h"
#include "yolo/train/multi_scale.h"
#include "yolo/train/run_plots.h"

namespace tessera {

std::vector<Size> image_sizes(const Config& config, const SegDataset* train_set) {
  const int side = int(config.integer("imgsz"));
  if (train_set == nullptr || !config.flag("rect")) return {{side, side}};
  std::vector<Size> sizes;
  for (int64_t i = 0; i < train_set->size(); i += train_set->config().batch) {
    const Size s = train_set->input_size(i);
    if (std::find(sizes.begin(), sizes.end(), s) == sizes.end()) sizes.push_back(s);
  }
  return sizes;
}

MemoryRequest memory_request(const Config& config, Device device, const ModelSpec& spec, UpdateRule rule,
                             const SegDataset* train_set, const SegDataset* val_set) {
  MemoryRequest r;
  r.spec = spec;
  r.device = device;
  r.compute_type = compute_type_of(config);
  r.recompute = recompute_of(config, device);
  r.frozen_layers = frozen_layers_of(config);
  r.rule = rule;
  r.imgsz = config.integer("imgsz");
  r.mask_ratio = config.integer("mask_ratio");
  r.batches_ahead = config.integer("workers") > 0 ? LoaderOptions{}.prefetch + 1 : 0;
  r.loader_threads = std::max<int64_t>(1, config.integer("workers"));
  for (const Size& images : image_sizes(config, train_set)) {
    if (!config.flag("multi_scale")) {
      r.shapes.push_back({images, images});
      continue;
    }
    const MultiScaleRange range = multi_scale_range(r.imgsz);
    for (const int64_t side : {range.largest, range.least}) r.shapes.push_back({images, multi_scale_input(images, side)});
  }
  if (val_set != nullptr) r.val_images = val_set->size();
  r.plots = config.flag("plots");
  int64_t with_objects = spec.nc;
  if (val_set != nullptr) {
    const std::vector<int64_t> objects = val_set->objects_by_class();
    with_objects = std::count_if(objects.begin(), objects.end(), [](int64_t n) { return n > 0; });
  }
  r.report_bytes = report_bytes(spec.nc, with_objects, r.plots);
  r.plan_pixels = config.text("augment") == "cuda";
  for (const SegDataset* set : {train_set, val_set}) {
    if (set != nullptr) r.cache_bytes += set->cache_bytes_at_most();
  }
  return r;
}

}  // namespace tessera
