#include "yolo/blocks/segment.h"

#include <algorithm>
#include <cmath>

namespace tessera {

Dfl::Dfl() : weight(Tensor::empty({1, 1, 1, kDistanceBins})) {
  for (int64_t i = 0; i < kDistanceBins; ++i) weight.data().data<float>()[i] = float(i);
  parameter("conv.weight", weight);
}

Segment::Segment(int64_t nc, int64_t masks, int64_t hidden, const std::array<int64_t, kAnchorLevels>& channels)
    : proto(channels[0], hidden, masks), nc_(nc), masks_(masks) {
  const int64_t box_width = std::max({int64_t{16}, channels[0] / 4, kBoxLogits});
  const int64_t class_width = std::max(channels[0], std::min(nc, int64_t{100}));
  const int64_t mask_width = std::max(channels[0] / 4, masks);
  const auto branches = [&](const char* name, auto& list, int64_t width, int64_t out) {
    for (size_t i = 0; i < kAnchorLevels; ++i) {
      list[i] = std::make_unique<HeadBranch>(channels[i], width, out);
      child(fmt::format("{}.{}", name, i), *list[i]);
    }
  };
  branches("cv2", cv2, box_width, kBoxLogits);
  branches("cv3", cv3, class_width, nc);
  child("dfl", dfl);
  child("proto", proto);
  branches("cv4", cv4, mask_width, masks);
}

RawOutputs Segment::forward(std::span<const Variable> features) {
  TESSERA_CHECK(features.size() == kAnchorLevels, "Segment: got {} feature maps, expected {}", features.size(), kAnchorLevels);
  RawOutputs out;
  out.prototypes = proto.forward(features[0]);
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    out.box[i] = cv2[i]->forward(features[i]);
    out.cls[i] = cv3[i]->forward(features[i]);
    out.coefficients[i] = cv4[i]->forward(features[i]);
  }
  return out;
}

void Segment::init_biases(const std::array<int64_t, kAnchorLevels>& strides) {
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    const double cells = std::pow(640.0 / double(strides[i]), 2);
    cv2[i]->predict.bias.data().fill(1.0);
    cv3[i]->predict.bias.data().fill(std::log(5.0 / double(nc_) / cells));
  }
}

int64_t Segment::macs(const std::array<int64_t, kAnchorLevels>& pixels) {
  int64_t sum = 0;
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    sum += pixels[i] * (conv_weights(*cv2[i]) + conv_weights(*cv3[i]) + conv_weights(*cv4[i]));
  }
  // The transposed convolution uses each weight once for an input pixel; what follows it runs at four times the pixels.
  sum += pixels[0] * (conv_weights(proto.cv1) + proto.upsample.weight.data().numel());
  return sum + 4 * pixels[0] * (conv_weights(proto.cv2) + conv_weights(proto.cv3));
}

int64_t conv_weights(Module& module) {
  int64_t sum = 0;
  module.for_each_module([&](const std::string&, Module& m) {
    if (const auto* conv = dynamic_cast<Conv2d*>(&m)) sum += conv->weight.data().numel();
  });
  return sum;
}

}  // namespace tessera
