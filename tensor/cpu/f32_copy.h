// Dense f32 copies of bf16 images and filters, for convolutions on a CPU that has no fast bf16 arithmetic.
#pragma once

#include "tensor/cpu/conv_scratch.h"
#include "tensor/views.h"

namespace tessera::cpu {

class F32Copy {
 public:
  // `read`: starts with the values of the view; else only its size is taken. A view without memory gives an empty copy.
  explicit F32Copy(const ImageView& v, bool read = true);
  explicit F32Copy(const FilterView& v);

  ImageView image() const { return {memory_.get(), DType::kF32, size_[0], size_[1], size_[2], size_[3], size_[3]}; }
  FilterView filter() const { return {memory_.get(), DType::kF32, size_[0], size_[1], size_[2], size_[3]}; }
  void round_to(const ImageView& v) const;  // of the same size

 private:
  Shape size_;
  HostScratch<float> memory_;
};

}  // namespace tessera::cpu
