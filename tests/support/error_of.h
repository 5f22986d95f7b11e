// What a call throws, for tests of errors.
#pragma once

#include <doctest/doctest.h>

#include <string_view>

#include "tensor/base/check.h"

namespace tessera::testing {

// The Error that `call` throws; the test ends where there is none.
template <class F>
Error error_of(F&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e;
  }
  FAIL("no error was thrown");
  return Error(ErrorCode::kBug, "");
}

inline bool says(const Error& e, std::string_view part) { return e.message().find(part) != std::string_view::npos; }

// With its place and remedy, as it is printed.
inline bool says_in_full(const Error& e, std::string_view part) {
  return std::string_view(e.what()).find(part) != std::string_view::npos;
}

}  // namespace tessera::testing
