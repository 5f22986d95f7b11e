#include "tensor/base/interrupt.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <thread>

namespace tessera {
namespace {

// The system may hand a signal to a worker; the thread sanitizer watches how the main thread learns of it.
TEST_CASE("a signal that reaches another thread is seen, and leaves that thread's errno alone") {
  install_interrupt_handlers();
  clear_interrupt();
  int error = 0;
  std::thread worker([&] {
    errno = EDOM;
    std::raise(SIGTERM);
    error = errno;
  });
  while (!interrupt_requested()) std::this_thread::yield();
  worker.join();
  CHECK(error == EDOM);
  clear_interrupt();
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

}  // namespace
}  // namespace tessera
