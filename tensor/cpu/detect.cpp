// Detection on the host. Anchors are looked through in blocks on all threads and decoded only where a class may be above the
// confidence; then every image has a thread of its own.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "tensor/base/parallel.h"
#include "tensor/cpu/cpu_backend.h"
#include "tensor/ops/detect_math.h"

namespace tessera {

namespace {

using namespace detect_math;

constexpr int64_t kAnchorsOfBlock = 512, kFirstSorted = 1024;

// A candidate as one number that sorts by falling score, then by anchor and class: scores are positive, so their bits sort like
// themselves.
uint64_t key_of(float score, int64_t anchor, int64_t class_id, int64_t classes) {
  return uint64_t{~std::bit_cast<uint32_t>(score)} << 32 | uint32_t(anchor * classes + class_id);
}
float score_of_key(uint64_t key) { return std::bit_cast<float>(~uint32_t(key >> 32)); }

// Highest of n scores; written in lanes so that it vectorises.
float highest(const float* s, int64_t n) {
  float lane[8];
  std::fill(lane, lane + 8, -std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int k = 0; k < 8; ++k) lane[k] = s[i + k] > lane[k] ? s[i + k] : lane[k];
  }
  for (; i < n; ++i) lane[0] = s[i] > lane[0] ? s[i] : lane[0];
  for (int k = 1; k < 8; ++k) lane[0] = std::max(lane[0], lane[k]);
  return lane[0];
}

// Where all boxes of some candidates lie.
struct Extent {
  float low_x = 0, low_y = 0, high_x = 0, high_y = 0;
  bool finite = true;

