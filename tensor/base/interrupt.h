// SIGINT, SIGTERM, SIGUSR1 and SIGHUP as a flag that long loops look at, so that a run ends by saving its state.
#pragma once

#include <string_view>

namespace tessera {

// First SIGINT, SIGTERM, SIGUSR1 (which mpirun passes on without ending its processes, and batch systems send before the time is
// over) or SIGHUP (the terminal closes; left ignored where nohup had it so): interrupt_requested() becomes true. Second SIGINT: the
// process ends at once with exit code 7, `farewell` on stdout; files are only ever replaced whole, so the last checkpoint stays intact.
void install_interrupt_handlers(std::string_view farewell = {});
bool interrupt_requested();

// For work that has nothing to save: the first signal ends the process so. A farewell must live on. Once output_begins() was called
// no signal ends the process at once: the output is completed.
void end_at_interrupt(std::string_view farewell);
void output_begins();
void request_interrupt();  // as a signal would; for tests and for embedding
void clear_interrupt();

}  // namespace tessera
