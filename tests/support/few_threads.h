// A system that gives a few more threads and no more, as one with a limit of processes does: stacks are made so large that the
// address space left to this process holds two.
#pragma once

#include <doctest/doctest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <string>

#include "tensor/base/check.h"

namespace tessera::testing {

// What the Error says that `call` ends with.
inline std::string error_with_few_threads(const std::function<void()>& call) {
  constexpr size_t kStack = size_t{1} << 30;
  pthread_attr_t before, large;
  REQUIRE(pthread_getattr_default_np(&before) == 0);
  REQUIRE(pthread_attr_init(&large) == 0);
  REQUIRE(pthread_attr_setstacksize(&large, kStack) == 0);
  rlimit free_limit{};
  REQUIRE(getrlimit(RLIMIT_AS, &free_limit) == 0);
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlimit tight{rlim_t(pages * size_t(sysconf(_SC_PAGESIZE)) + 2 * kStack + kStack / 2), free_limit.rlim_max};
  REQUIRE(pthread_setattr_default_np(&large) == 0);
  REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
  std::string message;
  try {
    call();
  } catch (const Error& e) {
    message = e.what();
  }
  CHECK(setrlimit(RLIMIT_AS, &free_limit) == 0);
  CHECK(pthread_setattr_default_np(&before) == 0);
  pthread_attr_destroy(&large);
  pthread_attr_destroy(&before);
  return message;
}

}  // namespace tessera::testing
