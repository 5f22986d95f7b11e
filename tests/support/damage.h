// Damaged input, the same for the same seed: what disks, transfers, editors and malice do to a file. For tests that a reader takes
// such a file or refuses it with a place and a remedy, and never does anything else.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <initializer_list>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/base/check.h"

namespace tessera::testing {

class Damage {
 public:
  // words: what this kind of file is made of, put in at random places beside numbers that are hard for any reader.
  explicit Damage(uint32_t seed, std::vector<std::string> words = {}) : random_(seed), words_(std::move(words)) {
    for (const char* number : {"-1", "0", "1e999", "-1e-999", "nan", "inf", "0x10", "1_000", "65536", "4294967296", "-9223372036854775809",
                               "18446744073709551615", "123456789012345678901234567890", "0.1e", "1e18", ".5.5"}) {
      numbers_.emplace_back(number);
    }
  }

  // Up to three changes, of kinds that come equally often.
  std::string operator()(std::string file) {
    for (uint32_t changes = 1 + below(3); changes > 0; --changes) change(file);
    return file;
  }

  uint32_t below(size_t n) { return n == 0 ? 0 : uint32_t(random_() % n); }

 private:
  const std::string& one_of(const std::vector<std::string>& list) { return list[below(list.size())]; }

  void change(std::string& f) {
    const size_t at = below(f.size() + 1);
    switch (below(12)) {
      case 0: f.resize(at); break;
      case 1: if (at < f.size()) f[at] = char(f[at] ^ 1 << below(8)); break;
      case 2: if (at < f.size()) f[at] = char(random_()); break;
      case 3: f.erase(at, 1 + below(16)); break;
      case 4: f.insert(at, f.substr(below(f.size() + 1), 1 + below(40))); break;  // a part twice, or in another's place
      case 5: if (!words_.empty()) f.insert(at, one_of(words_)); break;
      case 6: replace_number(f, at); break;
      case 7: f.insert(0, below(2) ? "\xEF\xBB\xBF" : "\xFF\xFE"); break;
      case 8: line_ends(f); break;
      case 9: f.insert(at, std::string(1 + below(8), char(below(2) ? 0 : 0xFF))); break;
      case 10: std::fill_n(f.begin() + std::ptrdiff_t(at), std::min<size_t>(f.size() - at, 1 + below(16)), char(below(2) ? 0 : 0xFF)); break;
      default: f.insert(at, std::string(1 + below(300), "[{(-\"'&*:\n "[below(11)])); break;
    }
  }

  void replace_number(std::string& f, size_t at) {
    const auto is_part = [](char c) { return (c >= '0' && c <= '9') || c == '.' || c == '-'; };
    while (at < f.size() && !is_part(f[at])) ++at;
    size_t end = at;
    while (end < f.size() && is_part(f[end])) ++end;
    if (end > at) f.replace(at, end - at, one_of(numbers_));
  }

  static void line_ends(std::string& f) {
    std::string out;
    for (const char c : f) out += c == '\n' ? std::string("\r\n") : std::string(1, c);
    f = std::move(out);
  }

  std::mt19937 random_;
  std::vector<std::string> words_, numbers_;
};

struct Verdicts {
  int taken = 0, refused = 0;
};

// read() takes the file, or throws an Error with one of these codes that names `file` and a remedy, in short time.
template <class Read>
void takes_or_refuses(std::string_view file, Read read, Verdicts& verdicts,
                      std::initializer_list<ErrorCode> codes = {ErrorCode::kData}) {
  constexpr double kSeconds = 10;  // of this thread, with sanitizers; a reader takes a millisecond
  const auto now = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
  };
  const double start = now();
  try {
    read();
    ++verdicts.taken;
  } catch (const Error& e) {
    const std::string said = e.what();
    INFO(said);
    CHECK(std::find(codes.begin(), codes.end(), e.code()) != codes.end());
    CHECK(std::string_view(e.where().file).starts_with(file));
    CHECK(!e.hint().empty());
    ++verdicts.refused;
  }
  CHECK(now() - start < kSeconds);
}

}  // namespace tessera::testing
