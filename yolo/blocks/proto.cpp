#include "yolo/blocks/proto.h"

namespace tessera {

Proto::Proto(int64_t in, int64_t hidden, int64_t masks)
    : cv1(in, hidden, 3), upsample(hidden, hidden), cv2(hidden, hidden, 3), cv3(hidden, masks) {
  child("cv1", cv1);
  child("upsample", upsample);
  child("cv2", cv2);
  child("cv3", cv3);
  cv1.feeds_convolution = upsample.feeds_convolution = cv2.feeds_convolution = true;
}

Variable Proto::forward(const Variable& x, const Tensor& into) {
  return cv3.forward(cv2.forward(upsample.forward(cv1.forward(x))), into);
}

}  // namespace tessera
