// A folder of files by number under a common limit of bytes, used by any number of processes at once. A file is there whole or not
// at all, whenever one of them is killed; who finds it checks what it holds.
//
// Note [Cache folder]: files are XX/YYYYYYYYYYYYYY.rgb by the sixteen hexadecimal digits of their number, and nothing else in the
// folder is ever removed but what incoming/ holds. `usage` has the bytes that are taken; who adds a file reserves its bytes there
// under a lock, and makes the temporary with its full length at once, so that a count of the folder under the same lock finds all
// that is reserved. Every opening counts anew: what a killed process had reserved is free again. `users` is locked, shared, by each
// process for as long as it uses the folder: one that opens it alone may remove whatever it does not want, the least recently used
// first; beside others, only what nobody has used for a day. A file's time of modification is its last use, to the hour.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/base/descriptor.h"

namespace tessera {

// $XDG_CACHE_HOME/tessera/<name>, or ~/.cache/tessera/<name>; empty when neither is known.
std::filesystem::path user_cache_folder(std::string_view name);

class CacheFolder {
 public:
  struct Wanted {
    uint64_t name;
    int64_t bytes;
  };

  // Makes the folder where there is none, and removes what exceeds `budget` bytes, or stands in the way of what is `wanted` and not
  // there. The default is half of what this file system has free or the folder holds already. One that can be read only is used as
  // it is: nothing is added or removed, and refusal() says why. Error(kIo) when it cannot be read either.
  CacheFolder(std::filesystem::path folder, std::optional<int64_t> budget, std::vector<Wanted> wanted);

  struct State {
    int64_t budget = 0;
    int64_t files = 0, bytes = 0;                // all that is there, in whole blocks
    int64_t wanted_files = 0, wanted_bytes = 0;  // of that
    int64_t missing_bytes = 0;                   // of what is wanted
    int64_t removed = 0;                         // files
  };
  const State& at_opening() const { return state_; }
  const std::filesystem::path& path() const { return path_; }
  const std::string& refusal() const { return refusal_; }

  // A descriptor to read from, or -1.
  int open(uint64_t name) const;
  // Says that an open file has been used.
  static void touch(int descriptor);

  enum class Put { kDone, kNoRoom };
  // Adds a file; one that is there already stays. Error(kIo) when the system refuses: no folder, no permission, or a disk so full
  // that what is left is better kept for others.
  Put put(uint64_t name, std::span<const std::span<const std::byte>> pieces);
  // Of a file that is no good, open as `descriptor`.
  void remove(uint64_t name, int descriptor);

 private:
  class Lock;
  struct File;
  void open_to_write();
  void make_room(std::vector<File>& files, bool alone);
  std::vector<File> list(bool alone, int64_t& incoming_bytes) const;
  int64_t used() const;
  void set_used(int64_t bytes);
  void give_back(int64_t bytes);
  int64_t free_bytes() const;
  int create_temporary(std::string& name, int64_t bytes);

  std::filesystem::path path_;
  std::optional<Descriptor> folder_, users_, usage_;
  std::mutex mutex_;  // of this process's use of usage_
  std::vector<Wanted> wanted_;
  State state_;
  std::string refusal_;
  std::atomic<uint64_t> temporaries_{0};
};

}  // namespace tessera
