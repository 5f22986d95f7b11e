// Entry of the tests that several processes run together: every rank runs every case, and all of them end with the worst result.
// mpirun -n 2 test_ranks
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>

#include "tensor/comm.h"
#include "tensor/cpu/install.h"

int main(int argc, char** argv) {
  tessera::install_cpu_backends();
  tessera::Communicator& ranks = tessera::world();
  const int own = doctest::Context(argc, argv).run();
  int worst = 0;
  for (const int code : ranks.all_gather(own, "the results of the tests")) worst = std::max(worst, code);
  return tessera::leave_world(worst, true);
}
