// results.png: the course of a run as the original's grid of 2 x 8 charts (spec 8.10).
#pragma once

#include <filesystem>
#include <vector>

#include "yolo/train/results_csv.h"

namespace tessera {

// Writes <folder>/results.png; epochs without validation are left out of the validation charts. Nothing is written without rows.
void draw_results(const std::filesystem::path& folder, const std::vector<EpochRow>& rows);

}  // namespace tessera
