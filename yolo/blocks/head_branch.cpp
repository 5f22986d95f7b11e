#include "yolo/blocks/head_branch.h"

namespace tessera {

HeadBranch::HeadBranch(int64_t in, int64_t hidden, int64_t out)
    : conv0(in, hidden, 3), conv1(hidden, hidden, 3), predict(hidden, out, 1) {
  child("0", conv0);
  child("1", conv1);
  child("2", predict);
  conv0.feeds_convolution = conv1.feeds_convolution = true;
}

Variable HeadBranch::forward(const Variable& x, const Tensor& into) {
  TESSERA_CHECK(!into.defined(), "HeadBranch: what it predicts is a tensor of its own");
  return predict.forward_wide(conv1.forward(conv0.forward(x)));
}

}  // namespace tessera
