// A file on its way: NAME.part beside the goal, and NAME.part.json, which says what the part is of, so that a later run goes on
// with it and never joins the pieces of two different files. Bytes count only once they are synced: after a power cut what follows
// them may be anything.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "data/download/sha256.h"

namespace tessera {

// What tells one version of a file on a server from another.
struct PartOrigin {
  std::string url;
  std::string validator;  // strong ETag or Last-Modified, as the header gave it; empty: another version could not be told
  int64_t total = -1;     // bytes of the whole file; -1: the server does not say
};

class PartFile {
 public:
  // Opens the part of `goal`, or makes it. Error(kUsage) while another process has it; as throw_file_error else.
  PartFile(const std::filesystem::path& goal, const std::string& url);
  ~PartFile();  // syncs what came, and removes an empty part
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  const std::filesystem::path& path() const { return part_; }
  const PartOrigin& origin() const { return origin_; }
  int64_t size() const { return size_; }  // bytes that can be gone on from: 0 where nothing would tell another version
  bool complete() const { return origin_.total >= 0 && size_ == origin_.total; }
  std::string sha256() const { return sum_.hex(); }

  void begin(const PartOrigin& origin);  // empties it for a new content
  void append(std::span<const std::byte> bytes);
  void sync();    // every byte so far counts from now on
  void commit();  // the part becomes the goal

 private:
  void read_note(const std::string& url);
  void write_note() const;
  void read_prefix();

  std::filesystem::path goal_, part_, note_;
  int descriptor_ = -1;
  PartOrigin origin_;
  int64_t size_ = 0, synced_ = 0;
  Sha256 sum_;
  std::chrono::steady_clock::time_point last_sync_;
};

}  // namespace tessera
