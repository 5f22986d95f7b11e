// In NCCL's place between the emulated GPUs of several processes. A call is work of its stream and takes part when that runs, in a
// graph too; calls of a communicator run one after the other, whatever their streams. Bytes go over world(), and as a device does
// it, without looking whether the others are still alive.
#pragma once

#include <functional>

namespace tessera::testing {

void play_nccl();  // from now on in this process

// Called before each exchange, with their number so far.
void on_exchange(std::function<void(int)> listener);
int exchanges();

}  // namespace tessera::testing
