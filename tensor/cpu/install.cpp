#include "tensor/cpu/install.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "tensor/base/check.h"
#include "tensor/base/env.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/amx.h"
#include "tensor/cpu/cpu_backend.h"
#include "tensor/cpu/reference_conv.h"
#include "tensor/cpu/targets.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

void install_cpu_backends() {
  auto targets = cpu::runnable_targets();
  auto wanted = env("TESSERA_CPU_BACKEND");
  // Vectors of AVX-512 with the tiles of AMX beside them; asked for by the first name, the tiles are left out.
  if (cpu::has_amx()) {
    targets.push_back("amx");
    if (wanted == "avx512") cpu::force_tile_unit(cpu::TileUnit::kVectors);
    if (wanted == "amx") {
      cpu::force_tile_unit(cpu::TileUnit::kAmx);
      wanted = "avx512";
    }
  }
  if (wanted && *wanted != "ref" && std::find(targets.begin(), targets.end(), *wanted) == targets.end()) {
    std::string values = "ref";
    for (auto t : targets) values += fmt::format(", {}", t);
    throw Error(ErrorCode::kUsage, fmt::format("TESSERA_CPU_BACKEND is '{}', this CPU can run: {}", *wanted, values));
  }
  if (targets.empty()) {
    std::fprintf(stderr, "tessera: this CPU has no AVX2: only the reference backend runs, which is very slow\n");
    install(std::make_unique<RefBackend>());
    return;
  }
  if (wanted && *wanted != "ref") cpu::force_target(*wanted);
  std::unique_ptr<Backend> fast;
  if (conv_choice() == ConvChoice::kNaive) {
    fast = std::make_unique<ReferenceConvBackend>();
  } else {
    fast = std::make_unique<CpuBackend>();
  }
  auto reference = std::make_unique<RefBackend>();
  // The last one installed runs.
  if (wanted == "ref") {
    install(std::move(fast));
    install(std::move(reference));
  } else {
    install(std::move(reference));
    install(std::move(fast));
  }
}

}  // namespace tessera
