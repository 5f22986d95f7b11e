// The order in which an epoch shows the training images, and which of them are at hand for mosaics.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

enum class ImageOrder {
  kSeed,      // a new one for each seed
  kOriginal,  // the original's: one for all seeds (spec 5.8). Curves of both then differ by augmentation and initial weights only
};

// 0 .. n-1 shuffled by the stream (seed, epoch).
std::vector<int64_t> shuffled_order(int64_t n, uint64_t seed, int epoch);

// 0 .. n-1 as the original's loader shuffles them without worker processes (these draw ahead, which shows from `reset_epoch` on only):
// Fisher-Yates steps by one mt19937 stream of a constant seed, two permutations an epoch of which the second is dropped, two numbers drawn
// when its iterator is made: at the start and at `reset_epoch`, the first epoch without mosaic (-1: never). O(n * epoch).
std::vector<int64_t> original_order(int64_t n, int64_t batch, int epoch, int reset_epoch);

// The rolling buffer of spec 6.1 through one epoch: an image enters when it is shown and is not held already; when min(n, 8 batch, 1000) are
// held, the one that entered first leaves. One buffer for the whole set, as the original has without worker processes.
struct MosaicBuffer {
  int64_t capacity = 1;
  std::vector<int64_t> entries;  // what was held when the epoch began, then what entered, oldest first
  std::vector<int64_t> end;      // by position in the order: entries there are, once the image there has been loaded

  // The images held while the one at `position` is made: the last of entries[0, end[position]).
  std::span<const int64_t> held(int64_t position) const { return last(end[size_t(position)]); }
  std::span<const int64_t> held_at_end() const { return last(int64_t(entries.size())); }

 private:
  std::span<const int64_t> last(int64_t count) const {
    const int64_t held = std::min(count, capacity);
    return std::span(entries).subspan(size_t(count - held), size_t(held));
  }
};

// `held`: what the epoch before left, empty for the first.
MosaicBuffer roll_buffer(const std::vector<int64_t>& order, std::span<const int64_t> held, int64_t batch);

}  // namespace tessera