  void add(const Corners& b) {
    low_x = std::min(low_x, b.x1), low_y = std::min(low_y, b.y1), high_x = std::max(high_x, b.x2), high_y = std::max(high_y, b.y2);
    finite = finite && std::isfinite(b.x1 + b.y1 + b.x2 + b.y2);
  }
  void add(const Extent& e) {
    low_x = std::min(low_x, e.low_x), low_y = std::min(low_y, e.low_y);
    high_x = std::max(high_x, e.high_x), high_y = std::max(high_y, e.high_y);
    finite = finite && e.finite;
  }
  // Boxes of different classes can only meet when they spread over more than the class offset in both directions.
  bool keeps_classes_apart() const {
    constexpr float kSafe = kClassOffset - 8;
    return finite && (high_x - low_x < kSafe || high_y - low_y < kSafe);
  }
};

// Some neighbouring anchors of a level.
struct Block {
  int level;
  int64_t begin, end;    // cells
  int64_t first_anchor;  // of the level
};

std::vector<Block> blocks_of(const DetectInput& in) {
  std::vector<Block> blocks;
  for (int l = 0; l < kAnchorLevels; ++l) {
    const int64_t cells = in.levels[size_t(l)].box.h * in.levels[size_t(l)].box.w;
    for (int64_t begin = 0; begin < cells; begin += kAnchorsOfBlock) {
      blocks.push_back({l, begin, std::min(begin + kAnchorsOfBlock, cells), in.first_anchor(l)});
    }
  }
  return blocks;
}

struct Found {
  std::vector<uint64_t> keys;
  Extent extent;
};

Corners box_of(const DetectInput& in, const DetectLevel& level, int64_t cell, const float* box) {
  if (in.decoded) return corners_of(box[0], box[1], box[2], box[3]);
  float distance[kSides];
  for (int side = 0; side < kSides; ++side) distance[side] = side_distance(box + side * kBins);
  return box_at(int(cell % level.box.w), int(cell / level.box.w), distance, level.stride);
}

// What a value of the class maps must be above to be worth decoding: a little below the exact limit, so that rounding never hides
// an anchor.
float least_of(const DetectInput& in, const DetectParams& params) {
  const float c = params.confidence;
  if (in.decoded) return c;
  return c > 0 && c < 1 ? std::log(c / (1 - c)) - 1e-3f : -std::numeric_limits<float>::infinity();
}

// The candidates of a block; boxes[anchor] is written for theirs alone.
Found search(const DetectInput& in, const DetectParams& params, float least, int64_t image, const Block& block, Corners* boxes) {
  const DetectLevel& level = in.levels[size_t(block.level)];
  const int64_t nc = in.classes(), first = image * level.box.h * level.box.w;
  thread_local std::vector<float> scores;
  scores.resize(size_t(nc));
  Found found;
  for (int64_t cell = block.begin; cell < block.end; ++cell) {
    const float* logits = data<float>(level.cls) + (first + cell) * level.cls.pitch;
    const auto above = [&](float v) { return v > least; };
    if (least > -std::numeric_limits<float>::infinity() && std::none_of(logits, logits + nc, above)) continue;
    for (int64_t c = 0; c < nc; ++c) scores[size_t(c)] = in.decoded ? logits[c] : score_of(logits[c]);
    const float best = highest(scores.data(), nc);
    if (!(best > params.confidence)) continue;
    const int64_t anchor = block.first_anchor + cell;
    const size_t before = found.keys.size();
    const auto add = [&](int64_t c) {
      if (in.wanted == nullptr || in.wanted[c] != 0) found.keys.push_back(key_of(scores[size_t(c)], anchor, c, nc));
    };
    if (params.multi_label) {
      for (int64_t c = 0; c < nc; ++c) {
        if (scores[size_t(c)] > params.confidence) add(c);
      }
    } else {
      add(std::find(scores.begin(), scores.end(), best) - scores.begin());
    }
    if (found.keys.size() == before) continue;
    boxes[anchor] = box_of(in, level, cell, data<float>(level.box) + (first + cell) * level.box.pitch);
    found.extent.add(boxes[anchor]);
  }
  return found;
}

// Suppression among the candidates of one image; writes its rows.
void suppress(const DetectInput& in, const DetectParams& params, std::vector<uint64_t> found, const Extent& extent,
              const Corners* boxes, float* rows) {
  const int64_t nc = in.classes();
  const bool apart = !params.agnostic && extent.keeps_classes_apart();
  struct Kept {
    Corners box;  // with the class offset
    float area;
  };
  std::vector<std::vector<Kept>> kept(apart ? size_t(nc) : 1);
  const int64_t limit = std::min(int64_t(found.size()), params.max_candidates);
  int64_t sorted = 0;  // so many of the best candidates are in order; most images need only the first few
  int64_t count = 0;
  for (int64_t i = 0; i < limit && count < params.max_detections; ++i) {
    if (i == sorted) {
      sorted = std::min(limit, std::max(kFirstSorted, 2 * sorted));
      if (sorted < int64_t(found.size())) std::nth_element(found.begin() + i, found.begin() + sorted, found.end());
      std::sort(found.begin() + i, found.begin() + sorted);
    }
    const uint64_t key = found[size_t(i)];
    const int64_t anchor = uint32_t(key) / nc, class_id = uint32_t(key) % nc;
    const Corners& box = boxes[anchor];
    const Corners moved = box.shifted(params.agnostic ? 0 : float(class_id) * kClassOffset);
    const float area = moved.area();
    std::vector<Kept>& rivals = kept[apart ? size_t(class_id) : 0];
    const bool gone = std::any_of(rivals.begin(), rivals.end(),
                                  [&](const Kept& k) { return suppresses(k.box, k.area, moved, area, params.iou); });
    if (gone) continue;
    rivals.push_back({moved, area});
    const float values[] = {box.x1, box.y1, box.x2, box.y2, score_of_key(key), float(class_id), float(anchor)};
    std::copy(std::begin(values), std::end(values), rows + count++ * kDetectionColumns);
  }
  std::fill(rows + count * kDetectionColumns, rows + params.max_detections * kDetectionColumns, 0.0f);
}

void gather_coefficients(const DetectInput& in, int64_t image, const float* rows, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i, rows += kDetectionColumns, out += in.masks()) {
    if (rows[4] == 0) {
      std::fill_n(out, in.masks(), 0.0f);
      continue;
    }
    const int64_t anchor = int64_t(rows[6]);
    const int level = anchor >= in.first_anchor(2) ? 2 : anchor >= in.first_anchor(1) ? 1 : 0;
    const ImageView& k = in.levels[size_t(level)].coefficients;
    std::copy_n(data<float>(k) + (image * k.h * k.w + anchor - in.first_anchor(level)) * k.pitch, in.masks(), out);
  }
}

}  // namespace

void CpuBackend::detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) {
  const float least = least_of(in, params);
  const std::vector<Block> blocks = blocks_of(in);
  const int64_t images = in.images(), per_image = int64_t(blocks.size()), anchors = in.anchors();
  const auto boxes = std::make_unique_for_overwrite<Corners[]>(size_t(images * anchors));
  std::vector<Found> found(size_t(images * per_image));
  parallel_chunks(images * per_image, [&](int64_t i) {
    const int64_t image = i / per_image;
    found[size_t(i)] = search(in, params, least, image, blocks[size_t(i % per_image)], boxes.get() + image * anchors);
  });
  parallel_chunks(images, [&](int64_t image) {
    std::vector<uint64_t> keys;
    Extent extent;
    for (int64_t b = 0; b < per_image; ++b) {
      const Found& part = found[size_t(image * per_image + b)];
      keys.insert(keys.end(), part.keys.begin(), part.keys.end());
      extent.add(part.extent);
    }
    const int64_t first = image * params.max_detections;
    float* const rows = detections + first * kDetectionColumns;
    suppress(in, params, std::move(keys), extent, boxes.get() + image * anchors, rows);
    gather_coefficients(in, image, rows, params.max_detections, coefficients + first * in.masks());
  });
}

}  // namespace tessera
