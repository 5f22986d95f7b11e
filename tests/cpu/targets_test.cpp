#include <doctest/doctest.h>

#include <cstdlib>

#include "tensor/base/check.h"
#include "tensor/cpu/amx.h"
#include "tensor/cpu/install.h"
#include "tensor/cpu/reference_conv.h"
#include "tests/cpu/support.h"

using namespace tessera;
using namespace tessera::testing;

// The tiles of AMX stand beside the vectors of AVX-512.
static std::string_view name_on(std::string_view target) {
  return target == "avx512" && cpu::tile_unit() == cpu::TileUnit::kAmx ? "amx" : target;
}

TEST_CASE("targets: best first, forcing one changes what runs and the backend's name") {
  const auto targets = cpu::runnable_targets();
  if (targets.empty()) {
    MESSAGE("skipped: this CPU has no AVX2");
    return;
  }
  const Restore restore;
  CHECK(targets.back() == "avx2");
  CpuBackend backend;
  for (auto t : targets) {
    cpu::force_target(t);
    CHECK(cpu::current_target() == t);
    CHECK(backend.name() == name_on(t));
  }
  CHECK_THROWS_AS(cpu::force_target("sse2"), Error);
}

TEST_CASE("installed backends: reference and vectorised, the vectorised one runs") {
  CHECK(find_backend("ref") != nullptr);
  if (cpu::runnable_targets().empty() || std::getenv("TESSERA_CPU_BACKEND") != nullptr) return;
  CHECK(backend_for(Device::cpu()).name() == name_on(cpu::current_target()));
}

TEST_CASE("--conv naive: statistics of a large result come from the plain convolution, too") {
  struct Counting : ReferenceConvBackend {
    void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) override {
      ++calls;
      ReferenceConvBackend::conv2d(x, w, y, p, epilogue);
    }
    int calls = 0;
  };
  Counting backend;
  // 16 MiB of result: from there on the vectorised backend gathers statistics in its own kernel.
  const Tensor x = Tensor::full({1, 512, 512, 1}, 1), w = Tensor::full({16, 1, 1, 1}, 3), y = Tensor::empty({1, 512, 512, 16});
  const Tensor mean = Tensor::empty({16}), rstd = Tensor::empty({16});
  backend.conv2d_with_stats(x.image(), w.filter(), y.image(), {}, 1e-3, {}, mean.raw(), rstd.raw());
  CHECK(backend.calls == 1);
  CHECK(mean.data<float>()[15] == 3);
}

TEST_CASE("TESSERA_CPU_BACKEND: a value that this CPU cannot run is a usage error that lists the values") {
  const char* before = std::getenv("TESSERA_CPU_BACKEND");
  const std::string kept = before != nullptr ? before : "";
  setenv("TESSERA_CPU_BACKEND", "neon", 1);
  try {
    install_cpu_backends();
    FAIL_CHECK("no error");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kUsage);
    CHECK(std::string(e.what()).find("ref") != std::string::npos);
  }
  if (before != nullptr) {
    setenv("TESSERA_CPU_BACKEND", kept.c_str(), 1);
  } else {
    unsetenv("TESSERA_CPU_BACKEND");
  }
}
