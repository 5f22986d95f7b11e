// Parcels of tensors on their way from the host to a device while it works on others.
//
//   send()  into pinned memory at once, from there into device memory beside whatever runs
//   take()  what is started from now on waits for the parcel that was sent longest ago, and may read it until the next take()
#pragma once

#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace tessera {

class UploadRing {
 public:
  static constexpr int kSlots = 2;
  virtual ~UploadRing() = default;

  // Dense tensors of the host, which are free on return. There are kSlots parcels at most, the one that was taken last included.
  // Error(kMemory): no pinned or device memory; the parcel is not sent.
  virtual void send(std::span<const Tensor> parts) = 0;
  virtual std::vector<Tensor> take() = 0;  // on the device, in the order of send()
  virtual int waiting() const = 0;         // parcels that were sent and not taken
};

}  // namespace tessera
