// A validation as a whole, with a network that finds what there is: every figure is known.
#include "yolo/eval/evaluator.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "data/image.h"
#include "tensor/base/parallel.h"
#include "tests/support/temp_folder.h"

using namespace tessera;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kClasses = 3;
constexpr int64_t kFaintRows = 8;

// Finds the pixels of pure red, green and blue in an image, one object of each colour, and gives their boxes and masks as an
// exported file does. Of one that is not of full brightness it is less sure, and it sees the upper rows alone of its mask.
class ColourFinder final : public SegNetwork {
 public:
  int64_t nc() const override { return kClasses; }
  const std::array<int64_t, kAnchorLevels>& strides() const override { return strides_; }
  int64_t max_stride() const override { return 32; }
  Device device() const override { return Device::cpu(); }
  void place(const Tensor& images) override { images_ = images.contiguous(); }
  RawOutputs run() override {
    const int64_t n = images_.size(0), h = images_.size(1), w = images_.size(2);
    RawOutputs out;
    out.decoded = true;
    for (size_t l = 0; l < size_t(kAnchorLevels); ++l) {
      const int64_t rows = h / strides_[l], columns = w / strides_[l];
      out.box[l] = Variable(Tensor::zeros({n, rows, columns, 4}));
      out.cls[l] = Variable(Tensor::zeros({n, rows, columns, kClasses}));
      out.coefficients[l] = Variable(Tensor::zeros({n, rows, columns, kClasses}));
    }
    out.prototypes = Variable(Tensor::full({n, h / 4, w / 4, kClasses}, -1));
    for (int64_t image = 0; image < n; ++image) {
      for (int64_t c = 0; c < kClasses; ++c) find(image, c, out);
    }
    return out;
  }

 private:
  // The object of class c takes place c of level 0.
  void find(int64_t image, int64_t c, RawOutputs& out) const {
    const int64_t h = images_.size(1), w = images_.size(2), cells = (h / 8) * (w / 8);
    int64_t x0 = w, y0 = h, x1 = 0, y1 = 0;
    uint8_t brightest = 0;
    for (int64_t y = 0; y < h; ++y) {
      for (int64_t x = 0; x < w; ++x) {
        const uint8_t* p = images_.data<uint8_t>() + ((image * h + y) * w + x) * 3;
        if (p[c] < 200 || p[(c + 1) % 3] > 50 || p[(c + 2) % 3] > 50) continue;
        x0 = std::min(x0, x), y0 = std::min(y0, y), x1 = std::max(x1, x + 1), y1 = std::max(y1, y + 1);
        brightest = std::max(brightest, p[c]);
        if (brightest < 255 && y >= y0 + kFaintRows) continue;
        out.prototypes.data().data<float>()[((image * (h / 4) + y / 4) * (w / 4) + x / 4) * kClasses + c] = 1;
      }
    }
    if (x1 == 0) return;
    const int64_t at = image * cells + c;
    const std::array<float, 4> box = {float(x0 + x1) / 2, float(y0 + y1) / 2, float(x1 - x0), float(y1 - y0)};
    std::copy(box.begin(), box.end(), out.box[0].data().data<float>() + 4 * at);
    out.cls[0].data().data<float>()[at * kClasses + c] = brightest < 255 ? 0.5f : 0.9f;
    out.coefficients[0].data().data<float>()[at * kClasses + c] = 20;
  }

  const std::array<int64_t, kAnchorLevels> strides_{8, 16, 32};
  Tensor images_;
};

// Images of several shapes with rectangles of whole blocks of 4 pixels: a red one in each, a green one in every other, no blue one.
class ColourSet {
 public:
  enum class But { kNothing, kTwoRedInOne, kOneIsFaint };  // of the first image
  explicit ColourSet(But but = But::kNothing) {
    fs::create_directories(folder_.path() / "images");
    const std::array<std::array<int, 2>, 5> sizes = {{{64, 128}, {128, 64}, {128, 128}, {96, 128}, {128, 96}}};
    for (size_t k = 0; k < sizes.size(); ++k) {
      const auto [h, w] = sizes[k];
      Image image(h, w);
      std::fill(image.pixels.begin(), image.pixels.end(), uint8_t(90));
      std::string lines;
      const auto rectangle = [&](int c, int x0, int y0, int x1, int y1, int brightness = 255) {
        for (int y = y0; y < y1; ++y)
          for (int x = x0; x < x1; ++x)
            for (int channel = 0; channel < 3; ++channel) image.row(y)[3 * x + channel] = uint8_t(channel == c ? brightness : 0);
        const double l = double(x0) / w, r = double(x1) / w, t = double(y0) / h, b = double(y1) / h;
        lines += fmt::format("{} {} {} {} {} {} {} {} {}\n", c, l, t, r, t, r, b, l, b);
      };
      if (k % 2 == 0) rectangle(1, w / 2, h / 4, w - 8, h / 2 + 8);
      rectangle(0, 8, h / 2 - 16, w / 2 - 8, h - 8, k == 0 && but == But::kOneIsFaint ? 220 : 255);
      if (k == 0 && but == But::kTwoRedInOne) rectangle(0, w / 2 + 8, h - 16, w - 8, h - 4);
      write_png(folder_.path() / "images" / fmt::format("{}.png", k), image);
      folder_.write(fmt::format("labels/{}.txt", k), lines);
    }
    yaml_ = folder_.write("data.yaml", "train: images\nval: images\nnames: [red, green, blue]\n").string();
  }
  ValidationResult validate(SegNetwork& network, const EvaluatorOptions& options, bool overlap, const EvaluatorHooks& hooks = {},
                            int imgsz = 128) const {
    DatasetConfig config;
    config.train = false;
    config.imgsz = imgsz;
    config.overlap_mask = overlap;
    const auto set = open_dataset(yaml_, "val", config);
    LoaderOptions loading;
    loading.batch = 3;
    loading.shuffle = false;
    Loader loader(*set, loading);
    return Evaluator(set->names(), options).run(network, *set, loader, hooks);
  }

