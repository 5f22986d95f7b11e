// Progress on stderr: a bar with speed and time left on a terminal, one line for each finished phase in a file or pipe, JSON lines
// with --log json, nothing with --quiet.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace tessera {

enum class LogStyle { kTerminal, kLines, kJson, kQuiet };

// The style for stderr as it is: kTerminal only on a terminal.
LogStyle log_style(bool quiet, bool json);

enum class ProgressUnit { kItems, kBytes };

class Progress {
 public:
  // Speed and time left are those of what comes after `first`. Bytes may come without a total (below 1): counted, without a bar.
  Progress(LogStyle style, int64_t total, ProgressUnit unit = ProgressUnit::kItems, int64_t first = 0);
  // `note` is what stands before the bar ("3/100 box 1.2 ..."); redrawn at most ten times a second.
  void update(int64_t done, const std::string& note);
  // Removes the bar; `line`, if not empty, stays as a line of its own (kTerminal and kLines).
  void finish(const std::string& line);

 private:
  LogStyle style_;
  int64_t total_, first_;
  ProgressUnit unit_;
  std::chrono::steady_clock::time_point start_, last_;
  bool drawn_ = false;
};

// A message on stderr; not with kQuiet (errors are printed by the program's main).
void log_line(LogStyle style, const std::string& text);

std::string format_duration(double seconds);  // "1:02:03" or "2:03"
std::string format_bytes(double bytes);        // "312 B", "1.5 KiB", "18.0 GiB"

}  // namespace tessera
