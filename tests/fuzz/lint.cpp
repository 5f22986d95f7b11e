// lint --fix over a data set of one image whose label file the bytes are: rows that stay are read as the same bits, the former
// file stays beside the new one, and a second fix finds nothing to do.
#include "data/lint.h"

#include <bit>

#include "data/image.h"
#include "tensor/base/file.h"
#include "tests/fuzz/fuzz.h"

using namespace tessera;

namespace fs = std::filesystem;

namespace {

bool same_bits(const std::vector<LabelObject>& a, const std::vector<LabelObject>& b) {
  const auto bits = [](float x) { return std::bit_cast<uint32_t>(x); };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](const LabelObject& x, const LabelObject& y) {
    return x.class_id == y.class_id &&
           std::equal(x.polygon.begin(), x.polygon.end(), y.polygon.begin(), y.polygon.end(),
                      [&](Point p, Point q) { return bits(p.x) == bits(q.x) && bits(p.y) == bits(q.y); });
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fs::path set = [] {
    fs::create_directories(fuzz::folder() / "images/train");
    fs::create_directories(fuzz::folder() / "labels/train");
    Image image(12, 10);
    std::fill(image.pixels.begin(), image.pixels.end(), uint8_t(100));
    write_png(fuzz::folder() / "images/train/a.png", image);
    return fs::path(fuzz::file_with("data.yaml", "names: [a, b, c]\ntrain: images/train\nval: images/train\n"));
  }();
  const std::string_view text = fuzz::text_of(data, size);
  const fs::path labels = fuzz::folder() / "labels/train/a.txt", former = fuzz::folder() / "labels/train/a.txt.orig";
  fs::remove(former);
  fuzz::file_with("labels/train/a.txt", text);
  const LabelFile before = parse_labels(text, labels.string(), 3, LabelPolicy::kLenient);
  const LintReport report = lint_dataset(set.string(), "train", true);
  const std::string now = read_file(labels);
  if (report.splits.at(0).fixed.empty()) {
    fuzz::require(now == text && !fs::exists(former), "a file that is not rewritten stays");
    fuzz::require(before.unusable || before.findings.empty(), "what can be mended is");
    return 0;
  }
  fuzz::require(!before.unusable, "a file without a row that can be used stays");
  fuzz::require(read_file(former) == text, "the former file is kept");
  const LabelFile after = parse_labels(now, labels.string(), 3, LabelPolicy::kStrict);
  fuzz::require(after.findings.empty() && same_bits(before.objects, after.objects), "rows that stay are read as before");
  fuzz::require(lint_dataset(set.string(), "train", true).splits.at(0).fixed.empty(), "nothing is left to fix");
  return 0;
}
