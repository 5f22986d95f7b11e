// A folder of its own for each test, and short ways to fill it.
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

inline std::string_view text_of(const std::vector<uint8_t>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::filesystem::path shared_data(const char* name) {
  return std::filesystem::path(TESSERA_SOURCE_DIR) / "../shared/data" / name;
}

}  // namespace tessera::test
