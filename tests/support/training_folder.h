// A folder for the trainings of a test case, gone with it: a small drawn data set, and the arguments that all its runs share.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/shapes.h"
#include "tests/support/temp_folder.h"
#include "yolo/config.h"

namespace tessera::testing {

class TrainingFolder {
 public:
  TrainingFolder(const ShapesOptions& shapes, std::vector<std::string> arguments) : arguments_(std::move(arguments)) {
    data = make_shapes(root / "shapes", shapes).string();
    arguments_.insert(arguments_.end(), {"data=" + data, "project=" + (root / "runs").string(), "plots=false", "workers=1",
                                         fmt::format("imgsz={}", shapes.size)});
  }
  // The shared arguments, then `more`, which count where both name one.
  Config config(const std::vector<std::string>& more) const {
    std::vector<std::string> all = arguments_;
    all.insert(all.end(), more.begin(), more.end());
    Config c(kTrain);
    c.read_arguments(all);
    return c;
  }

  const TempFolder folder;
  const std::filesystem::path root = folder.path();
  std::string data;  // the data set's yaml

 private:
  std::vector<std::string> arguments_;
};

}  // namespace tessera::testing
