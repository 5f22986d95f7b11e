// What is known of sums without taking one; in every build.
#include <algorithm>

#include "data/download/fetch.h"

namespace tessera {

bool is_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos;
}

std::string normalized_sha256(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return c >= 'A' && c <= 'F' ? char(c - 'A' + 'a') : c; });
  return text;
}

std::filesystem::path sum_file_of(std::filesystem::path file) { return file += ".sha256"; }

}  // namespace tessera
