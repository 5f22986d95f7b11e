// A folder of its own for each test, short ways to fill it, and made-up pictures and masks.
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

namespace tessera::test {

class TempFolder {
 public:
  TempFolder() {
    static std::atomic<int> count{0};
    path_ =
        std::filesystem::temp_directory_path() / ("tessera_data_test_" + std::to_string(getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, std::string_view text) const {
    const std::filesystem::path p = path_ / name;
    std::filesystem::create_directories(p.parent_path());
    std::ofstream(p, std::ios::binary).write(text.data(), std::streamsize(text.size()));
    return p;
  }

 private:
  std::filesystem::path path_;
};

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
