// Threads of a pool, all of them or none: destroying a std::thread that runs ends the process, and that is what happens when the
// system refuses the second of two that a constructor starts.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace tessera {

// Appends threads that run body(0) .. body(count - 1). Where the system gives no more (limits of processes or of memory): calls
// `stop`, which lets those end that have begun, waits for them and throws Error(kMemory) with `remedy`.
void start_threads(std::vector<std::thread>& threads, int count, const std::function<void(int)>& body,
                   const std::function<void()>& stop, const std::string& remedy);

}  // namespace tessera
