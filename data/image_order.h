// The order in which an epoch shows the training images.
#pragma once

#include <cstdint>
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

}  // namespace tessera
