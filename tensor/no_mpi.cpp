// Stands in for comm_mpi.cpp in a build without MPI.
#include <cstdlib>

#include "tensor/comm.h"
#include "tensor/launcher.h"

namespace tessera {

Communicator& world() {
  if (launched_size() > 1) {
    throw Error(ErrorCode::kUsage,
                fmt::format("started as {} processes, but this build has no MPI: each would train by itself", launched_size()), {},
                "install MPI (libopenmpi-dev openmpi-bin) and build again, or start one process");
  }
  return single_process();
}

void on_rank_lost(std::function<void(const Error&)>) {}
bool failure_is_news() { return launched_rank() == 0; }
int leave_world(int code, bool) { return code; }
std::string describe_mpi() { return "not built in (MPI was not found)"; }

}  // namespace tessera
