#include "yolo/report/batch_images.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "data/image.h"
#include "tests/support/temp_folder.h"
#include "yolo/report/axes.h"
#include "yolo/report/canvas.h"
#include "yolo/report/charts.h"

using namespace tessera;
namespace fs = std::filesystem;

namespace {

constexpr uint8_t kGray = 100;

// Two grey images of 64 x 64; the object of the second fills cells [4, 8) x [2, 12) of its 16 x 16 mask (rows x columns).
Batch batch_of_two(bool overlap) {
  Batch b;
  b.images = Tensor::full({2, 64, 64, 3}, kGray, DType::kU8);
  b.overlap = overlap;
  b.masks = Tensor::zeros({overlap ? 2 : 1, 16, 16}, DType::kI32);
  int32_t* mask = b.masks.data<int32_t>() + (overlap ? 256 : 0);
  for (int y = 4; y < 8; ++y) {
    for (int x = 2; x < 12; ++x) mask[y * 16 + x] = 1;
  }
  b.targets = {{1, {28 / 64.0f, 24 / 64.0f, 40 / 64.0f, 16 / 64.0f}}};
  b.target_image = {1};
  b.files = {"first.jpg", "folder/second.jpg"};
  return b;
}

Rgb at(const Image& i, int y, int x) { return {i.row(y)[3 * x], i.row(y)[3 * x + 1], i.row(y)[3 * x + 2]}; }

// The sheet shows both images eight times enlarged, side by side with gaps of two pixels.
void check_object(const Image& sheet) {
  REQUIRE(sheet.width == 2 * 512 + 6);
  REQUIRE(sheet.height == 512 + 4);
  const auto second = [&](int y, int x) { return at(sheet, 2 + 8 * y, 4 + 512 + 8 * x); };
  const auto half = [](uint8_t v) { return uint8_t((kGray + v + 1) / 2); };
  const Rgb c = class_color(1), mixed{half(c.r), half(c.g), half(c.b)}, gray{kGray, kGray, kGray};
  CHECK(second(20, 20) == mixed);
  CHECK(second(30, 46) == mixed);
  CHECK(second(33, 20) == gray);
  CHECK(second(20, 50) == gray);
  CHECK(second(60, 60) == gray);
  CHECK(at(sheet, 400, 400) == gray);  // the first image has no object
}

}  // namespace

TEST_CASE("labels are drawn where the masks are, in both forms") {
  const testing::TempFolder folder;
  for (const bool overlap : {true, false}) {
    draw_label_batch(folder / "labels.png", batch_of_two(overlap), {"cat", "dog"});
    check_object(read_image(folder / "labels.png"));
  }
}

TEST_CASE("predictions above 0.25 are drawn, others are not") {
  const testing::TempFolder folder;
  PredictedObject object{1, 0.9f, {8, 16, 48, 32}, {{8, 16, 48, 32}, std::vector<uint8_t>(40 * 16, 1)}};
  PredictedObject weak{0, 0.25f, {0, 33, 64, 64}, {{0, 33, 64, 64}, std::vector<uint8_t>(64 * 31, 1)}};
  draw_prediction_batch(folder / "pred.png", batch_of_two(true), {{}, {object, weak}}, {"cat", "dog"});
  check_object(read_image(folder / "pred.png"));
}

TEST_CASE("batches without objects, without masks, and of many images") {
  const testing::TempFolder folder;
  Batch b;
  b.images = Tensor::full({20, 32, 96, 3}, 7, DType::kU8);
  draw_label_batch(folder / "empty.png", b, {});
  CHECK(read_image(folder / "empty.png").width > 96);
  b.targets = {{5, {0.5f, 0.5f, 0.2f, 0.2f}}};  // a class without a name, no masks
  b.target_image = {0};
  draw_label_batch(folder / "empty.png", b, {});
  CHECK_THROWS(draw_label_batch(folder / "no" / "folder.png", b, {}));
  draw_label_batch(folder / "none.png", Batch{}, {});
  CHECK(!fs::exists(folder / "none.png"));
}

TEST_CASE("ticks stand at round numbers") {
  const auto near = [](const std::vector<double>& got, const std::vector<double>& want) {
    REQUIRE(got.size() == want.size());
    for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(want[i]));
  };
  near(tick_values({0, 1}, 5), {0, 0.2, 0.4, 0.6, 0.8, 1});
  near(tick_values({1, 0}, 5), {0, 0.2, 0.4, 0.6, 0.8, 1});
  near(tick_values({-0.13, 0.27}, 4), {-0.1, 0, 0.1, 0.2});
  near(tick_values({0.8, 4.2}, 10, true), {1, 2, 3, 4});
  near(tick_values({1200, 5300}, 4), {2000, 4000});
  CHECK(tick_values({3, 3}, 4).empty());
  CHECK(tick_label(0.1 + 0.2) == "0.3");
  const double nothing[] = {NAN, INFINITY}, one[] = {5.0};
  CHECK(padded_range(nothing).high == 1);
  CHECK(padded_range(one).low < 5);
  CHECK(padded_range(one).high > 5);
}

