#include "yolo/train/run_folder.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#include "tensor/base/check.h"

namespace tessera {

namespace fs = std::filesystem;

fs::path create_run_folder(const fs::path& project, const std::string& name, bool exist_ok) {
  std::error_code failed;
  fs::create_directories(project, failed);
  if (failed) {
    throw Error(ErrorCode::kIo, fmt::format("the run folder cannot be created: {}", failed.message()), {project.string()},
                "choose another place with --project");
  }
  for (int n = 1;; ++n) {
    const fs::path folder = project / (n == 1 ? name : name + std::to_string(n));
    // create_directory is atomic: two runs that start together get two folders.
    const bool fresh = fs::create_directory(folder, failed);
    if (failed) {
      throw Error(ErrorCode::kIo, fmt::format("the run folder cannot be created: {}", failed.message()), {folder.string()},
                  "choose another place with --project");
    }
    if (!fresh && !exist_ok) continue;
    if (access(folder.c_str(), W_OK) != 0) {
      throw Error(ErrorCode::kIo, fmt::format("the run folder cannot be written to: {}", std::strerror(errno)), {folder.string()},
                  "choose another place with --project");
    }
    return folder;
  }
}

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

}  // namespace tessera
