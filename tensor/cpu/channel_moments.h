// Mean and variance of the channels of an image, gathered from rows of pixels while a cache still holds them: a convolution hands
// over what it has just written, and batch norm need not read it from memory again.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/views.h"

namespace tessera::cpu {

// Note [Moments]: the rows of a part are summed in the order in which they are added, in f32 in blocks that fit L1: their mean
// first and then the squares about it, relative to the part's first row, so that nothing cancels where a mean is large. Blocks are
// joined by Chan's formula (Chan, Golub and LeVeque 1983) and then the parts, both in double: what the cut into blocks changes
// stays below f32's rounding. The result depends on parts and rows alone, not on threads.
class ChannelMoments {
 public:
  explicit ChannelMoments(int64_t channels) : channels_(channels) {}
  void start(int64_t parts) { parts_.assign(static_cast<size_t>(parts), {}); }
  // f32 or bf16 rows of the image's channels [channel, channel + rows.cols), the same ones for all rows of a part. Parts are
  // independent.
  void add(int64_t part, const RowsView& rows, int64_t channel = 0);
  // Biased variance; every channel has been added.
  void join(float* mean, float* var) const;

 private:
  // Of rows of `width` columns: several pixels side by side where channels are few, so that vectors are full.
  struct Sums {
    int64_t rows = 0;
    std::vector<float> shift;
    std::vector<double> mean, m2;  // mean: less the shift
  };
  struct Part {
    int64_t channel = 0, channels = 0;
    Sums wide, single;
  };
  static void add(Sums& sums, const RowsView& rows);

  int64_t channels_;
  std::vector<Part> parts_;
};

}  // namespace tessera::cpu
