#include "yolo/blocks/sppf.h"

#include <vector>

#include "autograd/functions/concat.h"
#include "autograd/functions/pool.h"

namespace tessera {

Sppf::Sppf(int64_t in, int64_t out, int64_t kernel)
    : cv1(in, in / 2), cv2((kPools + 1) * (in / 2), out), hidden_(in / 2), kernel_(kernel) {
  child("cv1", cv1);
  child("cv2", cv2);
}

Variable Sppf::forward(const Variable& x, const Tensor& into) {
  const Shape& s = x.shape();
  const Tensor slots = Tensor::empty({s[0], s[1], s[2], (kPools + 1) * hidden_}, x.data().dtype(), x.data().device());
  std::vector<Variable> parts{cv1.forward(x, slots.narrow(-1, 0, hidden_))};
  const PoolParams pool{kernel_, 1, kernel_ / 2};
  for (int64_t k = 1; k <= kPools; ++k) parts.push_back(ag::max_pool2d(parts.back(), pool, slots.narrow(-1, k * hidden_, hidden_)));
  return cv2.forward(ag::concat_channels(parts), into);
}

std::string Sppf::summary() const {
  return fmt::format("{} -> {}, pool {}x{}", cv1.conv.weight.shape()[3], cv2.conv.weight.shape()[0], kernel_, kernel_);
}

}  // namespace tessera
