// Entry of the tests of several processes with an emulated GPU each: every rank runs every case, and all of them end with the worst
// result. mpirun -n 2 test_cuda_ranks
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

#include "cuda/install.h"
#include "tensor/comm.h"
#include "tensor/cpu/install.h"
#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/ranks/nccl_twin.h"

int main(int argc, char** argv) {
  tessera::install_cpu_backends();
  tessera::install_cuda_backend(0);
  tessera::Communicator& ranks = tessera::world();
  const char* const seed = std::getenv("TESSERA_TEST_SEED");
  // Threads, blocks and graphs of each rank run in an order of its own.
  tessera::emulated::set_seed(uint64_t(ranks.rank()) + (seed ? std::strtoull(seed, nullptr, 10) : tessera::emulated::seed()));
  tessera::testing::play_nccl();
  const int own = doctest::Context(argc, argv).run();
  int worst = 0;
  for (const int code : ranks.all_gather(own, "the results of the tests")) worst = std::max(worst, code);
  return tessera::leave_world(worst, true);
}
