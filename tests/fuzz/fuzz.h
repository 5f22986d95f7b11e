// What every fuzz target checks: bytes from outside are taken, or refused by an Error that names their file and a remedy. Anything
// else ends the program with a report: another exception, a crash, and what sanitizers, time and memory limits of libFuzzer find.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include "tensor/base/check.h"

namespace tessera::fuzz {

// A property that must hold of what a reader took.
inline void require(bool holds, std::string_view what) {
  if (holds) return;
  fmt::print(stderr, "fuzz: does not hold: {}\n", what);
  std::abort();
}

// True: read() took it. kData is of the content; where a value in a file is one that a user may also type, kUsage is allowed.
template <class Read>
bool takes_or_refuses(std::string_view file, Read read, std::initializer_list<ErrorCode> codes = {ErrorCode::kData}) {
  try {
    read();
    return true;
  } catch (const Error& e) {
    bool expected = false;
    for (const ErrorCode code : codes) expected |= e.code() == code;
    const bool names_it = std::string_view(e.where().file).substr(0, file.size()) == file;
    if (!expected || !names_it || e.hint().empty()) {
      fmt::print(stderr, "fuzz: not the refusal that is promised: {} (file '{}', hint '{}')\n", e.what(), e.where().file, e.hint());
      std::abort();
    }
    return false;
  }
}

// A folder of this process; the target runs inside it.
const std::filesystem::path& folder();
// A file in it with this content.
std::string file_with(const char* name, const uint8_t* data, size_t size);
std::string file_with(const char* name, std::string_view content);

inline std::string_view text_of(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

}  // namespace tessera::fuzz
