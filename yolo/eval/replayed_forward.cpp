#include "yolo/eval/replayed_forward.h"

#include "autograd/grad_mode.h"
#include "tensor/backend.h"

namespace tessera {

void ReplayedForward::place(const Tensor& images) {
  const Device device = model_.device();
  if (device == Device::cpu()) {
    images_ = normalize(images, model_.compute_type()).data();
    return;
  }
  if (!replay_ || images_.shape() != images.shape()) {
    outputs_ = {};
    // Whatever cannot be recorded runs call by call; its outputs were of the recording that failed.
    replay_.emplace([device] { return backend_for(device).recorder(); }, [this](const std::string&) { outputs_ = {}; });
    images_ = Tensor::empty(images.shape(), DType::kU8, device);
  }
  const Tensor dense = images.contiguous();
  backend_for(device).upload(images_.raw(), dense.raw(), size_t(dense.numel()));
}

RawOutputs ReplayedForward::run() {
  const NoGrad no_grad;
  if (!replay_) return model_.forward(Variable(images_));
  replay_->run({}, 0, [&] {
    outputs_ = {};  // not beside the new ones
    outputs_ = model_.forward(Variable(images_));
  });
  return outputs_;
}

}  // namespace tessera
