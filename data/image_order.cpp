#include "data/image_order.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "tensor/base/rng.h"

namespace tessera {

std::vector<int64_t> shuffled_order(int64_t n, uint64_t seed, int epoch) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t(0));
  Rng rng(seed, RngPurpose::kShuffle, uint64_t(epoch));
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[size_t(i)], order[size_t(rng.below(i + 1))]);
  return order;
}

std::vector<int64_t> original_order(int64_t n, int64_t batch, int epoch, int reset_epoch) {
  std::mt19937 draw(uint32_t(6148914691236517204u));  // the low half of the constant is the seed
  const auto new_iterator = [&] { draw.discard(2); };
  const uint64_t permutation = uint64_t(n > 0 ? n - 1 : 0);
  new_iterator();
  for (int e = 0; e < epoch; ++e) {
    draw.discard(permutation);
    // The end of a permutation, where the second is drawn, is reached with a last smaller batch, or when the next epoch begins.
    const bool reset = e + 1 == reset_epoch;
    if (!reset || n % std::min(batch, n) != 0) draw.discard(permutation);
    if (reset) new_iterator();
  }
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t(0));
  for (int64_t i = 0; i + 1 < n; ++i) std::swap(order[size_t(i)], order[size_t(i + int64_t(draw() % uint32_t(n - i)))]);
  return order;
}

MosaicBuffer roll_buffer(const std::vector<int64_t>& order, std::span<const int64_t> held, int64_t batch) {
  const int64_t n = int64_t(order.size());
  MosaicBuffer b;
  // The original takes the oldest out as soon as the limit is reached, so one less is held.
  b.capacity = std::max<int64_t>(1, std::min<int64_t>({n, 8 * batch, 1000}) - 1);
  b.entries.assign(held.begin(), held.end());
  b.entries.reserve(held.size() + order.size());
  b.end.reserve(order.size());
  std::vector<int64_t> entered(order.size(), -1);  // place of an image's last entry
  for (size_t i = 0; i < held.size(); ++i) entered[size_t(held[i])] = int64_t(i);
  for (const int64_t image : order) {
    int64_t& place = entered[size_t(image)];
    if (place < 0 || place < int64_t(b.entries.size()) - b.capacity) {
      place = int64_t(b.entries.size());
      b.entries.push_back(image);
    }
    b.end.push_back(int64_t(b.entries.size()));
  }
  return b;
}

}  // namespace tessera
