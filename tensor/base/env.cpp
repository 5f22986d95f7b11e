#include "tensor/base/env.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "tensor/base/check.h"

namespace tessera {

namespace {
constexpr std::array kSwitches = {
    EnvSwitch{"NO_COLOR", "any value: no colours in the log"},
    EnvSwitch{"TESSERA_CONV", "auto | naive | own | direct | cudnn | wgmma: the kernels of convolutions, as --conv, for programs without arguments"},
    EnvSwitch{"TESSERA_CONV_BLOCKS", "blocks of large tiles below which a convolution on CUDA takes smaller ones (default: 256), to measure"},
    EnvSwitch{"TESSERA_CONV_PATCHES", "0: --conv wgmma without its kernel for 3 x 3 convolutions of few channels, to measure"},
    EnvSwitch{"TESSERA_CONV_FLAT", "0: no convolutions by flat shift in wgmma; base_offset: their other descriptors, to measure"},
    EnvSwitch{"TESSERA_CONV_STRIP", "columns of a patch of wgmma's convolutions (default: 80, beyond 64 channels 40), to measure"},
    EnvSwitch{"TESSERA_CPU_BACKEND", "ref | avx2 | avx512 | amx: the CPU kernels to use (default: the best this CPU has)"},
    EnvSwitch{"TESSERA_CUDA_CACHE", "0: device buffers straight from the driver, of exact size, for compute-sanitizer (slow)"},
    EnvSwitch{"TESSERA_DATA", "folder under which data sets are sought"},
    EnvSwitch{"TESSERA_DETERMINISTIC", "1: plans of cuDNN and cuBLASLt by rule instead of by time, only such as repeat their bits"},
    EnvSwitch{"TESSERA_EARLY", "0: no CUDA kernel is brought onto the device before the one before it has ended, to measure"},
    EnvSwitch{"TESSERA_MEMORY", "MiB that this process may use, instead of what the system says is available"},
    EnvSwitch{"TESSERA_PLAN_SECONDS", "of one process, for plans of cuDNN; shapes that come later run as own (default: 20)"},
    EnvSwitch{"TESSERA_REDUCTION_BLOCKS", "blocks of a sum over the rows of channels on CUDA (default: 264), to measure"},
    EnvSwitch{"TESSERA_SYNC", "1: wait after every CUDA kernel, so that an error names the one that failed (slow)"},
    EnvSwitch{"TESSERA_TF32", "1: cuDNN and cuBLASLt may round the factors of f32 products to 10 bits (tensor cores)"},
    EnvSwitch{"TESSERA_THREADS", "number of compute threads (default: one per core this process may use)"},
    EnvSwitch{"TESSERA_NCCL", "0: gradients of several GPUs go over the host (MPI), not over NCCL"},
    EnvSwitch{"TESSERA_WEIGHT_BLOCKS", "blocks that share the pixels of a filter's gradient on CUDA (default: 256), to measure"},
    EnvSwitch{"TESSERA_WORKSPACE", "MiB that one call of cuDNN or cuBLASLt may take for itself (default: 256)"},
};
}  // namespace

std::span<const EnvSwitch> env_switches() { return kSwitches; }

std::optional<std::string> env(std::string_view name) {
  const bool listed = std::any_of(kSwitches.begin(), kSwitches.end(), [&](const EnvSwitch& s) { return s.name == name; });
  TESSERA_CHECK(listed, "environment switch {} is not in the list of tensor/base/env.cpp", name);
  const char* value = std::getenv(std::string(name).c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

}  // namespace tessera
