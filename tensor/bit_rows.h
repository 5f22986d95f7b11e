// Masks as bits: an eighth of the bytes to carry and to compare. Column x of a row is bit x % 32 of word x / 32. Every row begins
// with a new word, and what is left of its last word is 0, so that rows can be compared by words.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace tessera {

inline constexpr int kBitsOfWord = 32;
static_assert(std::endian::native == std::endian::little);  // eight bytes at a time: the first is the lowest

inline constexpr int64_t words_of_row(int64_t columns) { return (columns + kBitsOfWord - 1) / kBitsOfWord; }

// One row from bytes; any that is not 0 is a set bit.
inline void pack_bits(const uint8_t* bytes, int64_t columns, uint32_t* words) {
  constexpr uint64_t kOnes = 0x0101010101010101, kLow = 0x7F * kOnes;
  const auto eight = [](const uint8_t* from) {
    uint64_t v;
    std::memcpy(&v, from, 8);
    const uint64_t set = (((v & kLow) + kLow) | v) >> 7 & kOnes;
    return uint32_t(set * 0x0102040810204080 >> 56);  // the highest byte gathers the eight: no two terms meet in one bit
  };
  for (; columns >= kBitsOfWord; columns -= kBitsOfWord, bytes += kBitsOfWord) {
    *words++ = eight(bytes) | eight(bytes + 8) << 8 | eight(bytes + 16) << 16 | eight(bytes + 24) << 24;
  }
  if (columns == 0) return;
  uint32_t word = 0;
  for (int64_t x = 0; x < columns; ++x) word |= uint32_t(bytes[x] != 0) << x;
  *words = word;
}

// One row as bytes 0 and 1.
inline void unpack_bits(const uint32_t* words, int64_t columns, uint8_t* bytes) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  for (; columns >= kBitsOfWord; columns -= kBitsOfWord, bytes += kBitsOfWord) {
    const uint32_t word = *words++;
    for (int piece = 0; piece < 4; ++piece) {
      // Byte i keeps bit i of its copy; what is not 0 there carries into the highest bit.
      const uint64_t own = (word >> (8 * piece) & 0xFF) * kOnes & 0x8040201008040201;
      const uint64_t eight = (own + 0x7F * kOnes) >> 7 & kOnes;
      std::memcpy(bytes + 8 * piece, &eight, 8);
    }
  }
  for (int64_t x = 0; x < columns; ++x) bytes[x] = uint8_t(*words >> x & 1);
}

// Columns first .. first + columns - 1 of a row as a row of their own.
inline void copy_bits(const uint32_t* row, int64_t first, int64_t columns, uint32_t* words) {
  const int64_t begin = first / kBitsOfWord, last = (first + columns - 1) / kBitsOfWord;
  const int shift = int(first % kBitsOfWord);
  for (int64_t w = 0; w < words_of_row(columns); ++w) {
    const uint64_t next = begin + w < last ? row[begin + w + 1] : 0;
    words[w] = uint32_t((next << kBitsOfWord | row[begin + w]) >> shift);
  }
  if (columns % kBitsOfWord != 0) words[columns / kBitsOfWord] &= (1u << (columns % kBitsOfWord)) - 1;
}

}  // namespace tessera
