// The test's side of the emulated GPU: scheduling order, what the checkers found, and failures on demand.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/base/scope.h"

namespace tessera::emulated {

// Blocks of a launch and threads of a block run in an order drawn from (seed, number of the launch), so that a run repeats exactly
// and two runs of the same op see different orders. Seed 0: in thread order.
void set_seed(uint64_t seed);
uint64_t seed();

// What the checkers have found since the last call; each names block and thread. A launch with a finding returns
// cudaErrorLaunchFailure.
std::vector<std::string> take_reports();
void print_reports(bool print);  // the first of each launch to stderr (default: yes)

// The nth call of this name from now on ("cudaMalloc", "launch", "capture": what goes into a graph, ...; "*": any) returns `error`, and so do those after it, `times`
// in all.
void fail_call(const std::string& name, int nth, cudaError_t error, int times = 1);

// Whether code outside kernels may use device memory, which a real device does not let it do (default: yes, for speed). Forbidden, it
// ends the program with a segmentation fault where it does.
void allow_host_access(bool allow);

// Between host and device as a kernel would, whoever may access what: for work of a test's own that is given to submit().
void copy(void* to, const void* from, size_t bytes);

// Copies on streams that the default stream does not wait for run as late as they may: when they are waited for (default: at once).
void defer_copies(bool defer);

// Work of a graph that was captured from another stream than the first runs when nothing else can (default: in an order of the seed).
void delay_forks(bool delay);

uint64_t capture_of(cudaStream_t stream);  // the number of the capture that its work goes into, from 1; 0: none

uint64_t launches();  // since the start

// Launches by kernel, and by whose work they are. Those of a graph are nobody's: they are made when it is started.
struct LaunchCount {
  std::string kernel;  // "apply_kernel": without namespaces, types and template arguments; needs addr2line
  WorkScope scope;
  uint64_t launches;
};
void count_launches(bool on);  // from now on, from 0
std::vector<LaunchCount> counted_launches();

uint64_t calls(const std::string& name);  // of a function of the runtime, since the start
int live_buffers();   // of cudaMalloc

}  // namespace tessera::emulated
