// The runtime of the emulated GPU: one device, memory that faults when it is used wrongly, failures on demand. All streams run at
// once, in the caller; a stream that is captured keeps its work for a graph, and refuses what a real one refuses. A graph runs in
// an order drawn from the seed, of those that its dependencies allow: a wait that was forgotten shows as a wrong result.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "tests/cuda_host/access.h"
#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/machine.h"

using Work = std::function<cudaError_t()>;

// Positions in Capture::nodes; whoever comes next waits for these.
using Frontier = std::set<size_t>;

struct Node {
  Work work;
  Frontier after;
};

// What is captured between a begin and its end, from the stream of the begin and those that waited for an event of it.
struct Capture {
  uint64_t number = 0;
  cudaStream_t origin = nullptr;
  cudaStreamCaptureMode mode{};
  bool invalidated = false, ended = false;
  std::vector<Node> nodes{};
  std::set<cudaStream_t> streams{};
};

struct CUstream_st {
  bool waits_for_default = true;
  std::shared_ptr<Capture> capture{};  // null: none
  Frontier frontier{};                 // of the capture
  std::vector<Work> late{};            // copies that have not run yet, with defer_copies()
};
struct CUevent_st {
  cudaStream_t stream = nullptr;
  std::shared_ptr<Capture> capture{};  // in which it was recorded last; it may have ended
  Frontier frontier{};
};
struct CUgraph_st {
  std::vector<Node> nodes;
};
struct CUgraphExec_st {
  std::vector<Node> nodes;
};

namespace {

using tessera::emulated::Buffer;
using tessera::emulated::report;

constexpr size_t kPage = 4096;
constexpr size_t kDeviceBytes = size_t{64} << 30;  // of addresses, not of memory
constexpr uint8_t kCanary = 0xA5;

struct Failure {
  int in;  // calls from now, 1: the next
  int times;
  cudaError_t error;
};

struct Device {
  std::byte* memory = nullptr;
  std::byte* top = nullptr;
  std::map<void*, Buffer> buffers;  // alive, by address
  bool host_access = true;
  std::vector<Buffer> opened;  // without host access: those that the running kernel or copy has used
  uint64_t changes = 0;        // of `buffers`
  std::map<std::string, Failure> planned;
  std::map<std::string, uint64_t, std::less<>> calls;
  cudaError_t last = cudaSuccess;
  std::set<std::shared_ptr<Capture>> captures;  // alive
  uint64_t captures_begun = 0, graph_launches = 0;
  cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
  std::set<cudaStream_t> streams;  // alive
  bool defer_copies = false;
};
Device& device() {
  static Device d;
  return d;
}

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) device().last = error;
  return error;
}

cudaError_t invalidate(Capture& capture, cudaError_t error) {
  capture.invalidated = true;
  return remember(error);
}

bool capturing(cudaStream_t stream) { return stream != nullptr && stream->capture != nullptr; }

