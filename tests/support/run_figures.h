// What a run folder's results.csv says but for the times, which differ from run to run.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

namespace tessera::testing {

// All rows and columns but the second, "time".
inline std::string figures_in(const std::filesystem::path& run_folder) {
  std::ifstream in(run_folder / "results.csv");
  std::string text;
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(','), second = line.find(',', first + 1);
    text += line.substr(0, first) + line.substr(second) + "\n";
  }
  return text;
}

}  // namespace tessera::testing
