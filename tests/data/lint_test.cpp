// The linter: every fault of a data set with its place, and label files rewritten without what cannot be used.
#include "data/lint.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "data/dataset.h"
#include "data/image.h"
#include "tensor/base/file.h"
#include "tests/data/support.h"
#include "tests/support/error_of.h"

using namespace tessera;
using namespace tessera::test;
using tessera::testing::error_of;
using tessera::testing::says_in_full;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> codes_of(const std::vector<Finding>& findings) {
  std::vector<std::string> codes;
  for (const Finding& f : findings) codes.push_back(f.code);
  std::sort(codes.begin(), codes.end());
  return codes;
}

// Three training images and two for validation, one of which is among the first.
struct FaultySet {
  TempFolder folder;
  FaultySet() {
    folder.write("data.yaml", "names: [a, b, unused]\ntrain: images/train\nval: images/val\n");
    image("train/one.png", 1, "0 0.1 0.1 0.9 0.1 0.9 0.9\n1 0.2 0.2 0.8 0.25 0.3333333 1.005\n\n0 0.5 0.5 0.2 0.2\ncat 1\n");
    image("train/two.png", 2, "1 0.1 0.1 0.9 0.1 0.9 0.9\r\n1 0.1 0.1 0.9 0.1 0.9 0.9\r\n");
    image("train/three.png", 3, "7 0.1 0.1 0.9 0.1 0.9 0.9\n");
    image("val/four.png", 4, "");
    image("val/again.png", 1, "0 0.1 0.1 0.9 0.1 0.9 0.9\n");
    folder.write("labels/val/lone.txt", "0 0.1 0.1 0.9 0.1 0.9 0.9\n");
    const std::string whole = read_file(folder.path() / "images/train/two.png");
    folder.write("images/train/cut.png", whole.substr(0, whole.size() / 2));
  }
  void image(const std::string& name, uint64_t seed, std::string_view labels) const {
    fs::create_directories((folder.path() / "images" / name).parent_path());
    write_png(folder.path() / "images" / name, noise_image(20, 24, seed));
    folder.write("labels/" + name.substr(0, name.size() - 4) + ".txt", labels);
  }
  std::string yaml() const { return (folder.path() / "data.yaml").string(); }
};

}  // namespace

TEST_CASE("lint: faults of rows, files and images, images in two splits, unused classes") {
  const FaultySet set;
  const LintReport r = lint_dataset(set.yaml(), "", false);
  REQUIRE(r.splits.size() == 2);
  CHECK(r.splits[0].name == "train");
  CHECK(codes_of(r.splits[0].scan.findings) == std::vector<std::string>{"file-unusable", "image-unreadable", "row-box", "row-class",
                                                                        "row-clipped", "row-number", "row-twice"});
  CHECK(codes_of(r.splits[1].scan.findings) == std::vector<std::string>{"image-twice", "labels-orphan"});
  CHECK(codes_of(r.findings) == std::vector<std::string>{"class-unused"});
  CHECK(r.warnings() == 7);
  CHECK(r.objects_of_class == std::vector<int64_t>{2, 2, 0});
  CHECK(lint_dataset(set.yaml(), "val", false).splits.size() == 1);
  std::vector<std::string> told;  // what is complete
  int64_t last = 0;
  lint_dataset(set.yaml(), "val", false, {}, [&](const std::string& what, int64_t done, int64_t total) {
    CHECK(done == last + 1);
    last = done < total ? done : 0;
    if (done == total) told.push_back(what);
  });
  CHECK(told == std::vector<std::string>{"checking val", "comparing images"});
  CHECK(!fs::exists(set.folder.path() / "labels/train/one.txt.orig"));
}

TEST_CASE("lint: a fix keeps the rows that are used, to the bit, and the former file; what it cannot mend stays a finding") {
  const FaultySet set;
  const auto objects = [&] {
    std::vector<std::pair<std::string, std::vector<Polygon>>> out;
    for (const LintSplit& s : lint_dataset(set.yaml(), "", false).splits)
      for (const ScanImage& image : s.scan.images) {
        out.push_back({image.file, {}});
        for (const LabelObject& o : image.objects) out.back().second.push_back(o.polygon);
      }
    return out;
  };
  const auto before = objects();
  const std::string former = read_file(set.folder.path() / "labels/train/one.txt"),
                    bad = read_file(set.folder.path() / "labels/train/three.txt");
  const LintReport r = lint_dataset(set.yaml(), "", true);
  CHECK(r.splits[0].fixed.size() == 2);
  CHECK(r.splits[1].fixed.empty());
  CHECK(codes_of(r.splits[0].scan.findings) == std::vector<std::string>{"file-unusable", "image-unreadable", "row-class"});
  CHECK(r.warnings() == 4);
  CHECK(read_file(set.folder.path() / "labels/train/one.txt.orig") == former);
  CHECK(read_file(set.folder.path() / "labels/train/three.txt") == bad);
  CHECK(read_file(set.folder.path() / "labels/train/one.txt") == "0 0.1 0.1 0.9 0.1 0.9 0.9\n1 0.2 0.2 0.8 0.25 0.3333333 1\n");
  CHECK(objects() == before);
  // A second time there is nothing to do, and the first copy stays.
  CHECK(lint_dataset(set.yaml(), "", true).splits[0].fixed.empty());
  set.folder.write("labels/train/one.txt", "0 0.1 0.1 0.9 0.1 0.9 0.9\n0 5 5\n");
  CHECK(lint_dataset(set.yaml(), "", true).splits[0].fixed.size() == 1);
  CHECK(read_file(set.folder.path() / "labels/train/one.txt.orig") == former);
}

TEST_CASE("lint: sets that cannot train are findings, not errors") {
  TempFolder folder;
  const std::string yaml = folder.write("data.yaml", "names: [a]\ntrain: images/train\nval: images/nowhere\n").string();
  fs::create_directories(folder.path() / "images/train");
  write_png(folder.path() / "images/train/one.png", noise_image(20, 24));
  folder.write("labels/train/one.txt", "0 0.5 0.5 0.2 0.2\n");
  const LintReport r = lint_dataset(yaml, "", false);
  CHECK(codes_of(r.findings) == std::vector<std::string>{"class-unused", "split-unreadable"});
  REQUIRE(r.splits.size() == 1);
  CHECK(codes_of(r.splits[0].scan.findings) == std::vector<std::string>{"row-box", "set-boxes", "set-unusable"});
}

TEST_CASE("lint: a set of one split is checked, and told to lack the other; training wants both") {
  const FaultySet set;
  const std::string yaml = set.folder.write("data.yaml", "names: [a, b]\nval: images/val\n").string();
  const LintReport r = lint_dataset(yaml, "", false);
  REQUIRE(r.splits.size() == 1);
  CHECK(codes_of(r.findings) == std::vector<std::string>{"class-unused", "split-missing"});
  CHECK(codes_of(lint_dataset(yaml, "val", false).findings) == std::vector<std::string>{"class-unused"});
  DatasetConfig validation, training;
  validation.train = false, training.train = true;
  CHECK(open_dataset(yaml, "val", validation)->size() == 2);
  set.folder.write("data.yaml", "names: [a, b]\ntrain: images/train\n");
  CHECK(says_in_full(error_of([&] { open_dataset(yaml, "train", training); }), "'val' is missing"));
  set.folder.write("data.yaml", "names: [a, b]\n");
  CHECK(says_in_full(error_of([&] { lint_dataset(yaml, "", false); }), "'train' is missing"));
}
