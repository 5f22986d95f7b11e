// Shape and Strides: up to five dimensions, held by value.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace tessera {

inline constexpr int kMaxRank = 5;

// A short list of sizes or strides, outermost first. Rank 0 is a scalar.
class Dims {
 public:
  Dims() = default;
  Dims(std::initializer_list<int64_t> values);  // at most kMaxRank values

  static Dims filled(int rank, int64_t value);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return values_[size_t(i)]; }
  int64_t& operator[](int i) { return values_[size_t(i)]; }
  int64_t back() const { return values_[size_t(rank_ - 1)]; }
  const int64_t* begin() const { return values_.data(); }
  const int64_t* end() const { return values_.data() + rank_; }
  void push_back(int64_t value);

  friend bool operator==(const Dims& a, const Dims& b);

 private:
  std::array<int64_t, kMaxRank> values_{};
  int rank_ = 0;
};

using Shape = Dims;    // elements per dimension, >= 0
using Strides = Dims;  // elements (not bytes) between neighbours

int64_t numel(const Shape& shape);             // product; 1 for rank 0
Strides dense_strides(const Shape& shape);     // row-major, innermost stride 1
std::string to_string(const Dims& dims);       // "[16, 80, 80, 64]"

// NumPy broadcasting: aligned at the last dimension, sizes equal or one of them 1. Error when they do not fit.
Shape broadcast(const Shape& a, const Shape& b);

// Axis counted from the end when negative; checked against rank.
int normalize_axis(int axis, int rank);

}  // namespace tessera
