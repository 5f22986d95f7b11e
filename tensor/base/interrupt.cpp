#include "tensor/base/interrupt.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <string_view>

#include <unistd.h>

#include "tensor/base/check.h"

namespace tessera {

namespace {
// The system may choose any thread to run the handler, so the count is atomic; a lock in a handler could wait for its own thread.
std::atomic<int> signals_seen{0};
static_assert(std::atomic<int>::is_always_lock_free);

void on_signal(int number) {
  const int error = errno;  // belongs to the call that was interrupted
  if (signals_seen.fetch_add(1) > 0 && number == SIGINT) _exit(int(ErrorCode::kInterrupted));
  constexpr std::string_view text = "\nstopping after this step (Ctrl-C again: at once)\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  errno = error;
}
}  // namespace

void install_interrupt_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  struct sigaction before {};
  sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);  // nohup asks for it to be ignored
}

bool interrupt_requested() { return signals_seen > 0; }
void request_interrupt() { ++signals_seen; }
void clear_interrupt() { signals_seen = 0; }

}  // namespace tessera
