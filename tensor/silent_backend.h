// A backend that computes nothing, with an allocator whose pages nobody touches: what a piece of work would allocate is counted
// without the memory being there. For rehearsals of any size on any machine.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "tensor/beside.h"
#include "tensor/host_range.h"
#include "tensor/observing_backend.h"

namespace tessera {

// Addresses without memory: a page comes into being when it is touched. For the host in one range, as host_allocator() has it.
inline CachingAllocator::Raw untouched_memory(Device::Kind kind) {
  CachingAllocator::Raw raw{[](size_t bytes) -> void* {
                              void* p =
                                  mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
                              return p == MAP_FAILED ? nullptr : p;
                            },
                            [](void* p, size_t bytes) { munmap(p, bytes); }};
  if (kind == Device::Kind::kCpu) {
    const auto range = std::make_shared<HostRange>();
    raw.extend = [range](size_t bytes) { return range->extend(bytes); };
    raw.shrink = [range](size_t bytes) { range->shrink(bytes); };
  }
  return raw;
}

// Every op is left out; what comes down from a device is zero. Of what ops take meanwhile that of convolutions is counted, and
// detect's, which grows with images, anchors and classes.
class SilentBackend : public ObservingBackend {
 public:
  explicit SilentBackend(Backend& inner)
      : ObservingBackend(inner), allocator_(untouched_memory(inner.device_kind())), beside_(allocator_, inner.calls_beside()) {}
  CachingAllocator& allocator() override { return allocator_; }
  void synchronize() override {}
  void join_calls_beside() override { beside_.joined(); }
  void download(void* host, const void*, size_t bytes) override { std::memset(host, 0, bytes); }
  void detect(const DetectInput& in, const DetectParams& params, float*, float*) override {
    take(inner().detect_scratch_bytes(in, params));
  }
  void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue&) override {
    take(inner().conv2d_scratch(ConvPass::kForward, x, w, y, p));
  }
  void conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double, const RunningStatsView&, void*,
                         void*) override {
    take(inner().conv2d_scratch(ConvPass::kForward, x, w, y, p));
  }
  void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool) override {
    take(inner().conv2d_scratch(ConvPass::kBackwardData, dx, w, dy, p));
  }
  void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool) override {
    take(inner().conv2d_scratch(ConvPass::kBackwardWeight, x, dw, dy, p));
    count_beside();
  }
  void bias_backward(RowsView, void*, bool) override { count_beside(); }
  void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void*) override {
    take(inner().conv_transpose2x2_scratch(ConvPass::kForward, x, w, y));
  }
  void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool) override {
    take(inner().conv_transpose2x2_scratch(ConvPass::kBackwardData, dx, w, dy));
  }
  void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool) override {
    take(inner().conv_transpose2x2_scratch(ConvPass::kBackwardWeight, x, dw, dy));
    count_beside();
  }
  // Of each thread, the most that any call asked for since.
  void reset_thread_scratch() { thread_scratch_ = 0; }
  int64_t thread_scratch_bytes() const { return thread_scratch_; }

 protected:
  void observe(const OpCost&, const std::function<void()>&) override {}

 private:
  void take(int64_t bytes) {
    if (bytes > 0) allocator_.release(allocator_.allocate(size_t(bytes)));
  }
  // As the device would hold back what the call reads.
  void count_beside() {
    if (!BesideGuard::here() || inner().calls_beside() == 0) return;
    beside_.begin();
    beside_.end();
  }
  void take(const ConvScratch& scratch) {
    take(scratch.call);
    thread_scratch_ = std::max(thread_scratch_, scratch.thread);
  }

  CachingAllocator allocator_;
  BesideMemory beside_;
  int64_t thread_scratch_ = 0;
};

}  // namespace tessera
