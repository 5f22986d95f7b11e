#include "tensor/tensor.h"

#include <algorithm>
#include <utility>

#include "tensor/backend.h"
#include "tensor/ops/copy.h"

namespace tessera {

namespace {
// Rank-0 and one-sized axes never matter for layout.
bool rows_are_even(const Shape& shape, const Strides& strides, int64_t& pitch) {
  const int rank = shape.rank();
  if (rank == 0) return pitch = 1, true;
  if (shape[rank - 1] > 1 && strides[rank - 1] != 1) return false;
  pitch = shape[rank - 1];
  int64_t expected = -1;  // stride that the next outer axis must have
  for (int i = rank - 2; i >= 0; --i) {
    if (shape[i] == 1) continue;
    if (expected < 0) {
      pitch = strides[i];
      if (pitch < shape[rank - 1]) return false;
    } else if (strides[i] != expected) {
      return false;
    }
    expected = strides[i] * shape[i];
  }
  return true;
}

// Of a dense tensor. Sizes come from arguments and files: a product that wrapped around could ask for a small block. A size of 0
// does not excuse the others, whose products are strides.
size_t bytes_of(const Shape& shape, DType type) {
  bool empty = false;
  int64_t bytes = int64_t(size_of(type));
  for (const int64_t d : shape) {
    TESSERA_CHECK(d >= 0, "negative size in shape {}", tessera::to_string(shape));
    empty = empty || d == 0;
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(d, 1), &bytes)) {
      throw Error(ErrorCode::kMemory, fmt::format("a tensor of shape {} is larger than any memory", tessera::to_string(shape)), {},
                  "use a smaller batch or image size");
    }
  }
  return empty ? 0 : size_t(bytes);
}
}  // namespace

Tensor Tensor::empty(const Shape& shape, DType type, Device device) {
  const size_t bytes = bytes_of(shape, type);
  Tensor t;
  t.shape_ = shape;
  t.strides_ = dense_strides(shape);
  t.type_ = type;
  t.storage_ = std::make_shared<Storage>(device, bytes, allocator_for(device));
  t.version_ = std::make_shared<std::atomic<uint64_t>>(0);
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType type, Device device) { return full(shape, 0.0, type, device); }

Tensor Tensor::full(const Shape& shape, double value, DType type, Device device) {
  Tensor t = empty(shape, type, device);
  t.fill(value);
  return t;
}

Tensor Tensor::scalar(double value, DType type) { return full({}, value, type); }

Tensor Tensor::from_floats(std::initializer_list<float> values, const Shape& shape) {
  return from_vector(std::vector<float>(values), shape);
}

Tensor Tensor::wrap(void* p, const Shape& shape, DType type, std::shared_ptr<const void> owner) {
  Tensor t;
  t.shape_ = shape;
  t.strides_ = dense_strides(shape);
  t.type_ = type;
  t.storage_ = std::make_shared<Storage>(Device::cpu(), p, size_t(tessera::numel(shape)) * size_of(type), std::move(owner));
  t.version_ = std::make_shared<std::atomic<uint64_t>>(0);
  return t;
}

Layout Tensor::layout() const {
  int64_t pitch = 0;
  if (!rows_are_even(shape_, strides_, pitch)) return Layout::kGeneral;
  return rank() == 0 || pitch == shape_.back() ? Layout::kDense : Layout::kPitched;
}

double Tensor::item() const {
  TESSERA_CHECK(numel() == 1, "item() of {}, expected one element", describe(*this));
  return *to(Device::cpu()).to(DType::kF64).data<double>();
}

Tensor Tensor::narrow(int axis, int64_t start, int64_t length) const {
  axis = normalize_axis(axis, rank());
  TESSERA_CHECK(start >= 0 && length >= 0 && start + length <= shape_[axis], "narrow [{}, {}) on axis {} of {}", start,
                start + length, axis, describe(*this));
  Tensor t = *this;
  t.offset_ += start * strides_[axis];
  t.shape_[axis] = length;
  // A version of its own: writes to one slice of a shared buffer do not invalidate what was saved of another.
  if (start != 0 || length != shape_[axis]) t.version_ = std::make_shared<std::atomic<uint64_t>>(0);
  return t;
}

Tensor Tensor::select(int axis, int64_t index) const {
  axis = normalize_axis(axis, rank());
  Tensor t = narrow(axis, index, 1);
  Shape shape;
  Strides strides;
  for (int i = 0; i < rank(); ++i) {
    if (i == axis) continue;
    shape.push_back(shape_[i]);
    strides.push_back(strides_[i]);
  }
  t.shape_ = shape;
  t.strides_ = strides;
  return t;
}

Tensor Tensor::view(const Shape& wanted) const {
  Shape shape = wanted;
  int64_t known = 1;
  int unknown = -1;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] < 0) {
      TESSERA_CHECK(unknown < 0, "view {}: only one size may be -1", tessera::to_string(wanted));
      unknown = i;
    } else {
      known *= shape[i];
    }
  }
  if (unknown >= 0) shape[unknown] = known == 0 ? 0 : numel() / known;
  TESSERA_CHECK(tessera::numel(shape) == numel(), "view of {} as {}: sizes differ", describe(*this), tessera::to_string(wanted));
  Tensor t = *this;
  t.shape_ = shape;
  t.strides_ = dense_strides(shape);
  int64_t pitch = 0;
  TESSERA_CHECK(rows_are_even(shape_, strides_, pitch), "view of {}: strides {} need a copy first", describe(*this),
                tessera::to_string(strides_));
  if (rank() > 0 && pitch != shape_.back()) {  // pitched: only the row axes may be regrouped
    TESSERA_CHECK(shape.rank() > 0 && shape.back() == shape_.back(), "view of pitched {} as {}: the last axis must stay",
                  describe(*this), tessera::to_string(wanted));
    int64_t stride = pitch;
    for (int i = shape.rank() - 2; i >= 0; --i) {
      t.strides_[i] = stride;
      stride *= shape[i];
    }
  }
  return t;
}

