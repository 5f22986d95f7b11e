// What the parts of the emulated GPU tell each other.
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
void set(void* p, int value, size_t bytes);  // as copy()
inline constexpr size_t kDeviceBytes = size_t{64} << 30;  // of addresses, not of memory

bool fails_now(const char* call, cudaError_t* error);  // whether a planned failure strikes this call
cudaError_t remember(cudaError_t error);               // for cudaGetLastError()
// Calls that may wait for the device: forbidden to a thread that captures, unless it says that it knows (the relaxed mode).
cudaError_t forbidden_while_capturing();

}  // namespace tessera::emulated

#define TESSERA_MAY_FAIL()                                                            \
  do {                                                                                \
    cudaError_t planned_error = cudaSuccess;                                          \
    if (tessera::emulated::fails_now(__func__, &planned_error)) return planned_error; \
  } while (false)
