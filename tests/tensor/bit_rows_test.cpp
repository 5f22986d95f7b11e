#include "tensor/bit_rows.h"

#include <doctest/doctest.h>

#include <vector>

#include "tensor/base/rng.h"

namespace tessera {
namespace {

std::vector<uint8_t> random_bytes(int64_t n, int64_t one_in) {
  Rng rng(3, RngPurpose::kTest, uint64_t(n));
  std::vector<uint8_t> bytes(static_cast<size_t>(n));
  for (uint8_t& b : bytes) b = rng.below(one_in) == 0 ? uint8_t(1 + rng.below(255)) : 0;
  return bytes;
}

TEST_CASE("rows of bits: there and back, and parts, for every length") {
  constexpr uint32_t kGuard = 0xABCDEF01;
  for (int64_t columns = 0; columns <= 100; ++columns) {
    const std::vector<uint8_t> bytes = random_bytes(columns, 2);
    std::vector<uint32_t> words(size_t(words_of_row(columns)) + 1, kGuard);
    pack_bits(bytes.data(), columns, words.data());
    CHECK(words.back() == kGuard);
    for (int64_t x = 0; x < words_of_row(columns) * kBitsOfWord; ++x) {
      const bool set = (words[size_t(x / 32)] >> (x % 32) & 1) != 0;
      CHECK(set == (x < columns && bytes[size_t(x)] != 0));
    }
    std::vector<uint8_t> back(size_t(columns) + 1, 7);
    unpack_bits(words.data(), columns, back.data());
    CHECK(back.back() == 7);
    for (int64_t x = 0; x < columns; ++x) CHECK(back[size_t(x)] == (bytes[size_t(x)] != 0));

    words.pop_back();
    for (int64_t first = 0; first < columns; first += 7) {
      for (const int64_t n : {int64_t{1}, (columns - first + 1) / 2, columns - first}) {
        std::vector<uint32_t> part(size_t(words_of_row(n)) + 1, kGuard), expected(part.size(), kGuard);
        copy_bits(words.data(), first, n, part.data());
        pack_bits(bytes.data() + first, n, expected.data());
        CHECK(part == expected);
      }
    }
  }
}

}  // namespace
}  // namespace tessera
