// TensorBoard's event files: the bytes that its own library writes, and what of them a resumed run leaves.
#include "yolo/train/event_file.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tensor/base/checksum.h"
#include "tests/support/golden.h"
#include "tests/support/training_folder.h"
#include "yolo/train/trainer.h"

using namespace tessera;
using namespace tessera::testing;
namespace fs = std::filesystem;

namespace {

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Every column at(i), the epoch's aside.
template <class F>
EpochRow row_of(int64_t epoch, F at) {
  EpochRow r;
  r.epoch = epoch;
  double* const columns[] = {&r.seconds,       &r.train.box,  &r.train.seg, &r.train.cls, &r.train.dfl,
                             &r.box.precision, &r.box.recall, &r.box.map50, &r.box.map,   &r.mask.precision,
                             &r.mask.recall,   &r.mask.map50, &r.mask.map,  &r.val.box,   &r.val.seg,
                             &r.val.cls,       &r.val.dfl,    &r.lr[0],     &r.lr[1],     &r.lr[2]};
  for (size_t i = 0; i < std::size(columns); ++i) *columns[i] = at(double(i + 1));
  return r;
}

std::vector<fs::path> event_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Payloads of the whole records.
std::vector<std::string> payloads(const std::string& file) {
  std::vector<std::string> all;
  for (size_t at = 0; at + 12 <= file.size();) {
    uint64_t length = 0;
    std::memcpy(&length, &file[at], 8);
    if (at + 16 + length > file.size()) break;
    all.push_back(file.substr(at + 12, length));
    at += 16 + length;
  }
  return all;
}

// The step of an event that has one: field 2, after the wall time.
int64_t step_of(const std::string& payload) {
  REQUIRE(payload.size() > 11);
  REQUIRE(payload[9] == 2 << 3);
  return payload[10];  // below 128
}

bool holds(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("event files: the bytes of TensorBoard's own library") {
  EpochRow part = row_of(4, [](double i) { return 1 / (i + 3); });
  part.validated = false;
  const std::string ours = version_record(1000) + start_record(3, 1001) +
                           scalars_record(row_of(3, [](double i) { return i + 0.125; }), 1002) + scalars_record(part, 1003);
  CHECK(ours == content(golden_dir() / "events.tfevents"));
}

TEST_CASE("event files: a name that no clock gave does not decide the next one") {
  const TrainingFolder shop({.train = 2, .val = 2, .size = 32}, {});
  std::ofstream(shop.root / "events.out.tfevents.9223372036854775807.host");
  const EventFile file(shop.root, {});
  const std::vector<fs::path> files = event_files(shop.root);
  REQUIRE(files.size() == 2);
  CHECK(files[0].filename().string().find("events.out.tfevents.1") == 0);  // ten digits of these years
  CHECK(holds(payloads(content(files[0]))[0], "brain.Event:2"));
}

TEST_CASE("event files: a new one comes last, also after one of the same second or of a clock that is ahead") {
  const TrainingFolder shop({.train = 2, .val = 2, .size = 32}, {});
  const fs::path ahead = shop.root / "events.out.tfevents.4000000000.~";  // behind those of any host
  std::ofstream(ahead) << "x";
  const EventFile file(shop.root, {});
  const std::vector<fs::path> files = event_files(shop.root);
  REQUIRE(files.size() == 2);
  CHECK(files[0] == ahead);
  const EventFile next(shop.root, {});
  CHECK(event_files(shop.root).size() == 3);
}

TEST_CASE("--tensorboard: a record an epoch with every series; a resumed run goes on in a new file, which takes back what runs again") {
  const TrainingFolder shop({.train = 6, .val = 2, .size = 32}, {"batch=2", "nbs=2"});
  Trainer first(shop.config({"name=run", "epochs=2", "tensorboard=true"}), LogStyle::kQuiet);
  const fs::path folder = first.fit().run_folder;
  REQUIRE(event_files(folder).size() == 1);
  const std::vector<std::string> written = payloads(content(event_files(folder)[0]));
  REQUIRE(written.size() == 3);
  CHECK(holds(written[0], "brain.Event:2"));
  std::ifstream csv(folder / "results.csv");
  std::string name;
  std::getline(csv, name);
  std::istringstream header(name);
  std::getline(header, name, ',');  // epoch: the step
  size_t names = 0;
  for (; std::getline(header, name, ','); ++names) {
    for (const int64_t epoch : {1, 2}) CHECK(holds(written[size_t(epoch)], name));
  }
  CHECK(names == 20);
  CHECK(step_of(written[1]) == 1);
  CHECK(step_of(written[2]) == 2);

  const auto resumed = [&](std::vector<std::string> more) {
    more.push_back("resume=" + folder.string());
    Config config(kTrain);
    config.read_arguments(more);
    Trainer(config, LogStyle::kQuiet).fit();
  };
  resumed({"epochs=3"});
  REQUIRE(event_files(folder).size() == 2);
  const std::vector<std::string> second = payloads(content(event_files(folder)[1]));
  REQUIRE(second.size() == 3);
  CHECK(step_of(second[1]) == 3);
  CHECK(second[1].ends_with("\x3a\x02\x08\x01"));  // session_log: a start
  CHECK(step_of(second[2]) == 3);
  resumed({"epochs=4", "tensorboard=false"});
  CHECK(event_files(folder).size() == 2);
  // Asked for late: what was before is there too.
  for (const fs::path& f : event_files(folder)) fs::remove(f);
  resumed({"epochs=5", "tensorboard=true"});
  REQUIRE(event_files(folder).size() == 1);
  CHECK(payloads(content(event_files(folder)[0])).size() == 6);
}
