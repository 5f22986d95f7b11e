#include "tensor/base/interrupt.h"

#include <csignal>
#include <string_view>

#include <unistd.h>

#include "tensor/base/check.h"

namespace tessera {

namespace {
volatile std::sig_atomic_t signals_seen = 0;

void on_signal(int number) {
  const int seen = signals_seen;
  if (number == SIGINT && seen > 0) _exit(int(ErrorCode::kInterrupted));
  signals_seen = seen + 1;
  constexpr std::string_view text = "\nstopping after this step (Ctrl-C again: at once)\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}
}  // namespace

void install_interrupt_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupt_requested() { return signals_seen > 0; }
void request_interrupt() { signals_seen = signals_seen + 1; }
void clear_interrupt() { signals_seen = 0; }

}  // namespace tessera
