// A bar for each part of a verb's work on a terminal, and one line for each that is done.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>

#include "yolo/report/progress.h"

namespace tessera {

class SplitProgress {
 public:
  explicit SplitProgress(LogStyle log) : log_(log) {}
  ~SplitProgress() {
    if (bar_) bar_->finish("");  // the work failed
  }
  SplitProgress(const SplitProgress&) = delete;
  SplitProgress& operator=(const SplitProgress&) = delete;

  void update(const std::string& what, int64_t done, int64_t total) {
    if (!bar_) bar_.emplace(log_, total);
    bar_->update(done, what);
    if (done < total) return;
    bar_->finish(fmt::format("{}: {} images", what, total));
    bar_.reset();
  }

 private:
  LogStyle log_;
  std::optional<Progress> bar_;
};

}  // namespace tessera
