#include "tests/support/trajectory.h"

using tessera::Device;
using tessera::testing::check_trajectory;

TEST_CASE("ten steps with warm-up equal the original's") { check_trajectory("warmup", 1e-3, Device::cpu()); }
TEST_CASE("ten steps of SGD at full rate equal the original's") { check_trajectory("plain", 5e-3, Device::cpu()); }
TEST_CASE("ten steps of AdamW equal the original's") { check_trajectory("adamw", 1e-3, Device::cpu()); }
