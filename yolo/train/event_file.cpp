#include "yolo/train/event_file.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>

#include "tensor/base/check.h"
#include "tensor/base/checksum.h"
#include "tensor/base/file.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

static_assert(std::endian::native == std::endian::little);  // the form's order of bytes

constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr uint64_t kSessionStart = 1;

template <class T>
std::string bytes_of(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::string masked_checksum(std::string_view text) {
  const uint32_t sum = crc32c(std::as_bytes(std::span(text)));
  return bytes_of(uint32_t((sum >> 15 | sum << 17) + 0xa282ead8u));
}

// --- protobuf: a field is its number and kind, then the value

std::string varint(uint64_t n) {
  std::string out;
  for (; n >= 0x80; n >>= 7) out += char(n | 0x80);
  return out + char(n);
}
std::string whole_field(int number, uint64_t n) { return varint(uint64_t(number) << 3) + varint(n); }
std::string double_field(int number, double x) { return varint(uint64_t(number) << 3 | 1) + bytes_of(x); }
std::string text_field(int number, std::string_view text) {
  return varint(uint64_t(number) << 3 | 2) + varint(text.size()) + std::string(text);
}
std::string float_field(int number, float x) { return varint(uint64_t(number) << 3 | 5) + bytes_of(x); }

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// Seconds in the name of the newest event file; nothing: there is none.
std::optional<int64_t> newest_time(const fs::path& folder) {
  std::optional<int64_t> newest;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    constexpr int64_t kLast = 9'999'999'999;  // of ten digits, which names have
    int64_t time = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), time);
    if (time > kLast) time = 0;  // no clock's
    newest = std::max(newest.value_or(0), time);
  }
  return newest;
}

std::string record(std::string_view payload) {
  const std::string length = bytes_of(uint64_t(payload.size()));
  return length + masked_checksum(length) + std::string(payload) + masked_checksum(payload);
}

void write(const fs::path& path, const std::string& records) {
  std::ofstream out(path, std::ios::app | std::ios::binary);
  out.write(records.data(), std::streamsize(records.size()));
  if (!out.flush()) throw_file_error("write", path, errno);
}

}  // namespace

std::string version_record(double time) { return record(double_field(1, time) + text_field(3, "brain.Event:2")); }

std::string start_record(int64_t epoch, double time) {
  return record(double_field(1, time) + whole_field(2, uint64_t(epoch)) + text_field(7, whole_field(1, kSessionStart)));
}

std::string scalars_record(const EpochRow& row, double time) {
  std::string values;
  for (const Series& s : series_of(row)) {
    if (s.of_validation && !row.validated) continue;
    values += text_field(1, text_field(1, s.name) + float_field(2, float(s.value)));
  }
  return record(double_field(1, time) + whole_field(2, uint64_t(row.epoch)) + text_field(5, values));
}

EventFile::EventFile(const fs::path& folder, std::span<const EpochRow> rows) {
  char host[256] = "host";
  gethostname(host, sizeof host - 1);
  // Readers take the files in the order of their names: two sittings within a second must not have the same.
  const std::optional<int64_t> newest = newest_time(folder);
  path_ = folder / fmt::format("{}{:010}.{}.{}.0", kPrefix, std::max(int64_t(now()), newest.value_or(0) + 1), host, getpid());
  std::string records = version_record(now());
  if (newest) {
    records += start_record(rows.empty() ? 1 : rows.back().epoch + 1, now());
  } else {
    for (const EpochRow& row : rows) records += scalars_record(row, now());
  }
  write(path_, records);
}

void EventFile::append(const EpochRow& row) { write(path_, scalars_record(row, now())); }

}  // namespace tessera
