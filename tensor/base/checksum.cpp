#include "tensor/base/checksum.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace tessera {

namespace {

constexpr uint32_t kCastagnoli = 0x82F63B78, kIeee = 0xEDB88320;  // reflected
constexpr size_t kWord = 8;
using Tables = std::array<std::array<uint32_t, 256>, kWord>;

// tables[k][b]: what byte b does to the remainder when k bytes follow it in its word.
constexpr Tables make_tables(uint32_t polynomial) {
  Tables tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t r = b;
    for (int bit = 0; bit < 8; ++bit) r = r & 1 ? r >> 1 ^ polynomial : r >> 1;
    tables[0][b] = r;
  }
  for (size_t k = 1; k < kWord; ++k) {
    for (size_t b = 0; b < 256; ++b) tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 255];
  }
  return tables;
}

constexpr Tables kCastagnoliTables = make_tables(kCastagnoli), kIeeeTables = make_tables(kIeee);

uint64_t word_at(const std::byte* p) {
  uint64_t word;
  std::memcpy(&word, p, kWord);
  return word;
}

uint32_t by_tables(const Tables& tables, std::span<const std::byte> bytes, uint32_t before) {
  uint32_t r = ~before;
  const std::byte *p = bytes.data(), *const end = p + bytes.size();
  for (; size_t(end - p) >= kWord; p += kWord) {
    const uint64_t word = word_at(p) ^ r;
    r = 0;
    for (size_t k = 0; k < kWord; ++k) r ^= tables[kWord - 1 - k][word >> (8 * k) & 255];
  }
  for (; p < end; ++p) r = r >> 8 ^ tables[0][(r ^ uint8_t(*p)) & 255];
  return ~r;
}

#if defined(__x86_64__)
[[gnu::target("sse4.2")]] uint32_t crc32c_by_instruction(std::span<const std::byte> bytes, uint32_t before) {
  uint64_t r = ~before;
  const std::byte *p = bytes.data(), *const end = p + bytes.size();
  for (; size_t(end - p) >= kWord; p += kWord) r = _mm_crc32_u64(r, word_at(p));
  for (; p < end; ++p) r = _mm_crc32_u8(uint32_t(r), uint8_t(*p));
  return ~uint32_t(r);
}
#endif

}  // namespace

uint32_t crc32c_by_tables(std::span<const std::byte> bytes, uint32_t before) { return by_tables(kCastagnoliTables, bytes, before); }

uint32_t crc32(std::span<const std::byte> bytes, uint32_t before) { return by_tables(kIeeeTables, bytes, before); }

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before) {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2");
  if (has_instruction) return crc32c_by_instruction(bytes, before);
#endif
  return crc32c_by_tables(bytes, before);
}

}  // namespace tessera
