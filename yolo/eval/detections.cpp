#include "yolo/eval/detections.h"

namespace tessera {

BatchDetections detect(const RawOutputs& outputs, const std::array<int64_t, kAnchorLevels>& strides, const DetectParams& params,
                       std::span<const int32_t> classes) {
  ops::DetectMaps maps;
  for (size_t l = 0; l < size_t(kAnchorLevels); ++l) {
    maps.box[l] = outputs.box[l].data();
    maps.cls[l] = outputs.cls[l].data();
    maps.coefficients[l] = outputs.coefficients[l].data();
    maps.strides[l] = float(strides[l]);
  }
  maps.decoded = outputs.decoded;
  const ops::DetectResult result = ops::detect(maps, params, classes);
  const Tensor table = result.detections.to(Device::cpu());
  BatchDetections found;
  found.prototypes = outputs.prototypes.data();
  found.coefficients = result.coefficients;
  const int64_t most = table.size(1);
  for (int64_t image = 0; image < table.size(0); ++image) {
    Detections& d = found.images.emplace_back();
    const float* row = table.data<float>() + image * most * kDetectionColumns;
    for (int64_t i = 0; i < most && row[4] > 0; ++i, row += kDetectionColumns) {
      d.boxes.push_back({row[0], row[1], row[2], row[3]});
      d.scores.push_back(row[4]);
      d.classes.push_back(int32_t(row[5]));
      d.anchors.push_back(int32_t(row[6]));
    }
  }
  return found;
}

}  // namespace tessera
