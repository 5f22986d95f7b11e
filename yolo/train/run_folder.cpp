#include "yolo/train/run_folder.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <fnmatch.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "tensor/base/check.h"
#include "tensor/base/file.h"
#include "tensor/base/shell_word.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr const char* kElsewhere = "choose another place with --project";

fs::path previous(const fs::path& file) { return file.parent_path() / ("previous_" + file.filename().string()); }

// A --name may lead further down, so runs are sought below folders that are none.
void find_newest(const fs::path& folder, int depth, fs::path& newest, fs::file_time_type& when) {
  constexpr int kMaxDepth = 4;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (!entry.is_directory(ignored)) continue;
    const fs::path candidate = entry.path() / "weights" / "last.safetensors";
    std::error_code missing;
    const auto t = fs::last_write_time(candidate, missing);
    if (missing) {
      if (depth < kMaxDepth && !entry.is_symlink(ignored)) find_newest(entry.path(), depth + 1, newest, when);
    } else if (newest.empty() || t > when) {
      newest = candidate;
      when = t;
    }
  }
}

fs::path newest_checkpoint(const fs::path& project) {
  fs::path newest;
  fs::file_time_type when{};
  find_newest(project, 1, newest, when);
  if (newest.empty()) {
    throw Error(ErrorCode::kUsage, fmt::format("no weights/last.safetensors below {}", project.string()), {},
                "give the run folder: --resume runs/segment/train");
  }
  return newest;
}

// docs/cli.md lists them.
constexpr const char* kOfValidation[] = {"val_batch[0-9]_labels.png", "val_batch[0-9]_pred.png", "Box*_curve.png", "Mask*_curve.png",
                                         "confusion_matrix.png", "confusion_matrix_normalized.png", "images.csv",
                                         "worst_images.png", "predictions.json", "report.html"};
constexpr const char* kOfTraining[] = {"train_batch[0-9].png", "labels.png", "results.png", "results.csv", "log.jsonl", "profile.csv",
                                       "events.out.tfevents.*"};
constexpr const char* kPeriodic[] = {"epoch*.safetensors"};
constexpr const char* kPreviousPeriodic[] = {"previous_epoch*.safetensors"};

bool is_there(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(file, ignored);
}

std::vector<fs::path> matches(const fs::path& folder, std::span<const char* const> patterns) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (std::any_of(patterns.begin(), patterns.end(), [&](const char* p) { return fnmatch(p, name.c_str(), 0) == 0; })) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

nlohmann::json metrics_of(const fs::path& run_folder) {
  std::ifstream in(run_folder / "metrics.json");
  return nlohmann::json::parse(in, nullptr, false);
}

class SetAside {
 public:
  explicit SetAside(fs::path run_folder) : folder_(std::move(run_folder)), weights_(folder_ / "weights") {}

  void of_validation() {
    const nlohmann::json metrics = metrics_of(folder_);
    if (metrics.is_object() && metrics.contains("command") && metrics["command"] == "val") {
      move(folder_ / "labels");  // elsewhere a folder of this name may as well be of a data set
      remove(folder_ / "metrics.json");
    }
    remove_all_of(folder_, kOfValidation);
  }

  void of_training() {
    // Without last.safetensors it is a run that completed no epoch: the one before it is worth more.
    if (!is_there(weights_ / "last.safetensors") && is_there(previous(weights_ / "last.safetensors"))) {
      remove(folder_ / "metrics.json");
      remove(weights_ / "best.safetensors");
      remove_all_of(weights_, kPeriodic);
    } else {
      move(folder_ / "metrics.json");
      move(weights_ / "best.safetensors");
      remove_all_of(weights_, kPreviousPeriodic);
      for (const fs::path& file : matches(weights_, kPeriodic)) move(file);
      move(weights_ / "last.safetensors");  // the last to go: killed before it, the earlier run can still be resumed
    }
    remove_all_of(folder_, kOfTraining);
  }

  std::string note() const {
    return moved_.empty() ? "" : fmt::format("note: of the run that was in {} are kept {}", folder_.string(), fmt::join(moved_, ", "));
  }

 private:
  void remove(const fs::path& file) const {
    std::error_code failed;
    fs::remove(file, failed);
    if (failed) throw_file_error("remove", file, failed.value());
  }
  void remove_all_of(const fs::path& folder, std::span<const char* const> patterns) const {
    for (const fs::path& file : matches(folder, patterns)) remove(file);
  }
  void move(const fs::path& file) {
    if (!is_there(file)) return;
    const fs::path to = previous(file);
    std::error_code failed;
    if (fs::is_directory(to, failed)) fs::remove_all(to, failed);  // which a rename does not replace
    fs::rename(file, to, failed);
    if (failed) throw_file_error("rename", file, failed.value());
    moved_.push_back(to.lexically_relative(folder_).string());
  }

