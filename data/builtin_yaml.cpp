// The data yamls inside the program. Class names are the category names of COCO in the order of their ids.
#include <array>

#include "data/dataset_yaml.h"

namespace tessera {

namespace {

constexpr std::string_view kCocoNames =
    R"(names: [person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
  parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
  tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
  tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
  hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
  keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
  hair drier, toothbrush]
)";

struct Builtin {
  std::string_view name, head;
};

constexpr std::array kBuiltins = {
    Builtin{"coco128-seg.yaml", R"(# The first 128 images of COCO train2017; the same images serve for training and validation.
path: coco128-seg
train: images/train2017
val: images/train2017
download: https://github.com/ultralytics/assets/releases/download/v0.0.0/coco128-seg.zip
)"},
    Builtin{"coco8-seg.yaml", R"(# Eight images of COCO train2017, four for each split.
path: coco8-seg
train: images/train
val: images/val
download: https://github.com/ultralytics/assets/releases/download/v0.0.0/coco8-seg.zip
)"},
    Builtin{"coco.yaml", R"(# COCO 2017: images from cocodataset.org (which has no https), labels converted from its instances JSON.
path: coco
train: train2017.txt
val: val2017.txt
download:
  - https://github.com/ultralytics/assets/releases/download/v0.0.0/coco2017labels-segments.zip
  - {url: "http://images.cocodataset.org/zips/val2017.zip", to: coco/images}
  - {url: "http://images.cocodataset.org/zips/train2017.zip", to: coco/images}
)"},
};

}  // namespace

std::span<const std::string_view> builtin_dataset_names() {
  static constexpr std::array kNames = {kBuiltins[0].name, kBuiltins[1].name, kBuiltins[2].name};
  return kNames;
}

std::optional<std::string_view> builtin_dataset_yaml(std::string_view name) {
  static const auto texts = [] {
    std::array<std::string, kBuiltins.size()> all;
    for (size_t i = 0; i < all.size(); ++i) all[i] = std::string(kBuiltins[i].head) + std::string(kCocoNames);
    return all;
  }();
  for (size_t i = 0; i < kBuiltins.size(); ++i) {
    const std::string_view full = kBuiltins[i].name;
    if (name == full || name == full.substr(0, full.size() - 5)) return texts[i];
  }
  return std::nullopt;
}

}  // namespace tessera
