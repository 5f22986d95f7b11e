// The ring of tensor/upload_ring.h: a stream of its own for the copies, two events for each slot.
//
// Note [Slots of the ring]: `arrived` is recorded on the copy stream behind a slot's copies; the work's stream waits for it in
// take(), and the host before it writes the pinned memory again. `read` is recorded on the work's stream when the next parcel is
// taken, behind all work that reads this one; the copy stream waits for it before it writes the slot's device memory again.
#include "tensor/upload_ring.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "cuda/context.h"
#include "cuda/cuda_backend.h"
#include "cuda/event.h"
#include "tensor/base/parallel.h"

namespace tessera {

namespace cuda {
namespace {

constexpr size_t kAlignment = 256;  // of a part in pinned memory, in bytes

size_t bytes_of(const Tensor& t) { return size_t(t.numel()) * size_of(t.dtype()); }
size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// A batch of images is more than one core copies within a step of a small network.
void copy(std::byte* to, const void* from, size_t bytes) {
  constexpr size_t kPiece = size_t{1} << 20;  // bytes, at a time on one thread
  parallel_chunks(int64_t((bytes + kPiece - 1) / kPiece), [&](int64_t i) {
    const size_t first = size_t(i) * kPiece;
    std::memcpy(to + first, static_cast<const std::byte*>(from) + first, std::min(kPiece, bytes - first));
  });
}

// Page-locked host memory, from which copies need no help of the CPU; it grows and never shrinks.
class PinnedBuffer {
 public:
  ~PinnedBuffer() { pinned_allocator().release(p_); }
  PinnedBuffer() = default;
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  std::byte* at_least(size_t bytes) {
    if (bytes > size_) {
      pinned_allocator().release(p_);
      p_ = nullptr, size_ = 0;
      p_ = static_cast<std::byte*>(pinned_allocator().allocate(bytes));
      size_ = bytes;
    }
    return p_;
  }

 private:
  std::byte* p_ = nullptr;
  size_t size_ = 0;
};

class Ring final : public UploadRing {
 public:
  ~Ring() override {
    // Copies may still write to the memory that goes back now.
    (void)cudaStreamSynchronize(stream_.get());
    (void)cudaStreamSynchronize(current_stream());
  }

  void send(std::span<const Tensor> parts) override {
    TESSERA_CHECK(waiting_ + (taken_ ? 1 : 0) < kSlots, "upload ring: all {} slots are in use", kSlots);
    Slot& slot = slots_[size_t(next_)];
    slot.arrived.wait();
    size_t total = 0;
    for (const Tensor& part : parts) {
      TESSERA_CHECK(part.device() == Device::cpu() && part.is_dense(), "upload ring: {}, expected a dense tensor of the host",
                    describe(part));
      total += aligned(bytes_of(part));
    }
    std::byte* pinned = slot.pinned.at_least(total);
    grow_buffers(slot, parts);
    slot.read.make_wait(stream_.get());
    slot.parts.clear();
    for (size_t i = 0; i < parts.size(); ++i) {
      const Tensor& part = parts[i];
      slot.parts.push_back(slot.buffers[i].narrow(0, 0, part.numel()).view(part.shape()));
      const size_t bytes = bytes_of(part);
      if (bytes == 0) continue;
      copy(pinned, part.raw(), bytes);
      TESSERA_CUDA_CHECK(cudaMemcpyAsync(slot.parts[i].raw(), pinned, bytes, cudaMemcpyHostToDevice, stream_.get()));
      pinned += aligned(bytes);
    }
    slot.arrived.record(stream_.get());
    next_ = (next_ + 1) % kSlots;
    ++waiting_;
  }

  std::vector<Tensor> take() override {
    TESSERA_CHECK(waiting_ > 0, "upload ring: nothing was sent");
    const int oldest = (next_ + kSlots - waiting_) % kSlots;
    if (taken_) slots_[size_t((oldest + kSlots - 1) % kSlots)].read.record(current_stream());
    Slot& slot = slots_[size_t(oldest)];
    slot.arrived.make_wait(current_stream());
    taken_ = true;
    --waiting_;
    return slot.parts;
  }

  int waiting() const override { return waiting_; }

 private:
  struct Slot {
    PinnedBuffer pinned;
    std::vector<Tensor> buffers;  // on the device, of one dimension, each at least as long as its part
    std::vector<Tensor> parts;    // views of them
    Event arrived, read;
  };

  void grow_buffers(Slot& slot, std::span<const Tensor> parts) {
    bool fresh = false;
    slot.buffers.resize(parts.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      Tensor& buffer = slot.buffers[i];
      const int64_t count = std::max<int64_t>(parts[i].numel(), 1);
      const bool same_type = buffer.defined() && buffer.dtype() == parts[i].dtype();
      if (same_type && buffer.numel() >= count) continue;
      // A quarter more than before, so that sizes which differ from batch to batch soon fit.
      const int64_t grown = same_type ? std::max(count, buffer.numel() + buffer.numel() / 4) : count;
      buffer = {};
      buffer = Tensor::empty({grown}, parts[i].dtype(), Device::cuda(device().index));
      fresh = true;
    }
    // The cache hands out memory in the order of the work's stream; the copy stream knows nothing of what is still running there.
    if (fresh) synchronize();
  }

  SideStream stream_;
  std::array<Slot, kSlots> slots_;
  int next_ = 0;        // slot of the next parcel
  int waiting_ = 0;
  bool taken_ = false;  // the parcel before the oldest is in use
};

}  // namespace
}  // namespace cuda

std::unique_ptr<UploadRing> CudaBackend::upload_ring() { return std::make_unique<cuda::Ring>(); }

}  // namespace tessera
