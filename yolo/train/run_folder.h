// The folder of a run: runs/segment/train, train2, train3, ... (spec 8.10).
#pragma once

#include <filesystem>
#include <string>

namespace tessera {

// Creates and returns the folder <project>/<name>, or <project>/<name>N with the first free N >= 2 unless exist_ok. Error(kIo) with
// the system's words when it cannot be created or written to.
std::filesystem::path create_run_folder(const std::filesystem::path& project, const std::string& name, bool exist_ok);

// The newest <project>/*/weights/last.safetensors; for a lone --resume. Error(kUsage) when there is none.
std::filesystem::path newest_checkpoint(const std::filesystem::path& project);

}  // namespace tessera
