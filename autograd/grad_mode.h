// Switches recording off on this thread, for validation, prediction and the optimizer.
#pragma once

namespace tessera {

bool grad_enabled();

class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};

}  // namespace tessera
