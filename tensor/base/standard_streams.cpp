#include "tensor/base/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "tensor/base/file.h"

namespace tessera {

void open_standard_streams() {
  for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(number, F_GETFD) >= 0) continue;
    // The lowest free number is this one.
    if (open("/dev/null", number == STDERR_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

void outlive_readers() { std::signal(SIGPIPE, SIG_IGN); }

void flush_stdout() {
  if (std::fflush(stdout) != 0) stdout_failed(errno);
}

void stdout_failed(int error_number) {
  if (error_number == EPIPE) {
    std::signal(SIGPIPE, SIG_DFL);
    std::raise(SIGPIPE);
  }
  throw_file_error("write", "standard output", error_number);
}

void write_stderr(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); }

}  // namespace tessera
