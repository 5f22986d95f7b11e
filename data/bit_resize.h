// resize_bilinear() (data/image.h) for masks that are kept as rows of bits: bit for bit its result for an image of zeros and ones,
// but only where set pixels can arise.
#pragma once

#include <cstdint>
#include <vector>

#include "data/polygon.h"

namespace tessera {

// Outputs are made in blocks of neighbours, whose source columns fit into a word unless the image shrinks to less than half. Of
// some blocks: the first source column of each, and of each output the two bits it takes from there on, with their weights.
inline constexpr int kBlockOutputs = 16;
struct BlockTaps {
  const int* first;
  const int32_t *bit0, *bit1, *w0, *w1;
};

class BitResize {
 public:
  BitResize(int in_height, int in_width, int height, int width);

  // Where set pixels of `from` can set others; may hold some more columns.
  PixelBox reach(const PixelBox& from) const;
  // words: of `from`; out: of to = reach(from), which is not empty.
  void operator()(const uint32_t* words, const PixelBox& from, const PixelBox& to, uint32_t* out) const;

 private:
  struct Columns {
    std::vector<int> i0, i1;  // by output
    std::vector<int> first;   // and what BlockTaps is made from
    std::vector<int32_t> bit0, bit1, w0, w1;
    bool blocks_fit = true;
  };
  struct Rows {
    std::vector<int> i0, i1;
    std::vector<uint16_t> w0, w1;
  };
  struct Row;

  void sum_row(const uint32_t* words, const PixelBox& from, const PixelBox& to, Row& row) const;

  Columns columns_;
  Rows rows_;
};

}  // namespace tessera
