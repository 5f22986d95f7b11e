// Is the file that was written the model? It is read back and run by our own reader, and what it gives is compared with the model's
// own forward pass and a decoding in double precision.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "yolo/io/onnx_export.h"

namespace tessera {

// Greatest differences on a fixed image; those of coefficients and prototypes are fractions of the largest value there is.
struct OnnxDifference {
  double box_px = 0, score = 0, coefficients = 0, prototypes = 0;
};

struct OnnxReport {
  OnnxDifference file;      // of the file's graph with the weights as they are, from the model
  OnnxDifference rounding;  // with --half: of the file with its rounded weights, summed in f32: what fp16 costs before a GPU rounds more
  int64_t height = 0, width = 0, batch = 0;  // that it was run with
  int64_t bytes = 0;                         // of the file
};

// Same sums in another order: two f32 networks of this depth differ by 1e-6 to 1e-5 of what they give (docs/verification.md); a wrong
// axis, weight or wire by more than 0.1. Boxes are at most some thousand pixels, of which f32 knows the 4000th part.
inline constexpr OnnxDifference kOnnxTolerance = {0.02, 1e-4, 1e-4, 1e-4};

// Builds the graph, writes `file` (replacing it only when all is done), reads it, compares. Error(kBug) beyond the tolerance, with the
// file removed; Error(kData) when a weight is beyond what fp16 holds, or a result is not finite.
OnnxReport export_onnx(YoloSeg& model, const std::vector<std::string>& names, const std::filesystem::path& file, const OnnxExportOptions& options);

// What the file is called until it is checked. One that is left of an export that was killed is replaced by the next.
std::filesystem::path unchecked_file(const std::filesystem::path& file);

}  // namespace tessera
