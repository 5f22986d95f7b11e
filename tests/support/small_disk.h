// Disks that are full: one so small that a test can fill it, and one that is full from a moment on, whatever its free space was.
#pragma once

#include <doctest/doctest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

namespace tessera::testing {

inline constexpr int kNotPermitted = 77;

// What check() returns, 0 being good, is expected of it in a process of its own. kNotPermitted: `what` is said to be skipped.
template <class Check>
void in_own_process(const char* what, Check check) {
  constexpr int kThrown = 78;
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int code = 0;
    try {
      code = check();
    } catch (const std::exception& e) {  // it must not leave the case: the test program would go on twice
      std::fprintf(stderr, "%s\n", e.what());
      code = kThrown;
    }
    ::_exit(code);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNotPermitted) {
    MESSAGE("skipped: " << what << " is not permitted here");
    return;
  }
  CHECK(WEXITSTATUS(status) == 0);
}

// Likewise, where `folder` is a disk of `size` ("200k").
template <class Check>
void on_small_disk(const std::filesystem::path& folder, const std::string& size, Check check) {
  in_own_process("mounting a small file system", [&] {
    const bool own = ::unshare(CLONE_NEWNS | (::geteuid() == 0 ? 0 : CLONE_NEWUSER)) == 0 &&
                     ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    return own && ::mount("tmpfs", folder.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0 ? check() : kNotPermitted;
  });
}

// From now on every writev() of this process, with which files are written (write_all()), finds the disk full, for good: for a
// process of its own. False: not permitted.
inline bool fill_disk_for_good() {
  sock_filter steps[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_writev, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSPC),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{sizeof steps / sizeof steps[0], steps};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace tessera::testing
