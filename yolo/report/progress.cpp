#include "yolo/report/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tensor/base/standard_streams.h"

namespace tessera {

namespace {
int terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 100;
}
double seconds_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}
}  // namespace

LogStyle log_style(bool quiet, bool json) {
  if (quiet) return LogStyle::kQuiet;
  if (json) return LogStyle::kJson;
  return isatty(STDERR_FILENO) ? LogStyle::kTerminal : LogStyle::kLines;
}

std::string format_duration(double seconds) {
  const int64_t s = std::max<int64_t>(0, std::llround(seconds));
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

Progress::Progress(LogStyle style, int64_t total) : style_(style), total_(total), start_(std::chrono::steady_clock::now()) {}

void Progress::update(int64_t done, const std::string& note) {
  if (style_ != LogStyle::kTerminal || total_ <= 0) return;
  if (drawn_ && done < total_ && seconds_since(last_) < 0.1) return;
  last_ = std::chrono::steady_clock::now();
  drawn_ = true;
  const double elapsed = seconds_since(start_);
  const double rate = elapsed > 0 ? double(done) / elapsed : 0.0;
  const std::string tail = fmt::format(" {}/{} {:.2f} it/s, {} left", done, total_, rate,
                                       done > 0 ? format_duration(double(total_ - done) / std::max(rate, 1e-9)) : "?");
  const int room = std::clamp(terminal_width() - int(note.size() + tail.size()) - 4, 0, 30);
  std::string bar;
  if (room >= 5) {
    const int filled = int(int64_t(room) * done / total_);
    bar = " [" + std::string(size_t(filled), '=') + std::string(size_t(room - filled), ' ') + "]";
  }
  print_stderr("\r\033[K{}{}{}", note, bar, tail);
  std::fflush(stderr);
}

void Progress::finish(const std::string& line) {
  if (style_ == LogStyle::kTerminal && drawn_) print_stderr("\r\033[K");
  drawn_ = false;
  if (!line.empty() && (style_ == LogStyle::kTerminal || style_ == LogStyle::kLines)) print_stderr("{}\n", line);
  std::fflush(stderr);
}

void log_line(LogStyle style, const std::string& text) {
  if (style == LogStyle::kQuiet) return;
  if (style == LogStyle::kJson) {
    print_stderr("{}\n", nlohmann::json{{"event", "message"}, {"text", text}}.dump(-1, ' ', false,
                                                                                   nlohmann::json::error_handler_t::replace));
  } else {
    print_stderr("{}\n", text);
  }
}

}  // namespace tessera
