// What a validation leaves besides figures.
#include "yolo/train/run_plots.h"

#include <doctest/doctest.h>

#include <cstdio>

#include "tensor/base/memory.h"
#include "tests/support/small_disk.h"
#include "tests/support/temp_folder.h"

namespace tessera {
namespace {

// An image of 32 x 32 in the middle of an input of 64 x 64; its object ends at the right edge.
TEST_CASE("the confusion matrix compares boxes within the image, as the figures do, and not in its padding") {
  Batch batch;
  batch.images = Tensor::zeros({1, 64, 64, 3}, DType::kU8);
  batch.geometry = {
      {.original_height = 32, .original_width = 32, .ratio_height = 1, .ratio_width = 1, .pad_left = 16, .pad_top = 16}};
  batch.targets = {{.class_id = 1, .box = {42.0f / 64, 0.5f, 12.0f / 64, 0.5f}}};
  batch.target_image = {0};
  BatchDetections found;
  Detections& d = found.images.emplace_back();
  d.boxes = {{36, 16, 64, 48}};  // the same but for what lies in the padding: 0.43 of their union there
  d.scores = {0.9f};
  d.classes = {1};
  ValidationPlots plots({}, {"circle", "square"}, 0.001);
  EvaluatorHooks hooks;
  plots.listen(hooks);
  hooks.part_done.front()(0, batch, 0, found);
  CHECK(plots.confusion().at(1, 1) == 1);
  CHECK(plots.confusion().at(1, 2) == 0);
  CHECK(plots.confusion().at(2, 1) == 0);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Of as many classes as make the plot of the matrix large, all with curves.
TEST_CASE("curves and confusion matrix of many classes take no more memory than is planned for them, and not far less") {
  constexpr int kClasses = 500;
  const int64_t planned = report_bytes(kClasses, kClasses, true);
  const testing::TempFolder folder;
  testing::in_own_process("a process", [&] {  // whose peak of memory is its own
    const int64_t before = resident_bytes();
    {
      EvaluatorHooks hooks;
      ValidationPlots plots(folder.path(), std::vector<std::string>(kClasses, "name"), 0.001);
      plots.listen(hooks);
      {
        DetectionCurves::Row row;
        for (auto* curve : {&row.precision_at_recall, &row.precision, &row.recall, &row.f1}) curve->assign(1001, 0.5);
        DetectionCurves box;
        box.x.assign(1001, 0.5);
        for (row.class_id = 0; row.class_id < kClasses; ++row.class_id) box.classes.push_back(row);
        const DetectionCurves mask = box;
        hooks.curves(box, mask);
      }
      plots.finish();
    }
    const int64_t taken = peak_resident_bytes() - before;
    std::printf("%d classes: planned %d MiB, taken %d\n", kClasses, int(planned >> 20), int(taken >> 20));
    return taken > planned ? 1 : taken < planned / 2 ? 2 : 0;
  });
  CHECK(std::filesystem::exists(folder / "confusion_matrix_normalized.png"));
  CHECK(report_bytes(3000, 5, true) > report_bytes(3000, 5, false) + (int64_t{36} << 20));
  CHECK(report_bytes(3, 3, true) < int64_t{8} << 20);  // less than other drawings take
}
#endif

}  // namespace
}  // namespace tessera
