// Bottleneck of C2f (spec 1.3): two 3x3 Conv blocks of equal width, y = x + cv2(cv1(x)) with a shortcut, cv2(cv1(x)) without.
#pragma once

#include "nn/layers/conv_bn_act.h"

namespace tessera {

class Bottleneck : public UnaryModule {
 public:
  Bottleneck(int64_t channels, bool shortcut);
  Variable forward(const Variable& x, const Tensor& into = {}) override;
  std::string kind() const override { return "Bottleneck"; }
  std::string summary() const override;
  bool shortcut() const { return shortcut_; }

  ConvBnAct cv1, cv2;

 private:
  bool shortcut_;
};

}  // namespace tessera
