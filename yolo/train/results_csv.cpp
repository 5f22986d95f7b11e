#include "yolo/train/results_csv.h"

#include <charconv>
#include <fstream>
#include <string>

#include <fmt/ranges.h>

#include "tensor/base/check.h"
#include "tensor/base/file.h"

namespace tessera {

namespace {

constexpr std::string_view kNames[] = {
    "epoch", "time", "train/box_loss", "train/seg_loss", "train/cls_loss", "train/dfl_loss", "metrics/precision(B)", "metrics/recall(B)",
    "metrics/mAP50(B)", "metrics/mAP50-95(B)", "metrics/precision(M)", "metrics/recall(M)", "metrics/mAP50(M)", "metrics/mAP50-95(M)",
    "val/box_loss", "val/seg_loss", "val/cls_loss", "val/dfl_loss", "lr/pg0", "lr/pg1", "lr/pg2"};
constexpr size_t kColumns = std::size(kNames);

std::array<double, kColumns> columns_of(const EpochRow& r) {
  return {double(r.epoch), r.seconds,     r.train.box,  r.train.seg,    r.train.cls,   r.train.dfl,  r.box.precision,
          r.box.recall,    r.box.map50,   r.box.map,    r.mask.precision, r.mask.recall, r.mask.map50, r.mask.map,
          r.val.box,       r.val.seg,     r.val.cls,    r.val.dfl,      r.lr[0],       r.lr[1],      r.lr[2]};
}

EpochRow row_of(const std::array<double, kColumns>& c) {
  EpochRow r;
  r.epoch = int64_t(c[0]);
  r.seconds = c[1];
  r.train = {c[2], c[3], c[4], c[5]};
  r.box.precision = c[6], r.box.recall = c[7], r.box.map50 = c[8], r.box.map = c[9];
  r.mask.precision = c[10], r.mask.recall = c[11], r.mask.map50 = c[12], r.mask.map = c[13];
  r.val = {c[14], c[15], c[16], c[17]};
  r.lr = {c[18], c[19], c[20]};
  return r;
}

}  // namespace

std::vector<Series> series_of(const EpochRow& row) {
  const auto values = columns_of(row);
  std::vector<Series> all;
  for (size_t i = 1; i < kColumns; ++i) {
    all.push_back({kNames[i], values[i], kNames[i].starts_with("metrics/") || kNames[i].starts_with("val/")});
  }
  return all;
}

ResultsCsv::ResultsCsv(std::filesystem::path path, int64_t keep_epochs) : path_(std::move(path)) {
  if (keep_epochs <= 0) return;
  std::ifstream in(path_);
  std::string line;
  std::getline(in, line);  // header
  while (std::getline(in, line)) {
    std::array<double, kColumns> c{};
    const char* p = line.data();
    const char* end = p + line.size();
    size_t n = 0;
    while (n < kColumns && p < end) {
      const auto [next, failed] = std::from_chars(p, end, c[n]);
      if (failed != std::errc()) break;
      ++n;
      p = next < end ? next + 1 : end;
    }
    if (n == kColumns && c[0] >= 1 && c[0] <= double(keep_epochs)) rows_.push_back(row_of(c));
  }
}

void ResultsCsv::append(const EpochRow& row) {
  rows_.push_back(row);
  write();
}

void ResultsCsv::write() const {
  std::string text = fmt::format("{}\n", fmt::join(kNames, ","));
  for (const EpochRow& r : rows_) {
    const auto c = columns_of(r);
    for (size_t i = 0; i < kColumns; ++i) text += fmt::format("{}{:.6g}", i ? "," : "", c[i]);
    text += '\n';
  }
  write_file_atomic(path_, text);
}

}  // namespace tessera