// What a stream's work may be given to: not the default stream, while one is captured that waits for it.
cudaError_t accept(cudaStream_t stream) {
  if (capturing(stream)) return stream->capture->invalidated ? remember(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
  if (stream != nullptr) return cudaSuccess;
  for (const auto& capture : device().captures) {
    for (cudaStream_t s : capture->streams) {
      if (s->waits_for_default) return invalidate(*capture, cudaErrorStreamCaptureImplicit);
    }
  }
  return cudaSuccess;
}

// Calls that may wait for the device: forbidden to a thread that captures, unless it says that it knows (the relaxed mode).
cudaError_t forbidden_while_capturing() {
  const Device& d = device();
  for (const auto& capture : d.captures) {
    if (capture->mode != cudaStreamCaptureModeRelaxed && d.thread_mode != cudaStreamCaptureModeRelaxed) {
      return invalidate(*capture, cudaErrorStreamCaptureUnsupported);
    }
  }
  return cudaSuccess;
}

// An event of a capture is a place in its graph: nobody can ask whether, or wait until, it has been reached.
cudaError_t forbid_captured(cudaEvent_t event) {
  if (event->capture == nullptr) return cudaSuccess;
  return event->capture->ended ? remember(cudaErrorCapturedEvent) : invalidate(*event->capture, cudaErrorCapturedEvent);
}

void end(const std::shared_ptr<Capture>& capture) {
  capture->ended = true;
  for (cudaStream_t s : capture->streams) s->capture = nullptr, s->frontier.clear();
  capture->streams.clear();
  device().captures.erase(capture);
}

// Whether the stream that ends the capture waits for all that is in it.
bool joined(const Capture& capture, const Frontier& end) {
  std::vector<bool> before_end(capture.nodes.size(), false);
  for (const size_t i : end) before_end[i] = true;
  for (size_t i = capture.nodes.size(); i-- > 0;) {
    if (!before_end[i]) return false;
    for (const size_t j : capture.nodes[i].after) before_end[j] = true;
  }
  return true;
}

// In the order of the capture (seed 0), or in another that the dependencies allow.
cudaError_t run_graph(const std::vector<Node>& nodes) {
  std::mt19937_64 random(tessera::emulated::seed() * 1000003 + ++device().graph_launches);
  std::vector<size_t> missing(nodes.size());
  std::vector<std::vector<size_t>> next(nodes.size());
  std::set<size_t> ready;
  for (size_t i = 0; i < nodes.size(); ++i) {
    missing[i] = nodes[i].after.size();
    if (missing[i] == 0) ready.insert(i);
    for (const size_t j : nodes[i].after) next[j].push_back(i);
  }
  while (!ready.empty()) {
    const size_t skipped = tessera::emulated::seed() == 0 ? 0 : random() % ready.size();
    const auto chosen = std::next(ready.begin(), ptrdiff_t(skipped));
    const size_t i = *chosen;
    ready.erase(chosen);
    if (const cudaError_t error = nodes[i].work(); error != cudaSuccess) return error;
    for (const size_t k : next[i]) {
      if (--missing[k] == 0) ready.insert(k);
    }
  }
  return cudaSuccess;
}

// A copy on a stream of its own may run at any time until it is waited for: with defer_copies() it runs then.
cudaError_t run_late(cudaStream_t stream) {
  if (stream == nullptr || !device().streams.contains(stream)) return cudaSuccess;
  for (auto& work : std::exchange(stream->late, {})) {
    if (const cudaError_t error = work(); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}
cudaError_t submit_copy(cudaStream_t stream, Work work) {
  const bool late = stream != nullptr && !capturing(stream) && !stream->waits_for_default && device().defer_copies;
  if (!late) return tessera::emulated::submit(stream, std::move(work));
  stream->late.push_back(std::move(work));
  return cudaSuccess;
}

std::byte* page_of(std::byte* p) { return reinterpret_cast<std::byte*>(reinterpret_cast<uintptr_t>(p) / kPage * kPage); }
size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

void protect(const Buffer& b, int access) {
  std::byte* const from = page_of(b.begin);
  mprotect(from, whole_pages(size_t(b.begin + b.bytes - from)), access);
}

// Without host access: lets the device use the buffer around `p`. False: there is none, or it is open.
bool open_buffer(const void* p) {
  Device& d = device();
  const auto* const at = static_cast<const std::byte*>(p);
  auto it = d.buffers.upper_bound(const_cast<void*>(p));
  if (d.host_access || it == d.buffers.begin()) return false;
  const Buffer b = (--it)->second;
  for (const Buffer& o : d.opened) {
    if (o.begin == b.begin) return false;
  }
  if (at >= b.begin + b.bytes) return false;
  protect(b, PROT_READ | PROT_WRITE);
  d.opened.push_back(b);
  return true;
}

}  // namespace

namespace tessera::emulated {

bool fails_now(const char* call, cudaError_t* error) {
  ++device().calls[call];
  auto& planned = device().planned;
  for (const char* name : {call, "*"}) {
    const auto it = planned.find(name);
    if (it == planned.end() || --it->second.in > 0) continue;
    *error = remember(it->second.error);
    if (--it->second.times == 0) planned.erase(it);
    return true;
  }
  return false;
}

void fail_call(const std::string& name, int nth, cudaError_t error, int times) { device().planned[name] = {nth, times, error}; }

void allow_host_access(bool allow) {
  Device& d = device();
  d.host_access = allow;
  d.opened.clear();
  for (const auto& [p, b] : d.buffers) protect(b, allow ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void close_buffers() {
  for (const Buffer& b : device().opened) protect(b, PROT_NONE);
  device().opened.clear();
}

void copy(void* to, const void* from, size_t bytes) {
  open_buffer(to);
  open_buffer(from);
  std::memcpy(to, from, bytes);
  close_buffers();
}

bool is_device_address(const void* p) { return size_t(static_cast<const std::byte*>(p) - device().memory) < kDeviceBytes; }

Buffer* buffer_before(const void* p) {
  static Buffer* last = nullptr;  // most accesses go where the one before went
  static uint64_t change = 0;
  Device& d = device();
  const auto* const b = static_cast<const std::byte*>(p);
  if (last != nullptr && change == d.changes && b >= last->begin && b < last->begin + last->bytes) return last;
  auto it = d.buffers.upper_bound(const_cast<void*>(p));
  change = d.changes;
  last = it == d.buffers.begin() ? nullptr : &std::prev(it)->second;
  return last;
}

void defer_copies(bool defer) { device().defer_copies = defer; }

cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (const cudaError_t error = accept(stream); error != cudaSuccess) return error;
  if (!capturing(stream)) return work();
  cudaError_t planned = cudaSuccess;
  if (fails_now("capture", &planned)) return planned;
  stream->capture->nodes.push_back({std::move(work), std::exchange(stream->frontier, {stream->capture->nodes.size()})});
  return cudaSuccess;
}

uint64_t capture_of(cudaStream_t stream) { return capturing(stream) ? stream->capture->number : 0; }

uint64_t calls(const std::string& name) {
  const auto it = device().calls.find(name);
  return it == device().calls.end() ? 0 : it->second;
}

int live_buffers() { return int(device().buffers.size()); }

namespace {
void on_fault(int signal_number, siginfo_t* info, void*) {
  auto* const p = static_cast<std::byte*>(info->si_addr);
  if (!inside_kernel()) {
    std::signal(signal_number, SIG_DFL);
    return;  // the instruction faults again, now for the system
  }
  if (open_buffer(p)) return;  // the instruction is tried again
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, signal_number);
  sigprocmask(SIG_UNBLOCK, &mask, nullptr);  // the handler is left by a switch of fibers, not by returning
  const Device& d = device();
  const bool ours = p >= d.memory && p < d.memory + kDeviceBytes;
  stop_at_fault(p, ours ? "device memory outside any buffer is accessed at" : "bad access (null, wild or misaligned) at");
}
}  // namespace

FaultHandler::FaultHandler() {
  static std::byte alternate[64 << 10];  // the faulting stack may be the full one
  stack_t stack{};
  stack.ss_sp = alternate;
  stack.ss_size = sizeof alternate;
  sigaltstack(&stack, &stack_);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &segv_);
  sigaction(SIGBUS, &action, &bus_);
}

FaultHandler::~FaultHandler() {
  sigaction(SIGSEGV, &segv_, nullptr);
  sigaction(SIGBUS, &bus_, nullptr);
  sigaltstack(&stack_, nullptr);
}

}  // namespace tessera::emulated

#define TESSERA_MAY_FAIL()                                                            \
  do {                                                                                \
    cudaError_t planned_error = cudaSuccess;                                          \
    if (tessera::emulated::fails_now(__func__, &planned_error)) return planned_error; \
  } while (false)

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

cudaError_t cudaGetLastError() { return std::exchange(device().last, cudaSuccess); }

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

cudaError_t cudaMemGetInfo(size_t* left, size_t* total) {
  TESSERA_MAY_FAIL();
  const Device& d = device();
  *total = kDeviceBytes;
  *left = kDeviceBytes - size_t(d.top - d.memory);
  return cudaSuccess;
}

// A buffer ends within 255 bytes of an unmapped page, and what lies between is checked when it is freed; addresses are never given
// out twice, so an access after that faults.
cudaError_t cudaMalloc(void** p, size_t bytes) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbidden_while_capturing(); error != cudaSuccess) return error;
  Device& d = device();
  if (d.memory == nullptr) {
    void* const all = mmap(nullptr, kDeviceBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) std::abort();
    d.memory = d.top = static_cast<std::byte*>(all);
  }
  const size_t aligned = (bytes + 255) / 256 * 256;
  const size_t mapped = whole_pages(aligned);
  if (mapped + kPage > size_t(d.memory + kDeviceBytes - d.top)) return remember(cudaErrorMemoryAllocation);
  if (mprotect(d.top, mapped, PROT_READ | PROT_WRITE) != 0) return remember(cudaErrorMemoryAllocation);
  std::byte* const begin = d.top + mapped - aligned;
  std::memset(d.top, 0xFF, mapped);
  std::memset(begin + bytes, kCanary, aligned - bytes);
  d.top += mapped + kPage;
  d.buffers[begin] = {begin, bytes};
  if (!d.host_access) protect({begin, bytes}, PROT_NONE);
  d.buffers[begin] = {begin, bytes, nullptr};
  ++d.changes;
  *p = bytes == 0 ? nullptr : begin;
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbidden_while_capturing(); error != cudaSuccess) return error;
  if (p == nullptr) return cudaSuccess;
  Device& d = device();
  const auto it = d.buffers.find(p);
  if (it == d.buffers.end()) return remember(cudaErrorInvalidValue);
  const Buffer b = it->second;
  protect(b, PROT_READ | PROT_WRITE);
  std::byte* const end = b.begin + (b.bytes + 255) / 256 * 256;
  for (const std::byte* at = b.begin + b.bytes; at < end; ++at) {
    if (*at == std::byte{kCanary}) continue;
    report("a device buffer of %zu bytes was written past its end", b.bytes);
    break;
  }
  std::byte* const from = page_of(b.begin);
  mprotect(from, size_t(end - from), PROT_NONE);
  madvise(from, size_t(end - from), MADV_DONTNEED);
  std::free(b.shadow);
  d.buffers.erase(it);
  ++d.changes;
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, size_t bytes) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbidden_while_capturing(); error != cudaSuccess) return error;
  *p = std::aligned_alloc(kPage, whole_pages(bytes));
  return *p != nullptr ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void* p) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbidden_while_capturing(); error != cudaSuccess) return error;
  std::free(p);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  TESSERA_MAY_FAIL();
  return submit_copy(stream, [=] {
    tessera::emulated::copy(to, from, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  TESSERA_MAY_FAIL();
  return tessera::emulated::submit(stream, [=] {
    open_buffer(p);
    std::memset(p, value, bytes);
    tessera::emulated::close_buffers();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  TESSERA_MAY_FAIL();
  device().streams.insert(*stream = new CUstream_st);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  TESSERA_MAY_FAIL();
  device().streams.insert(*stream = new CUstream_st{.waits_for_default = flags != cudaStreamNonBlocking});
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  TESSERA_MAY_FAIL();
  if (capturing(stream)) {
    const std::shared_ptr<Capture> capture = stream->capture;
    if (stream == capture->origin) end(capture);
    capture->streams.erase(stream);
  }
  device().streams.erase(stream);
  const cudaError_t error = run_late(stream);
  delete stream;
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  TESSERA_MAY_FAIL();
  if (capturing(stream)) return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t error = run_late(stream); error != cudaSuccess) return error;
  return accept(stream);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  TESSERA_MAY_FAIL();
  if (stream == nullptr || capturing(stream)) return remember(cudaErrorStreamCaptureUnsupported);
  Device& d = device();
  stream->capture = std::make_shared<Capture>(Capture{.number = ++d.captures_begun, .origin = stream, .mode = mode});
  stream->capture->streams.insert(stream);
  d.captures.insert(stream->capture);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  TESSERA_MAY_FAIL();
  if (!capturing(stream)) return remember(cudaErrorInvalidValue);
  const std::shared_ptr<Capture> capture = stream->capture;
  *graph = nullptr;
  if (stream != capture->origin) return invalidate(*capture, cudaErrorStreamCaptureUnmatched);
  const bool complete = joined(*capture, stream->frontier);
  end(capture);
  if (capture->invalidated) return remember(cudaErrorStreamCaptureInvalidated);
  if (!complete) return remember(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{std::move(capture->nodes)};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  TESSERA_MAY_FAIL();
  *status = !capturing(stream)             ? cudaStreamCaptureStatusNone
            : stream->capture->invalidated ? cudaStreamCaptureStatusInvalidated
                                           : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  TESSERA_MAY_FAIL();
  std::swap(*mode, device().thread_mode);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  TESSERA_MAY_FAIL();
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  TESSERA_MAY_FAIL();
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  TESSERA_MAY_FAIL();
  return tessera::emulated::submit(stream, [exec] { return run_graph(exec->nodes); });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  TESSERA_MAY_FAIL();
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  TESSERA_MAY_FAIL();
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  TESSERA_MAY_FAIL();
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  TESSERA_MAY_FAIL();
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  TESSERA_MAY_FAIL();
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = accept(stream); error != cudaSuccess) return error;
  *event = {.stream = stream};
  if (capturing(stream)) event->capture = stream->capture, event->frontier = stream->frontier;
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbid_captured(event); error != cudaSuccess) return error;
  const bool waits = event->stream != nullptr && device().streams.contains(event->stream) && !event->stream->late.empty();
  return waits ? cudaErrorNotReady : cudaSuccess;
}

// More than was recorded may run here; never less.
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbid_captured(event); error != cudaSuccess) return error;
  return run_late(event->stream);
}

// Kernels run when they are launched, so the waiting is done now. A copy that has to wait for kernels waits for none. A stream that
// waits for an event of a capture takes part in it from then on.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = accept(stream); error != cudaSuccess) return error;
  if (event->capture == nullptr) {
    if (capturing(stream) && event->stream != nullptr) return invalidate(*stream->capture, cudaErrorStreamCaptureIsolation);
    return run_late(event->stream);
  }
  if (event->capture->ended) return remember(cudaErrorCapturedEvent);
  if (stream == nullptr) return invalidate(*event->capture, cudaErrorStreamCaptureUnsupported);
  if (capturing(stream) && stream->capture != event->capture) return invalidate(*event->capture, cudaErrorStreamCaptureMerge);
  stream->capture = event->capture;
  stream->capture->streams.insert(stream);
  stream->frontier.insert(event->frontier.begin(), event->frontier.end());
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* of, const void*) {
  of->ptxVersion = 90;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
  TESSERA_MAY_FAIL();
  return value <= (227 << 10) ? cudaSuccess : remember(cudaErrorInvalidValue);
}
