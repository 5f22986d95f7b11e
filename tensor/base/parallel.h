// Data-parallel loops over a persistent thread pool. Work is cut by the problem, never by the number of threads, so every sum
// is formed in the same order on any machine: results are bitwise equal for 1, 2 or 64 threads.
#pragma once

#include <cstdint>
#include <functional>

namespace tessera {

// Compute threads, the calling one included. Set once at start-up (--threads, TESSERA_THREADS); default: usable cores.
int compute_threads();
void set_compute_threads(int n);  // 1 <= n <= 1024; waits for running loops

// Calls body(chunk) for chunk = 0 .. chunks-1, each exactly once, in any order and on any thread (scratch memory belongs in a
// thread_local). Returns when all are done; the first exception is rethrown. A nested call, or one made while another thread's loop
// holds the pool, runs serially in its caller. Error(kMemory): the system gives no threads.
void parallel_chunks(int64_t chunks, const std::function<void(int64_t chunk)>& body);

// Calls body(begin, end) on consecutive ranges of `grain` items (the last one may be shorter) that cover [0, items).
void parallel_for(int64_t items, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

}  // namespace tessera
