// Which epoch is the best so far, and when to wait for a better one no longer (spec 8.8).
#pragma once

#include <algorithm>
#include <cstdint>

namespace tessera {

struct BestEpoch {
  double fitness = 0;
  int64_t epoch = -1;  // 0-based, the last one that was better than all before, or for want of a fitness above 0 the last; -1: none yet

  // True: this epoch's weights are the best, ties included, as in the original. Patience counts from strict improvements only.
  bool take(int64_t at, double f) {
    const bool best = epoch < 0 || f >= fitness;
    if (epoch < 0 || f > fitness || fitness == 0) epoch = at;
    fitness = std::max(fitness, f);
    return best;
  }

  // With `done` epochs behind; patience 0 has no end.
  bool too_long_ago(int64_t done, int64_t patience) const { return patience > 0 && epoch >= 0 && done - (epoch + 1) >= patience; }
};

}  // namespace tessera
