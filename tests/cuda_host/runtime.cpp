// The runtime of the emulated GPU: one device, errors and their names, failures on demand.
#include <cstring>
#include <map>
#include <utility>

#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/machine.h"

namespace tessera::emulated {

namespace {

struct Failure {
  int in;  // calls from now, 1: the next
  int times;
  cudaError_t error;
};

struct Calls {
  std::map<std::string, Failure> planned;
  std::map<std::string, uint64_t, std::less<>> count;
  cudaError_t last = cudaSuccess;
};
Calls& made() {
  static Calls c;
  return c;
}

}  // namespace

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) made().last = error;
  return error;
}

bool fails_now(const char* call, cudaError_t* error) {
  ++made().count[call];
  auto& planned = made().planned;
  for (const char* name : {call, "*"}) {
    const auto it = planned.find(name);
    if (it == planned.end() || --it->second.in > 0) continue;
    *error = remember(it->second.error);
    if (--it->second.times == 0) planned.erase(it);
    return true;
  }
  return false;
}

void fail_call(const std::string& name, int nth, cudaError_t error, int times) { made().planned[name] = {nth, times, error}; }

uint64_t calls(const std::string& name) {
  const auto it = made().count.find(name);
  return it == made().count.end() ? 0 : it->second;
}

}  // namespace tessera::emulated

using namespace tessera::emulated;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorLaunchOutOfResources: return "cudaErrorLaunchOutOfResources";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureMerge: return "cudaErrorStreamCaptureMerge";
    case cudaErrorStreamCaptureUnmatched: return "cudaErrorStreamCaptureUnmatched";
    case cudaErrorStreamCaptureUnjoined: return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
    case cudaErrorStreamCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
    case cudaErrorCapturedEvent: return "cudaErrorCapturedEvent";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorLaunchOutOfResources: return "too many resources requested for launch";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureMerge: return "operation would result in a merge of separate capture sequences";
    case cudaErrorStreamCaptureUnmatched: return "capture was not ended in the same stream as it began";
    case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
    case cudaErrorStreamCaptureImplicit: return "operation would make the legacy stream depend on a capturing blocking stream";
    case cudaErrorCapturedEvent: return "operation not permitted on an event last recorded in a capturing stream";
  }
  return "unrecognized error code";
}

cudaError_t cudaGetLastError() { return std::exchange(made().last, cudaSuccess); }

cudaError_t cudaGetDeviceCount(int* count) {
  TESSERA_MAY_FAIL();
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  TESSERA_MAY_FAIL();
  if (index != 0) return remember(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "emulated GPU");
  properties->totalGlobalMem = kDeviceBytes;
  properties->major = 9;
  properties->multiProcessorCount = 1;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  TESSERA_MAY_FAIL();
  return index == 0 ? cudaSuccess : remember(cudaErrorInvalidDevice);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* of, const void*) {
  of->ptxVersion = 90;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
  TESSERA_MAY_FAIL();
  return value <= (227 << 10) ? cudaSuccess : remember(cudaErrorInvalidValue);
}
