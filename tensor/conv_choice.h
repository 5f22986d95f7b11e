// Which kernels do convolutions, on any device: --conv and TESSERA_CONV.
//   auto       the fastest that the device has; today the same as tiled
//   reference  the formula as plain loops: the reference backend's on the CPU (slow), one thread for each number on CUDA
//   tiled      register tiles on the CPU, tiles in shared memory (tensor cores in 16 bits) on CUDA
// Everything else runs as ever, so that a doubtful result can be laid at one door.
#pragma once

#include <cstdint>
#include <string_view>

namespace tessera {

enum class ConvChoice : uint8_t { kAuto, kReference, kTiled };

std::string_view name_of(ConvChoice choice);
ConvChoice conv_choice();  // what was set, else TESSERA_CONV, else auto; Error(kUsage): not one of the three

// Before the first backend is installed. Error(kUsage): not one of the three.
void set_conv_choice(std::string_view name);

}  // namespace tessera
