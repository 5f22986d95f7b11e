// Unpacks archives of data sets: zip, tar, tar.gz, tar.xz, tar.zst and what else libarchive reads. Nothing is written outside of
// the folder that is named, nothing that is there is replaced, and a run that is killed leaves nothing half unpacked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace tessera {

// By the end of the name: .zip, .tar, .tar.gz, .tgz, .tar.xz, .txz, .tar.zst, .tzst, .tar.bz2, .tbz2.
bool is_archive_name(const std::filesystem::path& file);
// The name without that end: "set.tar.gz" is "set".
std::string archive_stem(const std::filesystem::path& file);

// A relative path that stays below where it starts.
bool is_inside(const std::string& path);

// What is moved where once all is unpacked: the content of a folder into another.
struct Placement {
  std::filesystem::path from, to;
};

struct UnpackOptions {
  // Of the folder that holds everything unpacked so far; by default its content goes into the folder that was named.
  std::function<Placement(const std::filesystem::path& unpacked)> place;
  std::function<void(int64_t done, int64_t total)> progress;  // bytes of the archive
};

struct UnpackReport {
  int64_t files = 0, bytes = 0;    // in the archive
  int64_t already_there = 0;       // of them, with the same content
  std::filesystem::path folder;    // where they went
  std::vector<std::string> names;  // of the first level there
};

// First all of it into a hidden folder inside of `folder`, then by renaming to its place. Refused, with nothing left behind: names
// that are absolute or hold "..", links that lead out, devices (Error(kData)); a file that is there with another content
// (Error(kUsage)); damaged or locked archives (Error(kData)); a full disk (Error(kIo)); Error(kInterrupted) after a signal. Owners,
// times and special modes are not restored. __MACOSX and .DS_Store are left out.
UnpackReport unpack(const std::filesystem::path& archive, const std::filesystem::path& folder, const UnpackOptions& options = {});

}  // namespace tessera
