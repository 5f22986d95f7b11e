// The check for finite values finds one bad element anywhere.
#include "tensor/ops/optim.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tensor/backend.h"

namespace tessera::testing {
namespace {

TEST_CASE("all_finite finds one bad element anywhere") {
  for (Backend* backend : available_backends()) {
    const BackendGuard guard(*backend);
    for (double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      for (int64_t at : {0, 1, 15, 16, 500, 998}) {
        const Tensor x = Tensor::full({999}, 1);
        CHECK(ops::all_finite(x));
        x.narrow(0, at, 1).fill(bad);
        CHECK_FALSE(ops::all_finite(x));
      }
    }
  }
}

}  // namespace
}  // namespace tessera::testing
