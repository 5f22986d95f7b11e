// The shared library as its users see it: only tessera.h, beside the program whose results it must repeat.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <regex>
#include <set>
#include <thread>

#include "capi/tessera.h"
#include "data/rle.h"
#include "data/shapes.h"
#include "tests/cli/program.h"
#include "tests/yolo/formula_model.h"
#include "yolo/io/weights.h"

using namespace tessera::test;
using tessera::Image;

namespace {

template <class T, void (*release)(T*)>
struct Releaser {
  void operator()(T* p) const { release(p); }
};
using Model = std::unique_ptr<tessera_model, Releaser<tessera_model, tessera_model_free>>;
using Result = std::unique_ptr<tessera_result, Releaser<tessera_result, tessera_result_free>>;

Model open(const std::string& file) {
  tessera_model* model = nullptr;
  const tessera_status status = tessera_model_load(file.c_str(), &model);
  INFO(tessera_last_error());
  REQUIRE(status == TESSERA_OK);
  return Model(model);
}

tessera_options defaults() {
  tessera_options options;
  tessera_options_init(&options, sizeof options);
  return options;
}

Result predict(const Model& model, const Image& image, const tessera_options* options = nullptr) {
  tessera_result* result = nullptr;
  const tessera_status status = tessera_predict(model.get(), image.pixels.data(), image.height, image.width,
                                                ptrdiff_t(image.width) * 3, TESSERA_RGB, options, &result);
  INFO(tessera_last_error());
  REQUIRE(status == TESSERA_OK);
  return Result(result);
}

std::vector<uint8_t> mask_of(const Result& result, size_t index, const Image& image, size_t gap = 0) {
  const size_t stride = size_t(image.width) + gap;
  std::vector<uint8_t> padded(size_t(image.height) * stride, 7), mask;
  REQUIRE(tessera_result_mask(result.get(), index, padded.data(), stride) == TESSERA_OK);
  for (size_t y = 0; y < size_t(image.height); ++y) {
    const auto row = padded.begin() + ptrdiff_t(y * stride);
    mask.insert(mask.end(), row, row + image.width);
    CHECK(std::all_of(row + image.width, row + ptrdiff_t(stride), [](uint8_t v) { return v == 7; }));
  }
  return mask;
}

// The same from the bits.
std::vector<uint8_t> mask_of_bits(const Result& result, size_t index, const Image& image) {
  tessera_bits bits;
  REQUIRE(tessera_result_mask_bits(result.get(), index, &bits) == TESSERA_OK);
  std::vector<uint8_t> mask(size_t(image.height) * size_t(image.width), 0);
  for (int y = bits.y0; y < bits.y1; ++y) {
    for (int x = bits.x0; x < bits.x1; ++x) {
      const uint32_t word = bits.words[size_t(y - bits.y0) * bits.row_words + size_t(x - bits.x0) / 32];
      mask[size_t(y) * size_t(image.width) + size_t(x)] = uint8_t(word >> (x - bits.x0) % 32 & 1);
    }
  }
  return mask;
}

// A result in the form of an image's "detections" of predict --json.
Json json_of(const Result& result, const Image& image) {
  const auto decimals = [](float v, double scale) { return std::round(double(v) * scale) / scale; };
  Json list = Json::array();
  for (size_t i = 0; i < tessera_result_count(result.get()); ++i) {
    tessera_object o;
    REQUIRE(tessera_result_object(result.get(), i, &o) == TESSERA_OK);
    const std::vector<uint8_t> mask = mask_of(result, i, image);
    CHECK(mask == mask_of(result, i, image, 5));
    CHECK(mask == mask_of_bits(result, i, image));
    Json rings = Json::array();
    for (size_t part = 0; part < o.outlines; ++part) {
      const float* xy = nullptr;
      size_t points = 0;
      REQUIRE(tessera_result_outline(result.get(), i, part, &xy, &points) == TESSERA_OK);
      Json ring = Json::array();
      for (size_t p = 0; p < points; ++p) ring.push_back({decimals(xy[2 * p], 1e3), decimals(xy[2 * p + 1], 1e3)});
      rings.push_back(std::move(ring));
    }
    Json box = Json::array();
    for (const float v : {o.x1, o.y1, o.x2, o.y2}) box.push_back(decimals(v, 1e3));
    list.push_back({{"class", o.class_id},
                    {"name", o.name},
                    {"confidence", decimals(o.score, 1e6)},
                    {"box", std::move(box)},
                    {"rle",
                     {{"size", {image.height, image.width}},
                      {"counts", tessera::rle_to_string(tessera::rle_encode(mask.data(), image.height, image.width))}}},
                    {"rings", std::move(rings)}});
  }
  return list;
}

// A folder with a network of three classes in every form, and embedded images of two shapes.
struct Fixture {
  Folder f;
  std::string weights = f / "small.safetensors", fixed = f / "fixed.onnx", dynamic = f / "dynamic.onnx";
  std::vector<Image> images;
  std::vector<std::string> files;

