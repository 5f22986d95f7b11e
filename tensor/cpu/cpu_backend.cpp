#include "tensor/cpu/cpu_backend.h"

#include "tensor/cpu/targets.h"

namespace tessera {

std::string_view CpuBackend::name() const { return cpu::current_target(); }

}  // namespace tessera
