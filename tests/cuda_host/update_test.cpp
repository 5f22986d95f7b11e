// The update kernels against torch.amp.GradScaler.
#include "tests/cuda_host/emulator.h"
#include "tests/support/grad_scaler_golden.h"

namespace tessera::testing {
namespace {

TEST_CASE("the scale of the loss on a device goes as torch.amp.GradScaler's") {
  check_grad_scaler(Device::cuda());
  CHECK(emulated::take_reports().empty());
}

}  // namespace
}  // namespace tessera::testing
