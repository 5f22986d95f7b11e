// What the resource table cannot read from the compiled kernels, and what it lets pass.
#pragma once

#include <map>
#include <string>

namespace tessera::testing {

// Kernels that may spill registers, with the reason. Names as in the table.
inline const std::map<std::string, std::string> kMaySpill = {};

// Dynamic shared memory of a block, in bytes: the most that the launcher asks for. Kernels that use some and are not named here get
// an occupancy without it, marked with a *.
inline const std::map<std::string, int> kDynamicShared = {
    {"conv_ahead_kernel", 3 * (128 + 128) * 64 * 2},
    {"conv_patch_kernel", 227 << 10},
    {"conv_patch_deep_kernel", 113 << 10},
    {"conv_pointwise_kernel", 227 << 10},
    {"conv_patch_weight_kernel", 2 * (328 + 256) * 128},
    {"conv_stride2_kernel", 5 * 64 * 128 + 2 * 160 * 128},
    {"conv_stride2_data_kernel", 6 * 64 * 128 + 2 * 88 * 128},
    {"conv_stride2_weight_kernel", 2 * (160 + 64) * 128},
    {"weight_ahead_kernel", 3 * (128 + 128) * 64 * 2},
};

}  // namespace tessera::testing
