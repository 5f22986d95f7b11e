#include "yolo/blocks/c2f.h"

#include "autograd/functions/concat.h"
#include "autograd/functions/shape.h"

namespace tessera {

C2f::C2f(int64_t in, int64_t out, int64_t repeats, bool shortcut)
    : cv1(in, 2 * (out / 2)), cv2((2 + repeats) * (out / 2), out), hidden_(out / 2) {
  child("cv1", cv1);
  child("cv2", cv2);
  for (int64_t k = 0; k < repeats; ++k) {
    m.push_back(std::make_unique<Bottleneck>(hidden_, shortcut));
    child(fmt::format("m.{}", k), *m.back());
  }
}

Variable C2f::forward(const Variable& x, const Tensor& into) {
  const Shape& s = x.shape();
  const Tensor slots = Tensor::empty({s[0], s[1], s[2], (2 + int64_t(m.size())) * hidden_}, x.data().dtype(), x.data().device());
  std::vector<Variable> parts{cv1.forward(x, slots.narrow(-1, 0, 2 * hidden_))};
  Variable y = ag::narrow_channels(parts[0], hidden_, hidden_);
  for (size_t k = 0; k < m.size(); ++k) {
    y = m[k]->forward(y, slots.narrow(-1, (2 + int64_t(k)) * hidden_, hidden_));
    parts.push_back(y);
  }
  return cv2.forward(ag::concat_channels(parts), into);
}

std::string C2f::summary() const {
  return fmt::format("{} -> {}, {} bottlenecks of {}", cv1.conv.weight.shape()[3], cv2.conv.weight.shape()[0], m.size(), hidden_);
}

}  // namespace tessera