Tensor Tensor::permute(std::initializer_list<int> order) const {
  TESSERA_CHECK(int(order.size()) == rank(), "permute: {} axes for {}", order.size(), describe(*this));
  Tensor t = *this;
  std::array<bool, kMaxRank> seen{};
  int i = 0;
  for (int axis : order) {
    axis = normalize_axis(axis, rank());
    TESSERA_CHECK(!seen[size_t(axis)], "permute: axis {} twice", axis);
    seen[size_t(axis)] = true;
    t.shape_[i] = shape_[axis];
    t.strides_[i] = strides_[axis];
    ++i;
  }
  return t;
}

Tensor Tensor::expand(const Shape& shape) const {
  const int extra = shape.rank() - rank();
  TESSERA_CHECK(extra >= 0, "expand {} to {}", describe(*this), tessera::to_string(shape));
  Tensor t = *this;
  t.shape_ = shape;
  t.strides_ = Dims::filled(shape.rank(), 0);
  for (int i = 0; i < rank(); ++i) {
    TESSERA_CHECK(shape_[i] == shape[i + extra] || shape_[i] == 1, "expand {} to {}", describe(*this), tessera::to_string(shape));
    if (shape_[i] == shape[i + extra]) t.strides_[i + extra] = strides_[i];
  }
  return t;
}

Tensor Tensor::join_adjacent(const Tensor& left, const Tensor& right) {
  if (!left.defined() || !right.defined() || left.storage_ != right.storage_ || left.type_ != right.type_) return {};
  const int rank = left.rank();
  if (rank == 0 || right.rank() != rank) return {};
  for (int i = 0; i < rank - 1; ++i) {
    if (left.shape_[i] != right.shape_[i]) return {};
    if (left.shape_[i] > 1 && left.strides_[i] != right.strides_[i]) return {};
  }
  if (left.strides_[rank - 1] != 1 || right.strides_[rank - 1] != 1) return {};
  if (left.offset_ + left.shape_.back() != right.offset_) return {};
  Tensor t = left;
  t.shape_[rank - 1] = left.shape_.back() + right.shape_.back();
  int64_t pitch = 0;
  if (!rows_are_even(t.shape_, t.strides_, pitch)) return {};
  t.version_ = std::make_shared<std::atomic<uint64_t>>(0);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, type_, device());
  t.copy_from(*this);
  return t;
}

Tensor Tensor::contiguous() const { return is_dense() ? *this : clone(); }

Tensor Tensor::to(DType type) const {
  if (type == type_) return *this;
  Tensor t = empty(shape_, type, device());
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return *this;
  const Tensor dense = contiguous();
  Tensor t = empty(shape_, type_, device);
  const size_t bytes = size_t(numel()) * size_of(type_);
  if (device.kind == Device::Kind::kCpu) {
    backend_for(this->device()).download(t.raw(), dense.raw(), bytes);
  } else {
    const Tensor host = dense.to(Device::cpu());
    backend_for(device).upload(t.raw(), host.raw(), bytes);
  }
  return t;
}

void Tensor::copy_from(const Tensor& source) const { ops::copy(source.to(device()), *this); }

void Tensor::fill(double value) const { ops::fill(*this, value); }

StridedView Tensor::strided() const { return {raw(), type_, shape_, strides_}; }

RowsView Tensor::rows() const {
  int64_t pitch = 0;
  TESSERA_CHECK(rows_are_even(shape_, strides_, pitch), "rows of {} with strides {}: make it contiguous first", describe(*this),
                tessera::to_string(strides_));
  const int64_t cols = rank() == 0 ? 1 : shape_.back();
  return {raw(), type_, cols == 0 ? 0 : numel() / cols, cols, pitch};
}

ImageView Tensor::image() const {
  TESSERA_CHECK(rank() == 4, "image: {} is not (N, H, W, C)", describe(*this));
  const RowsView r = rows();
  return {r.p, type_, shape_[0], shape_[1], shape_[2], shape_[3], r.pitch};
}

FilterView Tensor::filter() const {
  TESSERA_CHECK(rank() == 4 && is_dense(), "filter: {} is not a dense (O, kH, kW, I)", describe(*this));
  return {raw(), type_, shape_[0], shape_[1], shape_[2], shape_[3]};
}

std::string describe(const Tensor& tensor) {
  if (!tensor.defined()) return "undefined tensor";
  return std::string(name_of(tensor.dtype())) + to_string(tensor.shape());
}

std::string to_string(const Tensor& tensor) {
  std::string text = describe(tensor);
  if (!tensor.defined() || tensor.numel() > 64) return text;
  text += " {";
  const auto values = tensor.to(Device::cpu()).to(DType::kF64).to_vector<double>();
  for (size_t i = 0; i < values.size(); ++i) text += fmt::format("{}{:g}", i ? ", " : "", values[i]);
  return text + "}";
}

}  // namespace tessera