  Fixture() {
    tessera::YoloSeg model(tessera::parse_model_yaml("yolov8n-seg", "", 3));
    tessera::testing::set_formula_weights(model);
    tessera::save_model(weights, model, {"cat", "dog", "\"bird\""});
    for (int i = 0; i < 3; ++i) {
      Image image = tessera::draw_shapes({.size = 96}, i).image;
      if (i == 1) image.height = 61, image.pixels.resize(size_t(61) * 96 * 3);
      files.push_back(f / fmt::format("{}.png", i));
      tessera::write_png(files.back(), image);
      images.push_back(std::move(image));
    }
  }

  // What the program has; empty: it has no ONNX.
  std::string exported(const std::string& file, const Arguments& more) const {
    Arguments all = {"export", "--model", weights, "--imgsz", "64,96", "--output", file};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome outcome = run(all);
    if (outcome.code != 0 && says(outcome.err, "cannot read or write ONNX files")) return {};
    INFO(described(all, outcome));
    REQUIRE(outcome.code == 0);
    return file;
  }

  // Holds the library to the program, and returns how many objects were compared.
  size_t compare(const std::string& file, const tessera_options* options, const Arguments& arguments) const {
    const Model model = open(file);
    Arguments all = {"predict", "--model", file, "--save", "false", "--json", "--source"};
    all.insert(all.end(), files.begin(), files.end());
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Outcome outcome = run(all);
    INFO(described(all, {outcome.code, 0, false, "", outcome.err}));
    REQUIRE(outcome.code == 0);
    const Json results = outcome.json()["results"];
    REQUIRE(results.size() == images.size());
    size_t objects = 0;
    for (size_t i = 0; i < images.size(); ++i) {
      CAPTURE(i);
      const Json& expected = results[i]["detections"];
      CHECK((json_of(predict(model, images[i], options), images[i]) == expected));
      objects += expected.size();
    }
    return objects;
  }
};

const Fixture& fixture() {
  static const Fixture made;
  return made;
}

// `expected`, with `text` in the sentence of this thread.
void refused(tessera_status status, tessera_status expected, const std::string& text) {
  CAPTURE(text);
  CHECK(status == expected);
  INFO(tessera_last_error());
  CHECK(says(tessera_last_error(), text));
}

}  // namespace

