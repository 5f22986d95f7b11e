// SIGINT, SIGTERM, SIGUSR1 and SIGHUP as a flag that long loops look at, so that a run ends by saving its state.
#pragma once

namespace tessera {

// First SIGINT, SIGTERM, SIGUSR1 (which mpirun passes on without ending its processes, and batch systems send before the time is
// over) or SIGHUP (the terminal closes; left ignored where nohup had it so): interrupt_requested() becomes true. Second SIGINT: the
// process ends at once with exit code 7; files are only ever replaced whole, so the last checkpoint stays intact.
void install_interrupt_handlers();
bool interrupt_requested();
void request_interrupt();  // as a signal would; for tests and for embedding
void clear_interrupt();

}  // namespace tessera
