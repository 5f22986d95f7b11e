// Compares the gradients of any function with finite differences, in f64 on the reference backend.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/variable.h"

namespace tessera {

struct GradCheckOptions {
  double step = 1e-3;        // h of the 4-point difference (f(x-2h) - 8 f(x-h) + 8 f(x+h) - f(x+2h)) / 12h: error of order h^4
  double tolerance = 1e-7;   // on |analytic - numeric| / max(1, |numeric|)
};

struct GradCheckResult {
  bool ok = true;
  double max_error = 0.0;
  std::string worst;  // "input 1, element 7: analytic 0.25, numeric 0.31"
};

// f maps f64 variables to one variable of any shape; its elements are summed with fixed irrational weights, so that no gradient can
// hide by symmetry. Inputs must be f64; every one is checked.
GradCheckResult gradcheck(const std::function<Variable(const std::vector<Variable>&)>& f, const std::vector<Tensor>& inputs,
                          const GradCheckOptions& options = {});

}  // namespace tessera
