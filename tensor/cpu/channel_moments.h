// Mean and variance of the channels of an image, gathered from rows of pixels while a cache still holds them: a convolution hands
// over what it has just written, and batch norm need not read it from memory again.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/views.h"

namespace tessera::cpu {

// Note [Moments]: rows are summed in f32 in blocks that fit L1: their mean first and then the squares about it, relative to the
// block's first row, so that nothing cancels where a mean is large. Blocks are joined in double by Chan's formula (Chan, Golub and
// LeVeque 1983) in the order in which a part's rows are added, and then the parts. The result depends on parts and rows alone, not
// on threads. The sum of blocks is kept beside it: numbers of f32 are added without rounding, so where each image is added by
// itself, a mean is the same in any order of images, also when it lies in the middle between two numbers of f32.
class ChannelMoments {
 public:
  explicit ChannelMoments(int64_t channels) : channels_(channels) {}
  void start(int64_t parts) { parts_.assign(static_cast<size_t>(parts), {}); }
  // f32 or bf16 rows of the image's channels [channel, channel + rows.cols), the same ones for all rows of a part. Parts are
  // independent.
  void add(int64_t part, const RowsView& rows, int64_t channel = 0);
  // Sums and squares about the mean; every channel has been added.
  void join(double* sums, double* squares) const;

 private:
  // Of rows of `width` columns: several pixels side by side where channels are few, so that vectors are full.
  struct Sums {
    int64_t rows = 0;
    std::vector<double> total, mean, m2;
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
