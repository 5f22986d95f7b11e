// Collectives of device tensors over NCCL; all else goes the way of the communicator behind it (MPI).
#pragma once

#include <memory>

#include "tensor/comm.h"

namespace tessera::cuda {

// A communicator of the same ranks, each with the device in use as its own; `hosts` must outlive it. Null where NCCL is not on
// every rank. Error(kIo) in NCCL's words when it is, but they cannot be connected.
//
// A reduction runs on a stream of its own, after the work that was started before it; wait() makes later work wait for it and not
// the host. All else runs on the current stream. All of it can be recorded, that stream included (cuda/graph_capture.cpp);
// recordings must be gone before the communicator is. A rank that dies is noticed by the watch of `hosts`, whatever the device is
// waiting for; what NCCL itself notices, by the next call and by wait_for().
std::unique_ptr<Communicator> nccl_communicator(Communicator& hosts);

}  // namespace tessera::cuda
