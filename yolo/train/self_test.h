// Checks that this machine computes what it should: vectorised kernels against the reference, gradients against differences, results
// independent of the number of threads.
#pragma once

#include <string>
#include <vector>

namespace tessera {

struct SelfTestCheck {
  std::string name;
  bool ok = false;
  std::string detail;  // "max error 1.2e-6 of 3.4"
};

// About ten seconds.
std::vector<SelfTestCheck> run_self_test(uint64_t seed);

}  // namespace tessera
