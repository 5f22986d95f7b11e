// Tensor: a cheap-to-copy handle on strided memory. It holds no gradient (autograd/variable.h does).
// Images are (N, H, W, C), filters (O, kH, kW, I).
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "tensor/base/check.h"
#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/storage.h"
#include "tensor/views.h"

namespace tessera {

// Dense: row-major without gaps. Pitched: dense but for a gap after each innermost run (a channel slice). General: anything else.
enum class Layout { kDense, kPitched, kGeneral };

class Tensor {
 public:
  Tensor() = default;  // undefined; defined() is false

  static Tensor empty(const Shape& shape, DType type = DType::kF32, Device device = {});  // holds what was there
  static Tensor zeros(const Shape& shape, DType type = DType::kF32, Device device = {});
  static Tensor full(const Shape& shape, double value, DType type = DType::kF32, Device device = {});
  static Tensor scalar(double value, DType type = DType::kF32);
  template <class T>
  static Tensor from_vector(const std::vector<T>& values, const Shape& shape);
  static Tensor from_floats(std::initializer_list<float> values, const Shape& shape);
  // Wraps memory of somebody else (dense, CPU); `owner` is kept alive as long as any view of it.
  static Tensor wrap(void* p, const Shape& shape, DType type, std::shared_ptr<const void> owner);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  const Strides& strides() const { return strides_; }
  int rank() const { return shape_.rank(); }
  int64_t size(int axis) const { return shape_[normalize_axis(axis, rank())]; }
  int64_t numel() const { return tessera::numel(shape_); }
  DType dtype() const { return type_; }
  Device device() const { return storage_->device(); }
  Layout layout() const;
  bool is_dense() const { return layout() == Layout::kDense; }

  void* raw() const { return storage_->data() + offset_ * int64_t(size_of(type_)); }
  template <class T>
  T* data() const;               // first element; checks the type
  double item() const;           // the value of a one-element tensor
  template <class T>
  std::vector<T> to_vector() const;  // row-major copy; checks the type

  // Views: share memory, never copy. An axis below 0 counts from the end.
  Tensor narrow(int axis, int64_t start, int64_t length) const;
  Tensor select(int axis, int64_t index) const;      // narrow to one and drop the axis
  Tensor view(const Shape& shape) const;             // one size may be -1; an error where it would take a copy
  Tensor permute(std::initializer_list<int> order) const;
  Tensor expand(const Shape& shape) const;           // broadcast by stride 0
  // The tensor that covers `left` and then `right` along the last axis, when they lie so in memory (two channel slices of one
  // buffer); undefined otherwise.
  static Tensor join_adjacent(const Tensor& left, const Tensor& right);

  // Copies.
  Tensor clone() const;                              // dense
  Tensor contiguous() const;                         // itself when dense
  Tensor to(DType type) const;                       // itself when the type is equal
  Tensor to(Device device) const;                    // dense, on the other device; itself when it is there
  void copy_from(const Tensor& source) const;        // same shape, any type and device; bumps the version
  void fill(double value) const;

  StridedView strided() const;
  RowsView rows() const;      // all but the last axis as rows; Dense or Pitched only
  ImageView image() const;    // rank 4; Dense or Pitched only
  FilterView filter() const;  // rank 4, Dense

  // Counts writes through bump_version(); shared by all views of the same region start, so that a slice filled in turn does not
  // raise a false alarm for its neighbours. Used by autograd's saved tensors.
  uint64_t version() const { return version_ ? version_->load(std::memory_order_relaxed) : 0; }
  void bump_version() const { version_->fetch_add(1, std::memory_order_relaxed); }

  bool shares_storage(const Tensor& other) const { return storage_ == other.storage_; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  int64_t offset() const { return offset_; }

 private:
  std::shared_ptr<Storage> storage_;
  std::shared_ptr<std::atomic<uint64_t>> version_;
  int64_t offset_ = 0;  // elements from the start of the storage
  Shape shape_;
  Strides strides_;
  DType type_ = DType::kF32;
};

// "f32[2, 3]" and, for small tensors, the values.
std::string to_string(const Tensor& tensor);
std::string describe(const Tensor& tensor);  // "f32[2, 3]"

template <class T>
T* Tensor::data() const {
  TESSERA_CHECK(defined() && kDTypeOf<T> == type_, "tensor of {} read as {}", name_of(type_), name_of(kDTypeOf<T>));
  return static_cast<T*>(raw());
}

template <class T>
Tensor Tensor::from_vector(const std::vector<T>& values, const Shape& shape) {
  Tensor t = empty(shape, kDTypeOf<T>);
  TESSERA_CHECK(int64_t(values.size()) == t.numel(), "from_vector: {} values for shape {}", values.size(), to_string(shape));
  T* out = t.data<T>();
  for (size_t i = 0; i < values.size(); ++i) out[i] = values[i];
  return t;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor dense = to(Device::cpu()).contiguous();
  const T* p = dense.data<T>();
  return std::vector<T>(p, p + dense.numel());
}

}  // namespace tessera
