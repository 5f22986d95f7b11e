// Between grid.cpp and runtime.cpp.
#pragma once

#include <cuda_runtime.h>

#include <csignal>

namespace tessera::emulated {

// Turns a bad access of a kernel into a report, for the time of a launch.
class FaultHandler {
 public:
  FaultHandler();
  ~FaultHandler();
  FaultHandler(const FaultHandler&) = delete;
  FaultHandler& operator=(const FaultHandler&) = delete;

 private:
  struct sigaction segv_, bus_;
  stack_t stack_;
};

[[noreturn]] void stop_at_fault(const void* address, const char* what);  // from the handler: ends the launch
[[noreturn]] void abandon_launch();                                      // from a kernel, after a report
bool inside_kernel();
void close_buffers();  // after a kernel: the host has no access again, where it is forbidden
bool fails_now(const char* call, cudaError_t* error);  // whether a planned failure strikes this call

}  // namespace tessera::emulated
