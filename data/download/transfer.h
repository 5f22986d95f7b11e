// One attempt at what a part lacks: asks the server for the rest of the same file, or for all of it, and writes what comes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data/download/fetch.h"
#include "data/download/part_file.h"

namespace tessera {

struct TransferOptions {
  double timeout_s = 30;
  std::function<void(int64_t done, int64_t total)> progress;
};

enum class TransferEnding {
  kComplete,
  kCutOff,   // another attempt may go on
  kChanged,  // what the server has is not the file that the part began: it must begin anew
};

struct TransferResult {
  TransferEnding ending = TransferEnding::kComplete;
  std::string why;          // of a cut
  double wait_s = 0;        // as the server asks before another attempt
  bool from_start = false;  // the part was begun anew
};

// Redirects are followed, at most ten, never from https to http. Error for what another attempt does not mend. A signal ends it as
// a cut.
TransferResult transfer(const Url& url, PartFile& part, const TransferOptions& options);

}  // namespace tessera
