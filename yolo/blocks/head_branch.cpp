#include "yolo/blocks/head_branch.h"

#include "autograd/functions/pointwise.h"

namespace tessera {

HeadBranch::HeadBranch(int64_t in, int64_t hidden, int64_t out)
    : conv0(in, hidden, 3), conv1(hidden, hidden, 3), predict(hidden, out, 1) {
  child("0", conv0);
  child("1", conv1);
  child("2", predict);
  conv0.feeds_convolution = conv1.feeds_convolution = true;
}

Variable HeadBranch::forward(const Variable& x, const Tensor& into) {
  const Variable features = conv1.forward(conv0.forward(x));
  return predict.forward(ag::cast(features, wide_of(features.data().dtype())), into);
}

}  // namespace tessera