TEST_CASE("smoothing keeps constants and sums, and is a Gaussian in the middle") {
  const std::vector<double> constant(5, 2.5);
  for (const double v : gaussian_smooth(constant, 3)) CHECK(v == doctest::Approx(2.5));
  std::vector<double> impulse(51, 0.0);
  impulse[25] = 1;
  const std::vector<double> bell = gaussian_smooth(impulse, 3);
  CHECK(bell[25] == doctest::Approx(0.1329807).epsilon(1e-3));
  CHECK(bell[28] / bell[25] == doctest::Approx(std::exp(-0.5)));
  CHECK(bell[12] == 0);  // beyond 4 sigma
  const std::vector<double> ends = gaussian_smooth(std::vector<double>{1, 0, 0, 0}, 3);
  CHECK(ends[0] + ends[1] + ends[2] + ends[3] == doctest::Approx(1));
  CHECK(ends[0] > ends[3]);
  CHECK(gaussian_smooth({}, 3).empty());
}

TEST_CASE("charts are written, the same every time, whatever the values") {
  const testing::TempFolder folder;
  const auto file = [&](const char* name) { return folder / name; };
  std::vector<Curve> curves(16);
  for (size_t i = 1; i < curves.size(); ++i) {
    curves[i].title = "curve";
    for (size_t k = 0; k < i; ++k) curves[i].x.push_back(double(k)), curves[i].y.push_back(k == 3 ? NAN : double(k * i));
  }
  draw_curve_grid(file("a.png"), curves, 8);
  draw_curve_grid(file("b.png"), curves, 8);
  const Image a = read_image(file("a.png"));
  CHECK(a.pixels == read_image(file("b.png")).pixels);
  CHECK(a.width > 3 * a.height);
  const auto colours = [](const Image& image) {
    int64_t n = 0;
    for (size_t i = 0; i < image.pixels.size(); i += 3) n += image.pixels[i] != image.pixels[i + 2];
    return n;
  };
  CHECK(colours(a) > 500);

  ClassCurves pr{"PR", "Recall", "Precision", {0, 0.5, 1}, {}, {"mean", {}, {1, 0.5, 0}}};
  for (int i = 0; i < 3; ++i) pr.classes.push_back({"class", {}, {1, NAN, 0}});
  draw_class_curves(file("few.png"), pr);
  for (int i = 0; i < 40; ++i) pr.classes.push_back({"class", {}, {1, 0.5, 0}});
  draw_class_curves(file("many.png"), pr);
  draw_class_curves(file("none.png"), {});
  CHECK(colours(read_image(file("few.png"))) > 100);

  const int64_t counts[] = {3, 0, 12};
  const std::array<float, 4> boxes[] = {{0.5f, 0.5f, 0.2f, 0.3f}, {NAN, 0, 1, 1}, {2, -1, 3, 1}};
  draw_label_statistics(file("labels.png"), {"cat", "dog", "a very long name of a class indeed"}, counts, boxes);
  draw_label_statistics(file("labels_none.png"), {}, {}, {});
  CHECK(colours(read_image(file("labels.png"))) > colours(read_image(file("labels_none.png"))));

  const auto of = [](std::array<double, 4> values) { return [=](size_t row, size_t column) { return values[2 * row + column]; }; };
  draw_confusion_matrix(file("two.png"), {"cat"}, of({0.9, 0.1, 0.004, NAN}));
  draw_confusion_matrix(file("counts.png"), {"cat"}, of({90, 1, 0, 7}), false);
  draw_confusion_matrix(
      file("nothing.png"), {}, [](size_t, size_t) { return 0.0; }, false);
  draw_confusion_matrix(file("large.png"), std::vector<std::string>(80, "name"), [](size_t, size_t) { return 0.3; });
  // With cells of 9 pixels more than a canvas holds.
  draw_confusion_matrix(file("thousands.png"), std::vector<std::string>(4000, "name"),
                        [](size_t r, size_t c) { return r + c == 0 ? 1.0 : 0.0; });
  const Image thousands = read_image(file("thousands.png"));
  CHECK(confusion_drawing_bytes(4000) == int64_t{8} * thousands.width * thousands.height);
  CHECK_THROWS(draw_curve_grid(folder / "no" / "folder.png", curves, 8));
}