TEST_CASE("capi: objects, boxes, masks and outlines are those of predict --json") {
  const Fixture& w = fixture();
  CHECK(w.compare(w.weights, nullptr, {}) > 0);
  tessera_options options = defaults();
  options.imgsz = 64, options.conf = 0.1f, options.iou = 0.4, options.max_det = 20;
  const Arguments same = {"--imgsz", "64", "--conf", "0.1", "--iou", "0.4", "--max-det", "20"};
  const auto with = [&](const Arguments& more) {
    Arguments all = same;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  CHECK(w.compare(w.weights, &options, same) > 10);
  options.retina_masks = 1;
  CHECK(w.compare(w.weights, &options, with({"--retina-masks"})) > 10);
  options.agnostic_nms = 1;
  CHECK(w.compare(w.weights, &options, with({"--retina-masks", "--agnostic-nms"})) > 0);
  options = defaults();
  options.imgsz = 64, options.conf = 0.1f;
  const int32_t classes[] = {2, 0};
  options.classes = classes, options.class_count = 2;
  CHECK(w.compare(w.weights, &options, {"--imgsz", "64", "--conf", "0.1", "--classes", "2,0"}) > 0);
}

TEST_CASE("capi: an .onnx file runs as predict runs it, at its own size or at another that it takes") {
  const Fixture& w = fixture();
  const std::string fixed = w.exported(w.fixed, {}), dynamic = fixed.empty() ? "" : w.exported(w.dynamic, {"--dynamic"});
  if (fixed.empty()) {
    MESSAGE("skipped: no ONNX in this build");
    return;
  }
  tessera_options options = defaults();
  options.conf = 0.1f;
  CHECK(w.compare(fixed, &options, {"--conf", "0.1"}) > 0);
  CHECK(w.compare(dynamic, &options, {"--conf", "0.1"}) > 0);
  options.imgsz = 128;
  CHECK(w.compare(dynamic, &options, {"--conf", "0.1", "--imgsz", "128"}) > 0);
  const Model model = open(fixed);
  tessera_result* result = nullptr;
  const Image& image = w.images[0];
  CHECK(tessera_predict(model.get(), image.pixels.data(), image.height, image.width, image.width * 3, TESSERA_RGB, &options,
                        &result) == TESSERA_ERROR_USAGE);
  CHECK(says(tessera_last_error(), "takes 64 x 96 only"));
  CHECK(result == nullptr);
}

TEST_CASE("capi: rows with gaps, rows from below and BGR are the same image") {
  const Fixture& w = fixture();
  const Model model = open(w.weights);
  const Image& image = w.images[1];
  tessera_options options = defaults();
  options.imgsz = 64, options.conf = 0.1f;
  const Json expected = json_of(predict(model, image, &options), image);
  REQUIRE(expected.size() > 0);
  const ptrdiff_t stride = image.width * 3 + 13;
  for (const tessera_format format : {TESSERA_RGB, TESSERA_BGR}) {
    for (const bool from_below : {false, true}) {
      std::vector<uint8_t> pixels(size_t(image.height) * size_t(stride), 0xAA);
      const auto row = [&](int y) { return pixels.data() + (from_below ? image.height - 1 - y : y) * stride; };
      for (int y = 0; y < image.height; ++y) {
        for (int i = 0; i < image.width * 3; ++i) row(y)[i] = image.row(y)[format == TESSERA_BGR ? i - i % 3 + 2 - i % 3 : i];
      }
      tessera_result* result = nullptr;
      REQUIRE(tessera_predict(model.get(), row(0), image.height, image.width, from_below ? -stride : stride, format, &options,
                              &result) == TESSERA_OK);
      CHECK((json_of(Result(result), image) == expected));
    }
  }
}

TEST_CASE("capi: names, versions, and results that outlive their model") {
  const Fixture& w = fixture();
  CHECK(run({"--version"}).out == fmt::format("tessera {}\n", tessera_version()));
  Model model = open(w.weights);
  CHECK(tessera_model_classes(model.get()) == 3);
  CHECK(std::string(tessera_model_class_name(model.get(), 2)) == "\"bird\"");
  CHECK(tessera_model_class_name(model.get(), 3) == nullptr);
  CHECK(tessera_model_class_name(model.get(), -1) == nullptr);
  tessera_options options = defaults();
  options.imgsz = 64, options.conf = 0.1f;
  const Result result = predict(model, w.images[0], &options);
  const Json before = json_of(result, w.images[0]);
  REQUIRE(before.size() > 0);
  model.reset();
  CHECK((json_of(result, w.images[0]) == before));
  tessera_model_free(nullptr), tessera_result_free(nullptr);
}

// A caller built with an earlier header has a shorter struct.
TEST_CASE("capi: options that end early have defaults where they end, and nothing is written behind them") {
  const Fixture& w = fixture();
  const Model model = open(w.weights);
  struct Early {
    size_t size;
    float conf;
    char behind[64];
  } early;
  std::memset(&early, 0x5A, sizeof early);
  tessera_options_init(reinterpret_cast<tessera_options*>(&early), offsetof(Early, behind));
  CHECK(early.size == offsetof(Early, behind));
  CHECK(early.conf == 0.25f);
  CHECK(std::all_of(std::begin(early.behind), std::end(early.behind), [](char c) { return c == 0x5A; }));
  const Result result = predict(model, w.images[0], reinterpret_cast<tessera_options*>(&early));
  CHECK((json_of(result, w.images[0]) == json_of(predict(model, w.images[0]), w.images[0])));
}

TEST_CASE("capi: what is wrong with a model or a prediction becomes a status and a sentence, and outputs stay as they are") {
  const Fixture& w = fixture();
  const Model model = open(w.weights);
  const Image& image = w.images[0];
  tessera_model* none = nullptr;
  refused(tessera_model_load(nullptr, &none), TESSERA_ERROR_USAGE, "path is NULL");
  refused(tessera_model_load(w.weights.c_str(), nullptr), TESSERA_ERROR_USAGE, "model is NULL");
  refused(tessera_model_load((w.f / "none.safetensors").c_str(), &none), TESSERA_ERROR_DATA, "none.safetensors");
  refused(tessera_model_load("yolov8n-seg", &none), TESSERA_ERROR_USAGE, "'yolov8n-seg' has no weights");
  const std::string cut = w.f.write("cut.safetensors", content(w.weights).substr(0, 5000));
  refused(tessera_model_load(cut.c_str(), &none), TESSERA_ERROR_DATA, cut);
  CHECK(none == nullptr);
  refused(tessera_set_threads(0), TESSERA_ERROR_USAGE, "0 compute threads");

  tessera_result* result = nullptr;
  const auto with = [&](const std::function<void(tessera_options&)>& change) {
    tessera_options options = defaults();
    change(options);
    return tessera_predict(model.get(), image.pixels.data(), image.height, image.width, image.width * 3, TESSERA_RGB, &options,
                           &result);
  };
  const int32_t unknown[] = {3};
  refused(with([](auto& o) { o.conf = 1.5f; }), TESSERA_ERROR_USAGE, "conf=1.5");
  refused(with([](auto& o) { o.conf = std::numeric_limits<float>::quiet_NaN(); }), TESSERA_ERROR_USAGE, "conf=nan");
  refused(with([](auto& o) { o.iou = -1; }), TESSERA_ERROR_USAGE, "iou=-1");
  refused(with([](auto& o) { o.imgsz = 65; }), TESSERA_ERROR_USAGE, "imgsz=65 is not a multiple of 32");
  refused(with([](auto& o) { o.imgsz = -32; }), TESSERA_ERROR_USAGE, "imgsz=-32");
  for (const int32_t imgsz : {1 << 24, std::numeric_limits<int32_t>::max() / 32 * 32})  // bytes beyond memory, and beyond 64 bits
    refused(with([&](auto& o) { o.imgsz = imgsz; }), TESSERA_ERROR_MEMORY, "use a smaller batch or image size");
  refused(with([](auto& o) { o.max_det = 0; }), TESSERA_ERROR_USAGE, "max_det=0");
  refused(with([&](auto& o) { o.classes = unknown, o.class_count = 1; }), TESSERA_ERROR_USAGE, "class 3 does not exist");
  refused(with([&](auto& o) { o.classes = unknown; }), TESSERA_ERROR_USAGE, "class_count is 0");
  refused(with([](auto& o) { o.size = 0; }), TESSERA_ERROR_USAGE, "tessera_options_init");
  const auto of = [&](const uint8_t* pixels, int height, int width, ptrdiff_t stride, int format = 0) {
    return tessera_predict(model.get(), pixels, height, width, stride, tessera_format(format), nullptr, &result);
  };
  const uint8_t* pixels = image.pixels.data();
  refused(of(nullptr, 96, 96, 288), TESSERA_ERROR_USAGE, "pixels is NULL");
  refused(of(pixels, 0, 96, 288), TESSERA_ERROR_USAGE, "an image of 0 x 96");
  refused(of(pixels, 96, -1, 288), TESSERA_ERROR_USAGE, "an image of 96 x -1");
  refused(of(pixels, 60000, 60000, 180000), TESSERA_ERROR_USAGE, "an image of 60000 x 60000");
  refused(of(pixels, 96, 96, 287), TESSERA_ERROR_USAGE, "stride=287 for rows of 288 bytes");
  refused(of(pixels, 96, 96, -287), TESSERA_ERROR_USAGE, "stride=-287");
  using Stride = std::numeric_limits<ptrdiff_t>;
  for (const ptrdiff_t stride : {ptrdiff_t(0), Stride::min(), Stride::max()})
    refused(of(pixels, 96, 96, stride), TESSERA_ERROR_USAGE, fmt::format("stride={}", stride));
  refused(of(pixels, 96, 96, 288, 2), TESSERA_ERROR_USAGE, "format=2");
  refused(tessera_predict(nullptr, pixels, 96, 96, 288, TESSERA_RGB, nullptr, &result), TESSERA_ERROR_USAGE, "model is NULL");
  refused(tessera_predict(model.get(), pixels, 96, 96, 288, TESSERA_RGB, nullptr, nullptr), TESSERA_ERROR_USAGE, "result is NULL");
  CHECK(result == nullptr);
}

TEST_CASE("capi: what is wrong with a question about a result becomes a status and a sentence of the thread") {
  const Fixture& w = fixture();
  const Result found = predict(open(w.weights), w.images[0]);
  const size_t count = tessera_result_count(found.get());
  REQUIRE(count > 0);
  tessera_object object;
  tessera_bits bits;
  const float* xy = nullptr;
  size_t points = 0;
  uint8_t byte = 0;
  refused(tessera_result_object(found.get(), count, &object), TESSERA_ERROR_USAGE, fmt::format("object {} of {}", count, count));
  refused(tessera_result_object(nullptr, 0, &object), TESSERA_ERROR_USAGE, "result is NULL");
  refused(tessera_result_object(found.get(), 0, nullptr), TESSERA_ERROR_USAGE, "object is NULL");
  refused(tessera_result_mask(found.get(), 0, &byte, 95), TESSERA_ERROR_USAGE, "stride=95 for rows of 96 bytes");
  refused(tessera_result_mask(found.get(), 0, nullptr, 96), TESSERA_ERROR_USAGE, "mask is NULL");
  refused(tessera_result_mask_bits(found.get(), count, &bits), TESSERA_ERROR_USAGE, "object");
  refused(tessera_result_mask_bits(found.get(), 0, nullptr), TESSERA_ERROR_USAGE, "bits is NULL");
  refused(tessera_result_outline(found.get(), 0, 1000, &xy, &points), TESSERA_ERROR_USAGE, "outline 1000 of");
  refused(tessera_result_outline(found.get(), 0, 0, nullptr, &points), TESSERA_ERROR_USAGE, "xy is NULL");
  CHECK(tessera_result_count(nullptr) == 0);
  CHECK(tessera_model_classes(nullptr) == 0);

  // The text is that of a thread.
  std::string elsewhere = "?";
  std::thread([&] { elsewhere = tessera_last_error(); }).join();
  CHECK(elsewhere.empty());
  CHECK(says(tessera_last_error(), "xy is NULL"));
}

TEST_CASE("capi: threads that share a model, or have their own, get what one alone gets") {
  const Fixture& w = fixture();
  tessera_options options = defaults();
  options.imgsz = 64, options.conf = 0.1f;
  const Model shared = open(w.weights);
  std::vector<Json> expected;
  for (const Image& image : w.images) expected.push_back(json_of(predict(shared, image, &options), image));
  for (const int threads : {1, 3}) {
    REQUIRE(tessera_set_threads(threads) == TESSERA_OK);
    std::atomic<int> equal{0};
    std::vector<std::thread> callers;
    for (int t = 0; t < 4; ++t) {
      callers.emplace_back([&, t] {
        tessera_model* own = nullptr;
        if (t >= 2 && tessera_model_load(w.weights.c_str(), &own) != TESSERA_OK) return;
        const Model kept(own);
        for (size_t i = 0; i < 6; ++i) {
          const Image& image = w.images[(i + size_t(t)) % w.images.size()];
          tessera_result* result = nullptr;
          if (tessera_predict(own ? own : shared.get(), image.pixels.data(), image.height, image.width, image.width * 3,
                              TESSERA_RGB, &options, &result) == TESSERA_OK) {
            equal += json_of(Result(result), image) == expected[(i + size_t(t)) % w.images.size()];
          }
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(equal == 4 * 6);
  }
}

TEST_CASE("capi: the library shows the functions of its header and no other symbol") {
  std::set<std::string> declared;
  const std::string header = content(fs::path(TESSERA_SOURCE_DIR) / "capi/tessera.h");
  const std::regex function(R"re(TESSERA_API [^;]*?\b(tessera_\w+)\()re");
  for (std::sregex_iterator it(header.begin(), header.end(), function), end; it != end; ++it) declared.insert((*it)[1]);
  CHECK(declared.size() >= 14);
  if (!there_is("nm")) {
    MESSAGE("skipped: no nm");
    return;
  }
  const Folder f;
  const Shell shown = shell(f, fmt::format("nm -D --defined-only '{}'", TESSERA_LIBRARY));
  INFO(shown.out);
  REQUIRE(shown.code == 0);
  std::set<std::string> exported;
  std::istringstream lines(shown.out);
  for (std::string address, kind, name; lines >> address >> kind >> name;) {
    if (kind != "A") exported.insert(name.substr(0, name.find('@')));  // A: the version itself
  }
  CHECK(exported == declared);
}
