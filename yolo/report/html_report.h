// report.html: what a run folder holds, on one page that opens offline: figures, the images that fail, plots, settings.
// The plots are in the page itself; nothing in it refers to another file or to the network, and it has no script.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tessera {

// `metrics`: what metrics.json of the folder holds (docs/cli.md). `made_by`: a line about program and machine. Files that the
// folder does not hold are left out, so are plots beyond 64 MiB. Written atomically. Error(kIo).
void write_html_report(const std::filesystem::path& run_folder, const nlohmann::ordered_json& metrics, const std::string& made_by);

}  // namespace tessera
