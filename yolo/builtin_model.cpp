#include "yolo/model_yaml.h"

namespace tessera {

// Keys and layer notation are those of the original's model files, so that edited copies work in both programs.
std::string_view builtin_model_yaml() {
  return R"(# YOLOv8 instance segmentation in five sizes. Copy this file to change the network.

nc: 80  # classes; replaced by the data set's number

scales:  # size: [depth factor, width factor, largest base width]
  n: [0.33, 0.25, 1024]
  s: [0.33, 0.50, 1024]
  m: [0.67, 0.75, 768]
  l: [1.00, 1.00, 512]
  x: [1.00, 1.25, 512]

# One layer a line: [inputs, repeats, module, arguments]. Input -1 is the layer before, other numbers are layer indices.
backbone:
  - [-1, 1, Conv, [64, 3, 2]]  # 0, stride 2
  - [-1, 1, Conv, [128, 3, 2]]  # 1, stride 4
  - [-1, 3, C2f, [128, True]]
  - [-1, 1, Conv, [256, 3, 2]]  # 3, stride 8
  - [-1, 6, C2f, [256, True]]
  - [-1, 1, Conv, [512, 3, 2]]  # 5, stride 16
  - [-1, 6, C2f, [512, True]]
  - [-1, 1, Conv, [1024, 3, 2]]  # 7, stride 32
  - [-1, 3, C2f, [1024, True]]
  - [-1, 1, SPPF, [1024, 5]]  # 9

head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 3, C2f, [512]]  # 12

  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 3, C2f, [256]]  # 15, small objects

  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 12], 1, Concat, [1]]
  - [-1, 3, C2f, [512]]  # 18, middle

  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 9], 1, Concat, [1]]
  - [-1, 3, C2f, [1024]]  # 21, large

  - [[15, 18, 21], 1, Segment, [nc, 32, 256]]
)";
}

}  // namespace tessera
