// Small data sets, odd images and a small model for the tests of the program.
#pragma once

#include <cstdint>
#include <vector>

#include "data/image.h"
#include "tests/cli/program.h"

namespace tessera::test {

inline std::string text_of(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

// A PNG of one grey level made by hand, so that its header can be of any kind: `claim` is the size that the header states.
std::string raw_png(int height, int width, int bits = 8, int claim_height = 0, int claim_width = 0);
std::string image_png(int height, int width);
std::string image_jpeg(int height, int width);
std::string cmyk_jpeg(int height, int width);
// The same file with an EXIF block that asks for a turn by 90 degrees.
std::string turned(const std::string& jpeg);
// The same file with a header that states 60000 x 60000 pixels.
std::string enormous(const std::string& jpeg);

// A folder with a data set of two classes, 6 training and 2 validation images of 48 x 40 pixels, and a model of 0.25 million
// parameters.
class Workshop {
 public:
  Workshop();

  const Folder& folder() const { return folder_; }
  std::string operator/(std::string_view name) const { return folder_ / name; }
  std::string write(std::string_view name, std::string_view text) const { return folder_.write(name, text); }
  // An image with its label file; both replace what is there.
  void sample(std::string_view name, std::string_view image, std::string_view labels, std::string_view split = "train") const;

  RunOptions here() const {
    RunOptions options;
    options.folder = folder_.path();
    return options;
  }
  // Arguments of a training of a second: one epoch at 32 pixels, without plots, into runs/<name>.
  Arguments train(std::string_view name, const Arguments& more = {}) const;
  // weights/best.safetensors of a finished one-epoch training, made on first use and kept for all tests of the program.
  static const std::string& trained();

 private:
  Folder folder_;
};

constexpr std::string_view kGoodRow = "0 0.2 0.2 0.8 0.25 0.5 0.9";

}  // namespace tessera::test
