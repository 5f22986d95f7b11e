// Streams of the emulated GPU, their events, captures and graphs. All streams run at once, in the caller; a stream that is captured
// keeps its work for a graph, and refuses what a real one refuses. A graph runs in an order drawn from the seed, of those that its
// dependencies allow: a wait that was forgotten shows as a wrong result.
#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/machine.h"

using Work = std::function<cudaError_t()>;

// Positions in Capture::nodes; whoever comes next waits for these.
using Frontier = std::set<size_t>;

struct Node {
  Work work;
  Frontier after;
  bool forked;  // of another stream than the one that the capture began with
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

using namespace tessera::emulated;

namespace {

struct Streams {
  std::set<std::shared_ptr<Capture>> captures;  // alive
  uint64_t captures_begun = 0, graph_launches = 0;
  cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
  std::set<cudaStream_t> alive;
  bool defer_copies = false, delay_forks = false;
};
Streams& streams() {
  static Streams s;
  return s;
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
  for (const auto& capture : streams().captures) {
    for (cudaStream_t s : capture->streams) {
      if (s->waits_for_default) return invalidate(*capture, cudaErrorStreamCaptureImplicit);
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
  streams().captures.erase(capture);
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

// In the order of the capture (seed 0), or in another that the dependencies allow: drawn, or what has forked as late as can
// be, of that the oldest last.
cudaError_t run_graph(const std::vector<Node>& nodes) {
  std::mt19937_64 random(seed() * 1000003 + ++streams().graph_launches);
  std::vector<size_t> missing(nodes.size());
  std::vector<std::vector<size_t>> next(nodes.size());
  std::set<size_t> ready;
  for (size_t i = 0; i < nodes.size(); ++i) {
    missing[i] = nodes[i].after.size();
    if (missing[i] == 0) ready.insert(i);
    for (const size_t j : nodes[i].after) next[j].push_back(i);
  }
  while (!ready.empty()) {
    const size_t skipped = seed() == 0 ? 0 : random() % ready.size();
    auto chosen = std::next(ready.begin(), ptrdiff_t(skipped));
    if (streams().delay_forks) {
      chosen = std::find_if(ready.begin(), ready.end(), [&](size_t i) { return !nodes[i].forked; });
      if (chosen == ready.end()) chosen = std::prev(ready.end());
    }
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
  if (stream == nullptr || !streams().alive.contains(stream)) return cudaSuccess;
  for (auto& work : std::exchange(stream->late, {})) {
    if (const cudaError_t error = work(); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}
cudaError_t submit_copy(cudaStream_t stream, Work work) {
  const bool late = stream != nullptr && !capturing(stream) && !stream->waits_for_default && streams().defer_copies;
  if (!late) return submit(stream, std::move(work));
  stream->late.push_back(std::move(work));
  return cudaSuccess;
}

}  // namespace

namespace tessera::emulated {

cudaError_t forbidden_while_capturing() {
  for (const auto& capture : streams().captures) {
    if (capture->mode != cudaStreamCaptureModeRelaxed && streams().thread_mode != cudaStreamCaptureModeRelaxed) {
      return invalidate(*capture, cudaErrorStreamCaptureUnsupported);
    }
  }
  return cudaSuccess;
}

void defer_copies(bool defer) { streams().defer_copies = defer; }
void delay_forks(bool delay) { streams().delay_forks = delay; }

// In a graph it has one kernel before it: of several nobody promises which it is brought onto the device beside.
cudaError_t accept_early(cudaStream_t stream) {
  return capturing(stream) && stream->frontier.size() > 1 ? remember(cudaErrorInvalidValue) : cudaSuccess;
}

cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (const cudaError_t error = accept(stream); error != cudaSuccess) return error;
  if (!capturing(stream)) return work();
  cudaError_t planned = cudaSuccess;
  if (fails_now("capture", &planned)) return planned;
  Capture& capture = *stream->capture;
  capture.nodes.push_back({std::move(work), std::exchange(stream->frontier, {capture.nodes.size()}), stream != capture.origin});
  return cudaSuccess;
}

uint64_t capture_of(cudaStream_t stream) { return capturing(stream) ? stream->capture->number : 0; }

}  // namespace tessera::emulated

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  TESSERA_MAY_FAIL();
  return submit_copy(stream, [=] {
    copy(to, from, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  TESSERA_MAY_FAIL();
  return submit(stream, [=] {
    set(p, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  TESSERA_MAY_FAIL();
  streams().alive.insert(*stream = new CUstream_st);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  TESSERA_MAY_FAIL();
  streams().alive.insert(*stream = new CUstream_st{.waits_for_default = flags != cudaStreamNonBlocking});
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  TESSERA_MAY_FAIL();
  streams().alive.insert(*stream = new CUstream_st{.waits_for_default = flags != cudaStreamNonBlocking});
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  TESSERA_MAY_FAIL();
  *least = 0, *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  TESSERA_MAY_FAIL();
  if (capturing(stream)) {
    const std::shared_ptr<Capture> capture = stream->capture;
    if (stream == capture->origin) end(capture);
    capture->streams.erase(stream);
  }
  streams().alive.erase(stream);
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
  stream->capture = std::make_shared<Capture>(Capture{.number = ++streams().captures_begun, .origin = stream, .mode = mode});
  stream->capture->streams.insert(stream);
  streams().captures.insert(stream->capture);
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
  std::swap(*mode, streams().thread_mode);
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
  return submit(stream, [exec] { return run_graph(exec->nodes); });
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
  const bool waits = event->stream != nullptr && streams().alive.contains(event->stream) && !event->stream->late.empty();
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
