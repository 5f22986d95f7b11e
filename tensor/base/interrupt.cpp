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

std::string_view farewell;
std::atomic<bool> output_begun{false};

void leave() {
  if (output_begun.exchange(true)) return;
  [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, farewell.data(), farewell.size());
  _exit(int(ErrorCode::kInterrupted));
}

void on_signal(int number) {
  const int error = errno;  // belongs to the call that was interrupted
  if (signals_seen.fetch_add(1) > 0 && number == SIGINT) leave();
  constexpr std::string_view text = "\nstopping after this step (Ctrl-C again: at once)\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  errno = error;
}

void leave_on_signal(int) { leave(); }

void handle_with(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  struct sigaction before {};
  sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);  // nohup asks for it to be ignored
}

}  // namespace

void install_interrupt_handlers(std::string_view last_words) {
  farewell = last_words;
  handle_with(on_signal);
}

void end_at_interrupt(std::string_view last_words) {
  farewell = last_words;
  handle_with(leave_on_signal);
}

void output_begins() { output_begun = true; }

bool interrupt_requested() { return signals_seen > 0; }
void request_interrupt() { ++signals_seen; }
void clear_interrupt() { signals_seen = 0; }

}  // namespace tessera