 private:
  testing::TempFolder folder_;
  std::string yaml_;
};

EvaluatorHooks kept_in(ImageScores& scores) {
  EvaluatorHooks hooks;
  hooks.images = [&scores](const ImageScores& s) {
    scores = s;
    return std::vector<int64_t>();
  };
  return hooks;
}

}  // namespace

TEST_CASE("evaluator: a network that finds every object has full marks, in both styles and with both forms of masks") {
  const ColourSet set;
  for (const MapStyle style : {MapStyle::kCoco, MapStyle::kOriginal}) {
    const bool original = style == MapStyle::kOriginal;
    for (const bool overlap : {true, false}) {
      CAPTURE(original);
      CAPTURE(overlap);
      EvaluatorOptions options;
      options.style = style;
      ImageScores scores;
      ColourFinder network;
      const ValidationResult r = set.validate(network, options, overlap, kept_in(scores));
      const double full = original ? 0.995 : 1;
      CHECK(r.images == 5);
      CHECK(r.instances == 8);
      CHECK(r.box.map == doctest::Approx(full));
      CHECK(r.mask.map50 == doctest::Approx(full));
      CHECK(r.mask.map > 0.8);
      REQUIRE(r.classes.size() == 2);
      CHECK((r.classes[0].images == 5 && r.classes[0].instances == 5));
      CHECK((r.classes[1].images == 3 && r.classes[1].instances == 3));
      REQUIRE(scores.images.size() == 5);
      for (const ImageScore& image : scores.images) {
        CHECK(image.mask.errors() == 0);
        CHECK(image.mask_iou > 0.8);
      }
    }
  }
}

TEST_CASE("evaluator: an image counts once for a class, whatever it has of it") {
  ColourFinder network;
  const ValidationResult r = ColourSet(ColourSet::But::kTwoRedInOne).validate(network, {}, true);
  REQUIRE(r.classes.size() == 2);
  CHECK((r.classes[0].images == 5 && r.classes[0].instances == 6));
  CHECK((r.classes[1].images == 3 && r.classes[1].instances == 3));
}

TEST_CASE("evaluator: what counts in an image is decided by the masks, not by the boxes") {
  for (const MapStyle style : {MapStyle::kCoco, MapStyle::kOriginal}) {
    EvaluatorOptions options;
    options.style = style;
    ImageScores scores;
    ColourFinder network;
    const ValidationResult r = ColourSet(ColourSet::But::kOneIsFaint).validate(network, options, true, kept_in(scores));
    CHECK(r.box.recall == doctest::Approx(1));  // with the one that the network is less sure of, whose box is right
    CHECK(scores.confidence > 0.5);             // without it: its mask is wrong
    CHECK(scores.confidence < 0.9);
    REQUIRE(scores.images.size() == 5);
    CHECK(scores.images[0].detections == 1);
    CHECK(scores.images[0].mask.fn == 1);
    for (size_t i = 1; i < 5; ++i) CHECK(scores.images[i].mask.errors() == 0);
  }
}

TEST_CASE("evaluator: the loss is told the outputs of a whole batch, image by image, and averaged over the batches") {
  const ColourSet set;
  const int before = compute_threads();
  set_compute_threads(1);  // images of 1024 x 1024 pixels then go through the network one by one
  EvaluatorHooks hooks;
  int64_t parts = 0;
  hooks.part_done.push_back([&](int64_t, const Batch&, int64_t, const BatchDetections&) { ++parts; });
  hooks.loss = [&](const RawOutputs& outputs, const Batch& batch) {
    const Tensor& cls = outputs.cls[0].data();
    CHECK(cls.size(0) == batch.size());
    for (int64_t image = 0; image < batch.size(); ++image) {
      const std::vector<float> scores = cls.select(0, image).to_vector<float>();
      const int64_t found = std::count_if(scores.begin(), scores.end(), [](float v) { return v > 0.5f; });
      CHECK(found == std::count(batch.target_image.begin(), batch.target_image.end(), int32_t(image)));
    }
    LossReport report;
    report.items.cls = double(batch.size());
    report.target_score_sum = 1;
    return report;
  };
  ColourFinder network;
  const ValidationResult r = set.validate(network, {}, true, hooks, 1024);
  set_compute_threads(before);
  CHECK(parts == 5);
  CHECK(r.loss.cls == doctest::Approx(2.5));
}

TEST_CASE("evaluator: without classes, every object is of the one that there is") {
  const ColourSet set;
  EvaluatorOptions options;
  options.single_class = true;
  EvaluatorHooks hooks;
  int64_t other = 0, all = 0;
  hooks.detections = [&](std::span<const std::vector<ScoredDetection>> images) {
    for (const auto& image : images)
      for (const ScoredDetection& d : image) ++all, other += d.class_id != 0;
  };
  ColourFinder network;
  set.validate(network, options, true, hooks);
  CHECK(all == 8);
  CHECK(other == 0);
}
