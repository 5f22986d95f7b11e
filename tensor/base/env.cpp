#include "tensor/base/env.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "tensor/base/check.h"

namespace tessera {

namespace {
constexpr std::array kSwitches = {
    EnvSwitch{"HOME", "the user's folder; .cache in it stands for XDG_CACHE_HOME"},
    EnvSwitch{"NO_COLOR", "any value: no colours in the log"},
    EnvSwitch{"TESSERA_CONV", "auto | naive | own | direct | cudnn: the kernels of convolutions, as --conv, for programs without arguments"},
    EnvSwitch{"TESSERA_CPU_BACKEND", "ref | avx2 | avx512 | amx: the CPU kernels to use (default: the best this CPU has)"},
    EnvSwitch{"TESSERA_CUDA_CACHE", "0: device buffers straight from the driver, of exact size, for compute-sanitizer (slow)"},
    EnvSwitch{"TESSERA_CUDA_SIDE", "0: a recorded step has its gradients of weights in the order of all; n: beside it, of 2 n calls at a time (default: 8)"},
    EnvSwitch{"TESSERA_CUDA_WITHOUT", "of patches,deep,stride2,pointwise,tiles,filters those kinds of convolution kernels of sm_90 that are not to run"},
    EnvSwitch{"TESSERA_DATA", "folder under which data sets are sought"},
    EnvSwitch{"TESSERA_DETERMINISTIC", "1: plans of cuDNN and cuBLASLt by rule instead of by time, only such as repeat their bits"},
    EnvSwitch{"TESSERA_MEMORY", "MiB that this process may use, instead of what the system says is available"},
    EnvSwitch{"TESSERA_PLAN_SECONDS", "of one process, for plans of cuDNN; shapes that come later run as own (default: 20)"},
    EnvSwitch{"TESSERA_SYNC", "1: wait after every CUDA kernel, so that an error names the one that failed (slow); 2: and name each before it starts, for one that never ends"},
    EnvSwitch{"TESSERA_TF32", "1: cuDNN and cuBLASLt may round the factors of f32 products to 10 bits (tensor cores)"},
    EnvSwitch{"TESSERA_THREADS", "number of compute threads (default: one per core this process may use)"},
    EnvSwitch{"TESSERA_NCCL", "0: gradients of several GPUs go over the host (MPI), not over NCCL"},
    EnvSwitch{"TESSERA_WORKSPACE", "MiB that one call of cuDNN or cuBLASLt may take for itself (default: 256)"},
    EnvSwitch{"XDG_CACHE_HOME", "folder of caches (default: ~/.cache); decoded images of --cache disk are in tessera/images there"},
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
