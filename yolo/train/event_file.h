// TensorBoard's event files: the series of results.csv as scalars, step = epoch. Each record has its checksums and is written at
// once, so that a kill costs no more than the one in work, which readers leave out.
//
// The form: records of u64 length, masked CRC-32C of the length, payload, masked CRC-32C of the payload; the payload is a protobuf
// message Event {1: wall_time double, 2: step int64, 3: file_version string, 5: Summary {1: Value {1: tag string, 2: simple_value
// float}}, 7: SessionLog {1: status}}. These few fields are written by hand: protobuf is no part of every build.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "yolo/train/results_csv.h"

namespace tessera {

class EventFile {
 public:
  // A new events.out.tfevents.* in the folder, after those that are there; it says that the run goes on after `rows`, so that
  // readers drop what an earlier sitting wrote of epochs that run again. Without earlier files the rows are written first.
  // Error(kIo).
  EventFile(const std::filesystem::path& folder, std::span<const EpochRow> rows);
  void append(const EpochRow& row);

 private:
  std::filesystem::path path_;
};

// The records, with seconds since 1970: of the beginning of a file, of a sitting that begins with an epoch, of a row.
std::string version_record(double time);
std::string start_record(int64_t epoch, double time);
std::string scalars_record(const EpochRow& row, double time);

}  // namespace tessera
