// C2f (spec 1.3): split the channels, send one half through a chain of bottlenecks, join every intermediate result.
//   [y0 | y1] = cv1(x);  y[k+1] = m[k](y[k]);  result = cv2([y0 | y1 | y2 | ...])
// All parts are written into one buffer, side by side, so the join copies nothing.
#pragma once

#include <memory>
#include <vector>

#include "yolo/blocks/bottleneck.h"

namespace tessera {

class C2f : public UnaryModule {
 public:
  // in -> out channels with `repeats` bottlenecks of width out / 2.
  C2f(int64_t in, int64_t out, int64_t repeats, bool shortcut);
  Variable forward(const Variable& x, const Tensor& into = {}) override;
  std::string kind() const override { return "C2f"; }
  std::string summary() const override;

  ConvBnAct cv1, cv2;
  std::vector<std::unique_ptr<Bottleneck>> m;

 private:
  int64_t hidden_;
};

}  // namespace tessera
