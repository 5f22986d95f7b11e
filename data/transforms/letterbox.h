// Fitting images into the network input: the resize before everything else, the letterbox, and the batch shapes of validation
// (spec 3.2, 3.3, 3.5).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/image.h"
#include "data/instance.h"
#include "data/sample.h"

namespace tessera {

// As large as fits: of a square, long side = imgsz. The other side is rounded up in double precision (spec 3.2, 14.5).
Size dataset_size(Size image, Size within);

struct LetterboxPlan {
  int resized_height = 0, resized_width = 0;
  int top = 0, bottom = 0, left = 0, right = 0;
  double ratio = 1;
  int height() const { return resized_height + top + bottom; }
  int width() const { return resized_width + left + right; }
};

struct LetterboxOptions {
  bool auto_shape = false;  // pad only to the next multiple of the stride
  bool scaleup = true;
  int stride = 32;
};

// Spec 3.3, centred.
LetterboxPlan plan_letterbox(Size image, Size target, const LetterboxOptions& options = {});
Image letterbox(const Image& image, const LetterboxPlan& plan);
void letterbox(const Image& image, const LetterboxPlan& plan, uint8_t* out);  // the same pixels elsewhere
void letterbox(std::vector<Instance>& instances, const LetterboxPlan& plan);  // scale, then shift

// Rectangular batches (spec 3.5): the order of the images by rising height / width (equal ones stay in order), and the shape of
// each batch of that order. `sizes` are those of the original images.
struct RectBatches {
  std::vector<int64_t> order;
  std::vector<Size> shapes;
};
RectBatches rect_batches(std::span<const Size> sizes, int64_t batch, int imgsz, int stride = 32, double pad = 0.5);

}  // namespace tessera
