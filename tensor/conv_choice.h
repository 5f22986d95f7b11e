// Which kernels do convolutions, on any device: --conv and TESSERA_CONV.
//   auto   what runs when nobody chooses: own
//   naive  the formula as plain loops: the reference backend's on the CPU (slow), one thread for each number on CUDA
//   own    register tiles on the CPU, with a quarter of the products where Winograd's form is faster; on CUDA tiles in shared memory, in
//          16 bits on tensor cores, of sm_90 by its warpgroup instructions
//   direct as own, but every product of the formula is taken: the smallest rounding errors; on CUDA without warpgroups
//   cudnn  NVIDIA's library, on CUDA only; shapes that it refuses run as own
// For single layers: "own,model.0=cudnn,model.22.*=naive"; the last pattern that names a layer counts. Everything else
// runs as ever, so that a doubtful result can be laid at one door.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

enum class ConvChoice : uint8_t { kAuto, kNaive, kOwn, kDirect, kCudnn };

struct ConvPattern {
  std::string layer;  // a layer's name, or its beginning and a '*'
  ConvChoice choice;
  bool names(std::string_view layer_name) const;
};

std::string_view name_of(ConvChoice choice);

// What was set, else TESSERA_CONV, else auto. Error(kUsage): a name that is none.
ConvChoice conv_choice();  // of layers without a pattern
const std::vector<ConvPattern>& conv_patterns();
bool conv_chosen_anywhere(ConvChoice choice);

// The kernels of work whose scope (tensor/base/scope.h) is `owner`, a layer's convolution: nn/conv_kernels.h gives them to layers.
void set_conv_choice_of(const void* owner, ConvChoice choice);  // auto: as all others
ConvChoice conv_choice_here();                                   // of the work that runs on this thread; auto: no choice of its own

// Before the first backend is installed and the first model is built. Error(kUsage): a name that is none.
void set_conv_choice(std::string_view text);

}  // namespace tessera
