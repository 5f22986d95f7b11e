// A folder of its own for each test, short ways to fill it, and made-up images and masks.
#pragma once

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "data/image.h"
#include "tensor/base/rng.h"
#include "tensor/bit_rows.h"
#include "tests/support/temp_folder.h"

namespace tessera::test {

using testing::TempFolder;

inline Image noise_image(int height, int width, uint64_t seed = 1) {
  Rng rng(seed, RngPurpose::kTest);
  Image image(height, width);
  for (uint8_t& v : image.pixels) v = uint8_t(rng.next_u32());
  return image;
}

// A mask of bytes as rows of bits.
inline std::vector<uint32_t> rows_of_bits(const std::vector<uint8_t>& mask, int height, int width) {
  const int64_t row_words = words_of_row(width);
  std::vector<uint32_t> words(size_t(row_words * height));
  for (int64_t y = 0; y < height; ++y) pack_bits(mask.data() + y * width, width, words.data() + y * row_words);
  return words;
}

inline std::string_view text_of(const std::vector<uint8_t>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::filesystem::path shared_data(const char* name) {
  return std::filesystem::path(TESSERA_SOURCE_DIR) / "../shared/data" / name;
}

}  // namespace tessera::test
