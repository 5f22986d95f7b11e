// A convolution and its gradients by the kernels that run when nobody chooses, held against those without warpgroups (direct) on
// the same device: the same bits. Operands are whole numbers, so that every sum is exact in f32 in whatever order it is formed, and
// no tolerance hides a tile that is missing; tensors are slices of wider ones, which are compared as a whole.
//
// What op cases cannot show on a GPU: they are so small there that a block has one tile, where a network's have many, one after the
// other through the same shared memory.
#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tensor/backend.h"
#include "tensor/base/scope.h"
#include "tensor/conv_choice.h"
#include "tensor/ops/copy.h"
#include "tensor/ops/random.h"
#include "tensor/tensor.h"

namespace tessera::testing {

struct ConvSize {
  int64_t n, h, w, in, out, k, stride;

  ConvParams params() const { return {stride, k / 2}; }
  Shape x() const { return {n, h, w, in}; }
  Shape filter() const { return {out, k, k, in}; }
  Shape y() const { return {n, (h + 2 * (k / 2) - k) / stride + 1, (w + 2 * (k / 2) - k) / stride + 1, out}; }
  std::string text() const { return fmt::format("{}x{} s{} {}x{}x{} {}->{}", k, k, stride, n, h, w, in, out); }
};

namespace conv_agreement {

inline const Device kDevice = Device::cuda();

// -1, 0 and 1.
inline Tensor whole_numbers(const Shape& shape, DType type, uint32_t stream) {
  const Tensor values = Tensor::empty(shape, DType::kF32, kDevice);
  ops::uniform(values, {7, RngPurpose::kTest, stream}, -2, 2);
  return values.to(DType::kI32).to(type);  // towards 0
}

// Some channels of a wider image.
struct Slice {
  Tensor wide, mine;
  explicit Slice(const Tensor& all) : wide(all), mine(all.narrow(3, 8, all.size(3) - 16)) {}
  ImageView image() const { return mine.image(); }
};
inline Shape wider(const Shape& s) { return {s[0], s[1], s[2], s[3] + 16}; }

// Where two tensors of one size differ, by their bits; empty: nowhere.
inline std::string difference(const Tensor& left, const Tensor& right) {
  const Tensor a = left.to(Device::cpu()), b = right.to(Device::cpu());
  const size_t size = size_of(a.dtype());
  const auto* const p = static_cast<const char*>(a.raw());
  const auto* const q = static_cast<const char*>(b.raw());
  if (std::memcmp(p, q, size_t(a.numel()) * size) == 0) return {};
  int64_t count = 0, first = -1;
  for (int64_t i = 0; i < a.numel(); ++i) {
    if (std::memcmp(p + size_t(i) * size, q + size_t(i) * size, size) == 0) continue;
    ++count;
    if (first < 0) first = i;
  }
  std::string place;
  for (int axis = a.rank() - 1, rest = 0; axis >= 0; --axis) {
    int64_t stride = 1;
    for (int inner = axis + 1; inner < a.rank(); ++inner) stride *= a.shape()[inner];
    place = fmt::format("{}{}{}", first / stride % a.shape()[axis], rest++ > 0 ? ", " : "", place);
  }
  return fmt::format("{} of {} numbers, the first at ({})", count, a.numel(), place);
}

// How far two pairs of statistics lie apart: the means in deviations, the deviations relative.
inline double distance(const Tensor (&mean)[2], const Tensor (&rstd)[2]) {
  const std::vector<float> m[2] = {mean[0].to_vector<float>(), mean[1].to_vector<float>()};
  const std::vector<float> r[2] = {rstd[0].to_vector<float>(), rstd[1].to_vector<float>()};
  double most = 0;
  for (size_t c = 0; c < m[0].size(); ++c) {
    for (const double off : {(double(m[0][c]) - double(m[1][c])) * double(r[1][c]), double(r[0][c]) / double(r[1][c]) - 1}) {
      if (!(std::abs(off) <= most)) most = std::abs(off);  // NaN too
    }
  }
  return most;
}

}  // namespace conv_agreement

inline void check_agreement(const ConvSize& s, DType type) {
  using namespace conv_agreement;
  CAPTURE(s.text());
  CAPTURE(name_of(type));
  static const char layers[2] = {};  // by their addresses: one whose kernels are own, one whose are direct
  set_conv_choice_of(&layers[0], ConvChoice::kOwn);
  set_conv_choice_of(&layers[1], ConvChoice::kDirect);
  Backend& b = backend_for(kDevice);
  const ConvParams p = s.params();
  const Slice x(whole_numbers(wider(s.x()), type, 1)), dy(whole_numbers(wider(s.y()), type, 2)),
      residual(whole_numbers(wider(s.y()), type, 3));
  const Tensor w = whole_numbers(s.filter(), type, 4), bias = whole_numbers({s.out}, DType::kF32, 5);

  // By both kinds of kernels into what begins as `start`: f(result).
  const auto both = [&](const std::string& what, const Tensor& start, const auto& f) {
    Tensor results[2];
    for (int i = 0; i < 2; ++i) {
      const ScopeGuard scope(&layers[i]);
      results[i] = start.clone();
      f(results[i], i);
    }
    const std::string where = difference(results[0], results[1]);
    CHECK_MESSAGE(where.empty(), what, " differs from direct in ", where);
  };
  const Tensor y = whole_numbers(wider(s.y()), type, 6), dx = whole_numbers(wider(s.x()), type, 7);
  both("conv2d", y, [&](const Tensor& to, int) { b.conv2d(x.image(), w.filter(), Slice(to).image(), p, {}); });
  both("conv2d, bias and residual", y, [&](const Tensor& to, int) {
    ConvEpilogue e{.bias = bias.raw()};
    e.residual = residual.image();
    b.conv2d(x.image(), w.filter(), Slice(to).image(), p, e);
  });
  Tensor mean[2], rstd[2];
  both("conv2d_with_stats", y, [&](const Tensor& to, int i) {
    mean[i] = Tensor::zeros({s.out}, DType::kF32, kDevice);
    rstd[i] = Tensor::zeros({s.out}, DType::kF32, kDevice);
    b.conv2d_with_stats(x.image(), w.filter(), Slice(to).image(), p, 1e-3, {}, mean[i].raw(), rstd[i].raw());
  });
  CHECK(distance(mean, rstd) <= 1e-5);
  for (const bool accumulate : {false, true}) {
    const char* const added = accumulate ? ", added" : "";
    both(fmt::format("conv2d_backward_data{}", added), dx,
         [&](const Tensor& to, int) { b.conv2d_backward_data(dy.image(), w.filter(), Slice(to).image(), p, accumulate); });
    both(fmt::format("conv2d_backward_weight{}", added), whole_numbers(s.filter(), DType::kF32, 8),
         [&](const Tensor& to, int) { b.conv2d_backward_weight(x.image(), dy.image(), to.filter(), p, accumulate); });
  }
  for (const char& layer : layers) set_conv_choice_of(&layer, ConvChoice::kAuto);
}

}  // namespace tessera::testing
