#include <cmath>
#include <numbers>

#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {
// Block of words 4b .. 4b+3 of a stream: the same words that Rng(seed, purpose, index) reads in order.
std::array<uint32_t, 4> block(const RandomStream& s, int64_t b) {
  return philox4x32({uint32_t(b), uint32_t(s.purpose), s.index, 0}, {uint32_t(s.seed), uint32_t(s.seed >> 32)});
}
}  // namespace

void RefBackend::uniform(RowsView y, const RandomStream& s, double low, double high) {
  ref::for_floating(y.t, [&]<class T>() {
    const int64_t n = y.rows * y.cols;
    for (int64_t i = 0; i < n; ++i) {
      const double unit = double(block(s, i / 4)[size_t(i % 4)] >> 8) * 0x1p-24;
      data<T>(y)[i] = ref::rounded<T>(low + (high - low) * unit);
    }
  });
}

void RefBackend::normal(RowsView y, const RandomStream& s, double mean, double deviation) {
  ref::for_floating(y.t, [&]<class T>() {
    const int64_t n = y.rows * y.cols;
    for (int64_t i = 0; i < n; ++i) {
      const auto words = block(s, i / 4);
      const size_t pair = size_t(i % 4 / 2 * 2);
      const double radius = std::sqrt(-2.0 * std::log((words[pair] + 0.5) * 0x1p-32));
      const double angle = 2.0 * std::numbers::pi * (words[pair + 1] + 0.5) * 0x1p-32;
      data<T>(y)[i] = ref::rounded<T>(mean + deviation * radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)));
    }
  });
}

}  // namespace tessera
