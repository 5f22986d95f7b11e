#include "yolo/report/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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

std::string format_bytes(double bytes) {
  constexpr std::array<const char*, 5> units = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < units.size(); ++unit) bytes /= 1024;
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, units[unit]);
}

Progress::Progress(LogStyle style, int64_t total, ProgressUnit unit, int64_t first)
    : style_(style), total_(total), first_(first), unit_(unit), start_(std::chrono::steady_clock::now()) {}

void Progress::update(int64_t done, const std::string& note) {
  const bool endless = total_ <= 0;
  if (style_ != LogStyle::kTerminal || (endless && unit_ == ProgressUnit::kItems)) return;
  if (drawn_ && (endless || done < total_) && seconds_since(last_) < 0.1) return;
  last_ = std::chrono::steady_clock::now();
  drawn_ = true;
  const double elapsed = seconds_since(start_);
  const double rate = elapsed > 0 ? double(done - first_) / elapsed : 0.0;
  const std::string left = done > first_ ? format_duration(double(total_ - done) / std::max(rate, 1e-9)) : "?";
  const std::string tail = unit_ == ProgressUnit::kItems ? fmt::format(" {}/{} {:.2f} it/s, {} left", done, total_, rate, left)
                           : endless ? fmt::format(" {}, {}/s", format_bytes(double(done)), format_bytes(rate))
                                     : fmt::format(" {} of {}, {}/s, {} left", format_bytes(double(done)), format_bytes(double(total_)), format_bytes(rate), left);
  const int room = std::clamp(terminal_width() - int(note.size() + tail.size()) - 4, 0, 30);
  std::string bar;
  if (room >= 5 && !endless) {
    const int filled = int(double(room) * double(std::min(done, total_)) / double(total_));
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
