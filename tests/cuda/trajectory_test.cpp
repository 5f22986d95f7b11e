// The trajectories of tests/train on a GPU. Items twice as far from the original's: the sums run in yet another order.
#include "tests/support/trajectory.h"

using tessera::Device;
using tessera::testing::check_trajectory;

TEST_CASE("ten-step trajectory: with warm-up") { check_trajectory("warmup", 2e-3, Device::cuda()); }
TEST_CASE("ten-step trajectory: SGD at full rate") { check_trajectory("plain", 1e-2, Device::cuda()); }
TEST_CASE("ten-step trajectory: AdamW") { check_trajectory("adamw", 2e-3, Device::cuda()); }
