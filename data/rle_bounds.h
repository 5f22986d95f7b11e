// Where the runs of a mask that is kept row by row begin and end, column by column: what run lengths are made from.
#pragma once

#include <cstdint>
#include <span>

namespace tessera {

// A rectangle of a mask, as rows of bits (tensor/bit_rows.h); the mask is zero outside of it.
struct BitRectangle {
  const uint32_t* words;
  int columns, rows;
  uint32_t first;   // column-major position of its upper left pixel in the mask
  uint32_t height;  // of the mask
};

// Positions in column-major order at which pixels differ from the one before; runs that go on in the next column are one.
// Good until the thread's next call.
std::span<const uint32_t> find_bounds(const BitRectangle& mask);

}  // namespace tessera
