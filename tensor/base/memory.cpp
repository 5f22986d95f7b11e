#include "tensor/base/memory.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>

#include "tensor/base/check.h"
#include "tensor/base/env.h"

#include <sys/resource.h>
#include <unistd.h>

namespace tessera {

namespace fs = std::filesystem;

namespace {

// Pages of /proc/self/statm: 0 the address space, 1 what is resident.
int64_t own_bytes(int column) {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0;
  for (int i = 0; i <= column; ++i) file >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

std::optional<int64_t> number_in(const fs::path& file) {
  int64_t value = 0;
  if (std::ifstream(file) >> value) return value;
  return std::nullopt;  // not there, or "max"
}

// The value behind `key` in a file of lines "key value" or "key value unit"; 0 when it is not there.
int64_t entry_of(const fs::path& file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ') return std::stoll(line.substr(key.size()));
  }
  return 0;
}

// What is left in one control group: its pages of files that are not in use can be dropped.
std::optional<int64_t> left_in(const fs::path& group, const char* limit_file, const char* used_file, const char* droppable) {
  const auto limit = number_in(group / limit_file), used = number_in(group / used_file);
  constexpr int64_t kNone = int64_t{1} << 60;  // version 1 writes a huge number for "no limit"
  if (!limit || !used || *limit >= kNone) return std::nullopt;
  return *limit - *used + entry_of(group / "memory.stat", droppable);
}

std::optional<int64_t> left_in_cgroups() {
  std::optional<int64_t> least;
  const auto visit = [&](const fs::path& root, fs::path group, const char* limit, const char* used, const char* droppable) {
    // Inside a container the named path may not exist; the root always stands for the container.
    for (;; group = group.parent_path()) {
      const auto left = left_in(root / group.relative_path(), limit, used, droppable);
      if (left) least = std::min(least.value_or(*left), *left);
      if (!group.has_relative_path()) break;
    }
  };
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) visit("/sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file");
    if (controllers == "memory")
      visit("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");
  }
  return least;
}

// TESSERA_MEMORY: MiB that the process may hold in all.
std::optional<int64_t> stated_limit() {
  const auto text = env("TESSERA_MEMORY");
  if (!text) return std::nullopt;
  int64_t mib = 0;
  const auto [end, failed] = std::from_chars(text->data(), text->data() + text->size(), mib);
  if (failed != std::errc() || end != text->data() + text->size() || mib <= 0 || mib > (int64_t{1} << 40)) {
    throw Error(ErrorCode::kUsage, fmt::format("TESSERA_MEMORY is '{}', expected a number of MiB", *text));
  }
  return mib << 20;
}

}  // namespace

int64_t l1_cache_ways() {
#ifdef _SC_LEVEL1_DCACHE_ASSOC
  static const long ways = sysconf(_SC_LEVEL1_DCACHE_ASSOC);
  if (ways > 0) return ways;
#endif
  return 8;
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t(usage.ru_maxrss) * 1024;
}

int64_t resident_bytes() { return own_bytes(1); }

MemoryLimit available_memory() {
  if (const auto stated = stated_limit()) return {std::max<int64_t>(*stated - resident_bytes(), 0), "TESSERA_MEMORY"};
  MemoryLimit limit;
  const auto consider = [&](int64_t bytes, const char* what) {
    bytes = std::max<int64_t>(bytes, 0);
    if (limit.what.empty() || bytes < limit.bytes) limit = {bytes, what};
  };
  if (const int64_t kib = entry_of("/proc/meminfo", "MemAvailable:")) consider(kib * 1024, "this machine");
  if (const auto left = left_in_cgroups()) consider(*left, "the cgroup");
  rlimit address_space{};
  if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY) {
    consider(int64_t(address_space.rlim_cur) - own_bytes(0), "ulimit -v");
  }
  return limit;
}

}  // namespace tessera
