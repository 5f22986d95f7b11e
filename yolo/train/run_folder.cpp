#include "yolo/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tensor/base/check.h"
#include "tensor/base/file.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr const char* kElsewhere = "choose another place with --project";
constexpr const char* kPrevious = "previous_";

fs::path newest_checkpoint(const fs::path& project) {
  fs::path newest;
  fs::file_time_type when{};
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(project, ignored)) {
    const fs::path candidate = entry.path() / "weights" / "last.safetensors";
    std::error_code missing;
    const auto t = fs::last_write_time(candidate, missing);
    if (!missing && (newest.empty() || t > when)) {
      newest = candidate;
      when = t;
    }
  }
  if (newest.empty()) {
    throw Error(ErrorCode::kUsage, fmt::format("no weights/last.safetensors below {}", project.string()), {},
                "give the run folder: --resume runs/segment/train");
  }
  return newest;
}

}  // namespace

void create_folder(const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (!failed && !fs::is_directory(folder, failed)) failed = std::make_error_code(std::errc::not_a_directory);
  if (failed) throw Error(ErrorCode::kIo, fmt::format("the run folder cannot be created: {}", failed.message()), {folder.string()}, kElsewhere);
}

fs::path create_run_folder(const fs::path& project, const std::string& name, bool exist_ok) {
  create_folder(project);
  std::error_code failed;
  for (int n = 1;; ++n) {
    const fs::path folder = project / (n == 1 ? name : name + std::to_string(n));
    // create_directory is atomic: two runs that start together get two folders.
    const bool fresh = fs::create_directory(folder, failed);
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

std::vector<std::string> set_aside_earlier_run(const fs::path& run_folder) {
  std::vector<std::string> moved;
  const auto move = [&](const fs::path& file) {
    std::error_code failed;
    const fs::path to = file.parent_path() / (kPrevious + file.filename().string());
    if (!fs::exists(file, failed)) return;
    fs::rename(file, to, failed);
    if (failed) throw_file_error("rename", file, failed.value());
    moved.push_back(to.lexically_relative(run_folder).string());
  };
  std::error_code ignored;
  move(run_folder / "metrics.json");
  // Weights without last.safetensors are of a run that completed no epoch: those of the run before it are worth more.
  if (!fs::exists(run_folder / "weights" / "last.safetensors", ignored)) return moved;
  move(run_folder / "weights" / "best.safetensors");
  move(run_folder / "weights" / "last.safetensors");  // the last to go: killed before it, the earlier run can still be resumed
  return moved;
}

fs::path checkpoint_to_resume(const std::string& given, const fs::path& project) {
  if (given == "auto" || given == "true") return newest_checkpoint(project);
  std::error_code ignored;
  if (!fs::exists(given, ignored)) {
    throw Error(ErrorCode::kData, "there is no run or checkpoint here", {given}, "give a run folder or its weights/last.safetensors");
  }
  if (!fs::is_directory(given, ignored)) {
    // The run goes on in the folder around it, which a file of another place does not have.
    const fs::path full = fs::absolute(given);
    if (full.parent_path().filename() != "weights") {
      throw Error(ErrorCode::kData, "this checkpoint lies in no run folder", {given},
                  "put it into the weights folder of its run, or of an empty one");
    }
    return fs::path(given).parent_path().has_parent_path() ? fs::path(given) : full;
  }
  const fs::path file = fs::path(given) / "weights" / "last.safetensors";
  if (!fs::exists(file, ignored)) {
    const fs::path earlier = file.parent_path() / (kPrevious + file.filename().string());
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
  std::ifstream in(run_folder / "metrics.json");
  const auto j = nlohmann::json::parse(in, nullptr, false);
  const auto epoch = j.is_object() ? j.find("epoch") : j.end();
  return epoch != j.end() && epoch->is_number_integer() ? epoch->get<int64_t>() : -1;
}

}  // namespace tessera
