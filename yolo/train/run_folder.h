// The folder of a run: runs/segment/train, train2, train3, ... (spec 8.10).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace tessera {

// The folder with all above it. Error(kIo) with the system's words.
void create_folder(const std::filesystem::path& folder);

// Creates and returns the folder <project>/<name>, or <project>/<name>N with the first free N >= 2 unless exist_ok. The name may
// hold folders; Error(kUsage) if it ends in none. Error(kIo) with the system's words when it cannot be created or written to.
std::filesystem::path create_run_folder(const std::filesystem::path& project, const std::string& name, bool exist_ok);

// For a new run in a folder of an earlier one (--exist-ok), so that nothing of that is taken for the new run's: of the files that such
// a run may write, those that are there are removed, whether this one will write them or not. A training's checkpoints and
// metrics.json and the labels of a validation become previous_<name> beside their place. Files of other names stay. Returns the line
// that tells what is kept; empty: nothing.
std::string set_aside_earlier_training(const std::filesystem::path& run_folder);
std::string set_aside_earlier_validation(const std::filesystem::path& run_folder);

// The file that --resume means: a checkpoint, a run folder's weights/last.safetensors, or for "auto" (a lone --resume) the newest
// one below the project. Error(kData) when there is no such run or it has no checkpoint yet; Error(kUsage) when "auto" finds none.
std::filesystem::path checkpoint_to_resume(const std::string& given, const std::filesystem::path& project);

// While it lives no other process trains in this folder. Ends with the process, however that ends. Error(kUsage): one does. Where
// the file system knows no locks there is none.
class RunFolderLock {
 public:
  explicit RunFolderLock(const std::filesystem::path& folder);
  ~RunFolderLock();
  RunFolderLock(const RunFolderLock&) = delete;
  RunFolderLock& operator=(const RunFolderLock&) = delete;

 private:
  int folder_;
};

// The epochs that metrics.json of a run reports; -1 when there is none, so that the run has not come to its end.
int64_t reported_epochs(const std::filesystem::path& run_folder);

}  // namespace tessera