  fs::path folder_, weights_;
  std::vector<std::string> moved_;
};

}  // namespace

void create_folder(const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (!failed && !fs::is_directory(folder, failed)) failed = std::make_error_code(std::errc::not_a_directory);
  if (failed) throw Error(ErrorCode::kIo, fmt::format("the run folder cannot be created: {}", failed.message()), {folder.string()}, kElsewhere);
}

fs::path create_run_folder(const fs::path& project, const std::string& name, bool exist_ok) {
  // A name may lead further down: trials/1. A slash at its end would stand before the number.
  const std::string base = name.substr(0, name.find_last_not_of('/') + 1);
  const std::string last = fs::path(base).filename().string();
  if (last.empty() || last == "." || last == "..") {
    throw Error(ErrorCode::kUsage, fmt::format("--name '{}' is not the name of a folder", name), {},
                "give a name, or leave --name out for the verb's");
  }
  create_folder((project / base).parent_path());
  std::error_code failed, ignored;
  for (int n = 1;; ++n) {
    const fs::path folder = project / (n == 1 ? base : base + std::to_string(n));
    // create_directory is atomic: two runs that start together get two folders.
    const bool fresh = fs::create_directory(folder, failed);
    const bool taken = failed && fs::exists(fs::symlink_status(folder, ignored));  // by something else than a folder
    if (taken && !exist_ok) continue;
    if (failed) {
      throw Error(ErrorCode::kIo, fmt::format("the run folder cannot be created: {}", failed.message()), {folder.string()},
                  kElsewhere);
    }
    if (!fresh && !exist_ok) continue;
    if (access(folder.c_str(), W_OK) != 0) {
      throw Error(ErrorCode::kIo, fmt::format("the run folder cannot be written to: {}", std::strerror(errno)), {folder.string()},
                  kElsewhere);
    }
    return folder;
  }
}

std::string set_aside_earlier_validation(const fs::path& run_folder) {
  SetAside earlier(run_folder);
  earlier.of_validation();
  return earlier.note();
}

std::string set_aside_earlier_training(const fs::path& run_folder) {
  SetAside earlier(run_folder);
  earlier.of_validation();
  earlier.of_training();
  return earlier.note();
}

fs::path checkpoint_to_resume(const std::string& given, const fs::path& project) {
  if (given == "auto" || given == "true") return newest_checkpoint(project);
  std::error_code ignored;
  if (!fs::exists(given, ignored)) {
    throw Error(ErrorCode::kData, "there is no run or checkpoint here", {given}, "give a run folder or its weights/last.safetensors");
  }
  if (!fs::is_directory(given, ignored)) {
    // The run goes on in the folder around it, which a file of another place does not have.
    const fs::path path = given, name = path.parent_path().filename();
    const bool dots = name.empty() || name == "." || name == "..";  // named from within
    const fs::path folder = dots ? fs::canonical(path.has_parent_path() ? path.parent_path() : ".") : path.parent_path();
    if (folder.filename() != "weights") {
      throw Error(ErrorCode::kData, "this checkpoint lies in no run folder", {given},
                  "put it into the weights folder of its run, or of an empty one");
    }
    return folder.has_parent_path() ? folder / path.filename() : fs::absolute(path);
  }
  const fs::path file = fs::path(given) / "weights" / "last.safetensors";
  if (const fs::path inside = fs::path(given) / file.filename(); !fs::exists(file, ignored) && fs::exists(inside, ignored)) {
    return checkpoint_to_resume(inside.string(), project);  // given was the weights folder
  }
  if (!fs::exists(file, ignored)) {
    const fs::path earlier = previous(file), best = file.parent_path() / "best.safetensors";
    if (fs::exists(best, ignored)) {
      throw Error(ErrorCode::kData, "this run's weights/last.safetensors is not there", {given},
                  "put it back; or start a new run from the best weights: --model " + shell_word(best.string()));
    }
    throw Error(ErrorCode::kData, "this run has no checkpoint yet", {given},
                "it ended before its first epoch was complete: start it again, with --cfg <run>/args.yaml" +
                    (fs::exists(earlier, ignored) ? "; the run before it in this folder: --resume " + earlier.string() : ""));
  }
  return file;
}

RunFolderLock::RunFolderLock(const fs::path& folder) : folder_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (folder_ < 0 || flock(folder_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  close(folder_);
  throw Error(ErrorCode::kUsage, "another process is training in this run folder", {folder.string()},
              "wait until it ends, or give another --name");
}

RunFolderLock::~RunFolderLock() {
  if (folder_ >= 0) close(folder_);
}

int64_t reported_epochs(const fs::path& run_folder) {
  const nlohmann::json j = metrics_of(run_folder);
  const auto epoch = j.is_object() ? j.find("epoch") : j.end();
  return epoch != j.end() && epoch->is_number_integer() ? epoch->get<int64_t>() : -1;
}

}  // namespace tessera
