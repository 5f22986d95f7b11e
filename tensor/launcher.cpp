#include "tensor/launcher.h"

#include <cstdlib>

#include "tensor/comm.h"

namespace tessera {

namespace {
// Open MPI, then MPICH and its relatives, then whoever speaks PMIx (srun).
constexpr const char* kSizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
constexpr const char* kRanks[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"};
}  // namespace

int launched_size() {
  for (const char* name : kSizes) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  return std::getenv("PMIX_RANK") != nullptr ? 1 : 0;
}

int launched_rank() {
  for (const char* name : kRanks) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  return 0;
}

}  // namespace tessera
