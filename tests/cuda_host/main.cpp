// Entry of the test programs that run the CUDA kernels on the emulated GPU (docs: tests/cuda_host/emulator.h).
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdlib>

#include "cuda/install.h"
#include "tensor/cpu/install.h"
#include "tests/cuda_host/emulator.h"

int main(int argc, char** argv) {
#ifdef TESSERA_CHECKED
  setenv("TESSERA_CUDA_CACHE", "0", 1);  // the checks go by the bounds of buffers
#endif
  tessera::install_cpu_backends();
  tessera::install_cuda_backend(0);
  if (const char* seed = std::getenv("TESSERA_TEST_SEED")) tessera::emulated::set_seed(std::strtoull(seed, nullptr, 10));
  return doctest::Context(argc, argv).run();
}
