// The definitions, without a shortcut.
#include <algorithm>

#include "tensor/ops/detect_math.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {

using namespace detect_math;

const float* pixel(const ImageView& v, int64_t image, int64_t cell) {
  return data<float>(v) + (image * v.h * v.w + cell) * v.pitch;
}

struct Candidate {
  float score;
  int64_t anchor, class_id;
  Corners box;
  const float* coefficients;
};

std::vector<Candidate> candidates(const DetectInput& in, const DetectParams& params, int64_t image) {
  std::vector<Candidate> found;
  int64_t anchor = 0;
  for (const DetectLevel& level : in.levels) {
    for (int64_t cell = 0; cell < level.box.h * level.box.w; ++cell, ++anchor) {
      const float* const raw_box = pixel(level.box, image, cell);
      const auto decoded = [&] {
        float distance[kSides];
        for (int side = 0; side < kSides; ++side) distance[side] = side_distance(raw_box + side * kBins);
        return box_at(int(cell % level.box.w), int(cell / level.box.w), distance, level.stride);
      };
      const Corners box = in.decoded ? corners_of(raw_box[0], raw_box[1], raw_box[2], raw_box[3]) : decoded();
      std::vector<Candidate> of_anchor;
      for (int64_t c = 0; c < in.classes(); ++c) {
        const float raw = pixel(level.cls, image, cell)[c], score = in.decoded ? raw : score_of(raw);
        if (score > params.confidence) of_anchor.push_back({score, anchor, c, box, pixel(level.coefficients, image, cell)});
      }
      if (!params.multi_label && !of_anchor.empty()) {  // the first of the best
        of_anchor = {*std::max_element(of_anchor.begin(), of_anchor.end(),
                                       [](const Candidate& a, const Candidate& b) { return a.score < b.score; })};
      }
      for (const Candidate& c : of_anchor) {
        if (in.wanted == nullptr || in.wanted[c.class_id] != 0) found.push_back(c);
      }
    }
  }
  return found;
}

}  // namespace

void RefBackend::detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) {
  const int64_t rows = params.max_detections, masks = in.masks();
  std::fill_n(detections, in.images() * rows * kDetectionColumns, 0.0f);
  std::fill_n(coefficients, in.images() * rows * masks, 0.0f);
  for (int64_t image = 0; image < in.images(); ++image) {
    std::vector<Candidate> found = candidates(in, params, image);
    std::stable_sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    if (int64_t(found.size()) > params.max_candidates) found.resize(size_t(params.max_candidates));
    std::vector<Corners> kept;
    for (const Candidate& c : found) {
      if (int64_t(kept.size()) == rows) break;
      const Corners moved = c.box.shifted(params.agnostic ? 0 : float(c.class_id) * kClassOffset);
      const auto rival = [&](const Corners& k) { return suppresses(k, k.area(), moved, moved.area(), params.iou); };
      if (std::any_of(kept.begin(), kept.end(), rival)) continue;
      const int64_t at = image * rows + int64_t(kept.size());
      kept.push_back(moved);
      const float values[] = {c.box.x1, c.box.y1, c.box.x2, c.box.y2, c.score, float(c.class_id), float(c.anchor)};
      std::copy(std::begin(values), std::end(values), detections + at * kDetectionColumns);
      std::copy_n(c.coefficients, masks, coefficients + at * masks);
    }
  }
}

void RefBackend::mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) {
  for (const MaskItem& m : items) {
    const float* const k = data<float>(coefficients) + m.row * coefficients.pitch;
    const auto logit = [&](int x, int y) {  // of a cell of the slice
      x += m.slice.x0, y += m.slice.y0;
      if (x < m.crop.x0 || x >= m.crop.x1 || y < m.crop.y0 || y >= m.crop.y1) return 0.0f;
      return mask_logit(k, pixel(prototypes, m.image, int64_t{y} * prototypes.w + x), int(prototypes.c));
    };
    const int columns = int(m.slice.width()), rows = int(m.slice.height());
    const auto value = [&](int x, int y) {
      if (columns == m.width && rows == m.height) return logit(x, y);
      const Tap ax = tap_of(x, columns, m.width), ay = tap_of(y, rows, m.height);
      const float upper = ax.w0 * logit(ax.i0, ay.i0) + ax.w1 * logit(ax.i1, ay.i0);
      const float lower = ax.w0 * logit(ax.i0, ay.i1) + ax.w1 * logit(ax.i1, ay.i1);
      return ay.w0 * upper + ay.w1 * lower;
    };
    std::fill_n(words + m.offset, m.words(), 0u);
    for (int y = m.where.y0; y < m.where.y1; ++y) {
      uint32_t* const row = words + m.offset + (y - m.where.y0) * words_of_row(m.where.width());
      for (int x = m.where.x0; x < m.where.x1; ++x) {
        const int column = x - m.where.x0;
        if (value(x, y) > 0) row[column / kBitsOfWord] |= 1u << (column % kBitsOfWord);
      }
    }
  }
}

}  // namespace tessera
