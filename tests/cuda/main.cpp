// Entry of the test program for a real GPU. Without one it says so and passes; with TESSERA_REQUIRE_DEVICE=1 it fails
// (tools/gpu_check.sh).
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

#include "cuda/install.h"
#include "tensor/base/check.h"
#include "tensor/cpu/install.h"

int main(int argc, char** argv) {
  tessera::install_cpu_backends();
  try {
    tessera::install_cuda_backend(0);
  } catch (const tessera::Error& e) {
    if (e.code() != tessera::ErrorCode::kUsage) throw;  // a device that is there and does not work is no reason to skip
    const char* const required = std::getenv("TESSERA_REQUIRE_DEVICE");
    const bool fail = required != nullptr && std::string_view(required) == "1";
    fmt::print("{}: no device: {}\n", fail ? "failed" : "skipped", e.message());
    return fail ? 1 : 0;
  }
  fmt::print("{}\n", tessera::describe_cuda());
  return doctest::Context(argc, argv).run();
}
