// A disk so small that a test can fill it.
#pragma once

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

namespace tessera::testing {

// What check() returns, 0 being good, is expected of it in a process of its own, where `folder` is a disk of `size` ("200k"). Where
// a process may not mount one, this is said instead.
template <class Check>
void on_small_disk(const std::filesystem::path& folder, const std::string& size, Check check) {
  constexpr int kSkipped = 77, kThrown = 78;
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int code = kSkipped;
    try {
      const bool own = ::unshare(CLONE_NEWNS | (::geteuid() == 0 ? 0 : CLONE_NEWUSER)) == 0 &&
                       ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
      if (own && ::mount("tmpfs", folder.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0) code = check();
    } catch (const std::exception& e) {  // it must not leave the case: the test program would go on twice
      std::fprintf(stderr, "%s\n", e.what());
      code = kThrown;
    }
    ::_exit(code);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kSkipped) {
    MESSAGE("skipped: mounting a small file system is not permitted here");
    return;
  }
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace tessera::testing
