#include "tensor/base/checksum.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tensor/base/rng.h"

using namespace tessera;

TEST_CASE("crc32c: values of RFC 3720, and the tables agree with the instruction for every length and place") {
  const auto of = [](const std::string& text) { return crc32c(std::as_bytes(std::span(text))); };
  CHECK(of("") == 0);
  CHECK(of("123456789") == 0xE3069283);
  CHECK(of(std::string(32, '\0')) == 0x8A9136AA);
  CHECK(of(std::string(32, '\xFF')) == 0x62A8AB43);
  Rng rng(1, RngPurpose::kTest);
  std::vector<std::byte> bytes(300);
  for (std::byte& b : bytes) b = std::byte(rng.next_u32());
  const std::span<const std::byte> all(bytes);
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t length = 0; begin + length <= bytes.size(); length += 1 + length / 20) {
      const auto part = all.subspan(begin, length);
      CHECK(crc32c(part) == crc32c_by_tables(part));
      CHECK(crc32c(part.subspan(length / 3), crc32c(part.first(length / 3))) == crc32c(part));
    }
  }
  const uint32_t whole = crc32c(all);
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] ^= std::byte(1 << bit % 8);
    CHECK(crc32c(all) != whole);
    bytes[bit / 8] ^= std::byte(1 << bit % 8);
  }
}

TEST_CASE("crc32: the values that zip and PNG define") {
  const auto of = [](const std::string& text) { return crc32(std::as_bytes(std::span(text))); };
  CHECK(of("123456789") == 0xCBF43926);
  CHECK(of("IEND") == 0xAE426082);  // the last four bytes of every PNG
  CHECK(crc32(std::as_bytes(std::span("56789", 5)), of("1234")) == of("123456789"));
}
