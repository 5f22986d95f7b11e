// Detection on the host. The highest class value of every anchor is found first, in blocks on all threads: it tells which anchors can
// have a candidate at all, and which have the best ones. These are decoded and gone through before the others, for which there is
// mostly no room left. Then every image has a thread of its own.
//
// Compiled for each vector width: loops over bins, scores and boxes that were kept are plain ones, which the compiler turns into
// vectors of the same operations.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/detect.cpp"
#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>

#include "tensor/base/parallel.h"
#include "tensor/cpu/highway.h"
#include "tensor/ops/detect_math.h"
// After highway.h, once per target:
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

using namespace detect_math;

constexpr int64_t kAnchorsOfBlock = 512, kFirstAnchors = 1024, kFirstSorted = 1024;
// More than two scores can be wrong by, relative to the lower one, in the order of their logits: both have a few units in the last
// place of error (score_of).
constexpr float kScoreError = 1e-5f;

// A candidate as one number that sorts by falling score, then by anchor and class: scores are positive, so their bits sort like
// themselves.
uint64_t key_of(float score, int64_t anchor, int64_t class_id, int64_t classes) {
  return uint64_t{~std::bit_cast<uint32_t>(score)} << 32 | uint32_t(anchor * classes + class_id);
}
float score_of_key(uint64_t key) { return std::bit_cast<float>(~uint32_t(key >> 32)); }

// Highest of n values that is a number.
float highest_of(const float* s, int64_t n) {
  V most = splat(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < n; i += int64_t(kLanes)) {
    const M inside = first(size_t(std::min<int64_t>(n - i, kLanes)));
    const V v = load(inside, s + i);
    most = hn::IfThenElse(hn::And(inside, hn::Gt(v, most)), v, most);
  }
  return hn::GetLane(hn::MaxOfLanes(F32(), most));
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

// highest[anchor] of an image: of its class values.
void set_highest(const DetectInput& in, int64_t image, const Block& block, float* highest) {
  const ImageView& cls = in.levels[size_t(block.level)].cls;
  for (int64_t cell = block.begin; cell < block.end; ++cell) {
    highest[block.first_anchor + cell] = highest_of(data<float>(cls) + (image * cls.h * cls.w + cell) * cls.pitch, cls.c);
  }
}

struct Found {
  std::vector<uint64_t> keys;
  Extent extent;
};

int level_of(const DetectInput& in, int64_t anchor) {
  return anchor >= in.first_anchor(2) ? 2 : anchor >= in.first_anchor(1) ? 1 : 0;
}

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

// Some anchors of an image, and between which scores their candidates are asked for: all of these have class values above `least`.
struct Layer {
  std::span<const int32_t> anchors;
  float least, above, up_to;
};

// The layers that one image is gone through in, one after the other, with every candidate in one of them.
struct Layers {
  std::vector<int32_t> anchors, first;  // those that can have a candidate; those of them with the highest values
  std::vector<Layer> all;

  Layers(const DetectInput& in, const DetectParams& params, const float* highest) {
    const float least = least_of(in, params), unlimited = std::numeric_limits<float>::infinity();
    for (int32_t a = 0; a < in.anchors(); ++a) {
      if (highest[a] > least) anchors.push_back(a);
    }
    if (int64_t(anchors.size()) > kFirstAnchors) {
      std::vector<float> values;
      for (const int32_t a : anchors) values.push_back(highest[a]);
      const auto last = values.begin() + kFirstAnchors - 1;
      std::nth_element(values.begin(), last, values.end(), std::greater<>());
      // No other anchor has a score above this.
      const float limit = in.decoded ? *last : score_of(*last) * (1 + kScoreError);
      if (std::isfinite(limit)) {
        std::copy_if(anchors.begin(), anchors.end(), std::back_inserter(first), [&](int32_t a) { return highest[a] >= *last; });
        all.push_back({first, std::max(*last, least), std::max(limit, params.confidence), unlimited});
        if (limit > params.confidence) all.push_back({anchors, least, params.confidence, limit});
        return;
      }
    }
    all.push_back({anchors, least, params.confidence, unlimited});
  }
};

// The candidates of some anchors of a layer; boxes[anchor] is written for theirs alone.
Found search(const DetectInput& in, const DetectParams& params, int64_t image, const Layer& layer, std::span<const int32_t> anchors,
             Corners* boxes) {
  const int64_t nc = in.classes();
  struct ClassScore {
    float score;
    int64_t class_id;
  };
  thread_local std::vector<ClassScore> scores;  // of one anchor, those that are asked for
  Found found;
  for (const int32_t anchor : anchors) {
    const int l = level_of(in, anchor);
    const DetectLevel& level = in.levels[size_t(l)];
    const int64_t cell = anchor - in.first_anchor(l), pixel = image * level.box.h * level.box.w + cell;
    const float* values = data<float>(level.cls) + pixel * level.cls.pitch;
    scores.clear();
    for (int64_t c = 0; c < nc; c += kLanes) {
      const size_t n = size_t(std::min<int64_t>(nc - c, kLanes));
      float some[kLanes];  // the others are not above the least
      hn::StoreU(hn::IfThenElse(first(n), load(first(n), values + c), splat(layer.least)), F32(), some);
      if (hn::AllFalse(F32(), hn::Gt(load(some), splat(layer.least)))) continue;
      float their_scores[kLanes];
      for (size_t i = 0; i < kLanes; ++i) their_scores[i] = in.decoded ? some[i] : score_of(some[i]);
      for (size_t i = 0; i < kLanes; ++i) {
        if (some[i] > layer.least && their_scores[i] > layer.above) scores.push_back({their_scores[i], c + int64_t(i)});
      }
    }
    if (!params.multi_label && !scores.empty()) {  // the best, of equal ones the first
      scores = {*std::max_element(scores.begin(), scores.end(), [](const auto& a, const auto& b) { return a.score < b.score; })};
    }
    const size_t before = found.keys.size();
    for (const auto& [score, c] : scores) {
      if (score <= layer.up_to && (in.wanted == nullptr || in.wanted[c] != 0)) found.keys.push_back(key_of(score, anchor, c, nc));
    }
    if (found.keys.size() == before) continue;
    boxes[anchor] = box_of(in, level, cell, data<float>(level.box) + pixel * level.box.pitch);
    found.extent.add(boxes[anchor]);
  }
  return found;
}

// On all threads, where a batch has no other work for them.
Found search(const DetectInput& in, const DetectParams& params, int64_t image, const Layer& layer, Corners* boxes) {
  std::vector<Found> parts((layer.anchors.size() + kAnchorsOfBlock - 1) / kAnchorsOfBlock);
  parallel_for(int64_t(layer.anchors.size()), kAnchorsOfBlock, [&](int64_t begin, int64_t end) {
    parts[size_t(begin / kAnchorsOfBlock)] =
        search(in, params, image, layer, layer.anchors.subspan(size_t(begin), size_t(end - begin)), boxes);
  });
  Found all;
  for (const Found& part : parts) {
    all.keys.insert(all.keys.end(), part.keys.begin(), part.keys.end());
    all.extent.add(part.extent);
  }
  return all;
}

// Suppression among the candidates of one image; writes its rows.
class Suppression {
 public:
  Suppression(const DetectInput& in, const DetectParams& params, const Corners* boxes, float* rows)
      : classes_(in.classes()), params_(params), boxes_(boxes), rows_(rows), kept_(params.agnostic ? 1 : size_t(classes_)) {
    if (params.agnostic) suppressed_.resize(size_t(in.anchors()));
  }

  bool done() const { return count_ == params_.max_detections || looked_at_ == params_.max_candidates; }

  // Candidates none of which comes before one that was taken earlier.
  void take(Found found) {
    extent_.add(found.extent);
    const bool apart = params_.agnostic || extent_.keeps_classes_apart();
    std::vector<uint64_t>& keys = found.keys;
    const int64_t all = int64_t(keys.size());
    for (int64_t begin = 0, end; begin < all && !done(); begin = end) {  // most images need only the first few in order
      end = std::min({all, std::max(kFirstSorted, 2 * begin), begin + params_.max_candidates - looked_at_});
      if (end < all) std::nth_element(keys.begin() + begin, keys.begin() + end, keys.end());
      const auto last = keys.begin() + end;
      // Of these every one is looked at, unless there is no more room: the order of those that are settled does not matter.
      const auto open = std::partition(keys.begin() + begin, last, [&](uint64_t key) { return is_suppressed(key); });
      std::sort(open, last);
      looked_at_ += open - (keys.begin() + begin);
      for (auto key = open; key != last && !done(); ++key, ++looked_at_) look_at(*key, apart);
    }
  }

  void finish() {
    std::fill(rows_ + count_ * kDetectionColumns, rows_ + params_.max_detections * kDetectionColumns, 0.0f);
  }

 private:
  // Boxes that were kept, with the class offset: a list for each value, so that the loop over them vectorises.
  class Kept {
   public:
    void add(const Corners& b, float area) {
      x1_.push_back(b.x1), y1_.push_back(b.y1), x2_.push_back(b.x2), y2_.push_back(b.y2), areas_.push_back(area);
    }
    // suppresses() of any of them; limit: the largest float that is not above its threshold.
    bool any_suppresses(const Corners& box, float area, float limit) const {
      constexpr size_t kAtOnce = 16;
      for (size_t begin = 0; begin < areas_.size(); begin += kAtOnce) {
        const size_t end = std::min(begin + kAtOnce, areas_.size());
        int any = 0;
        for (size_t i = begin; i < end; ++i) {
          const float w = smaller(x2_[i], box.x2) - larger(x1_[i], box.x1);
          const float h = smaller(y2_[i], box.y2) - larger(y1_[i], box.y1);
          const float inter = w * h;
          any |= int(w > 0) & int(h > 0) & int(inter / (areas_[i] + area - inter) > limit);
        }
        if (any != 0) return true;
      }
      return false;
    }

   private:
    std::vector<float> x1_, y1_, x2_, y2_, areas_;
  };

  static float not_above(double threshold) {
    const float rounded = float(threshold);
    return double(rounded) > threshold ? std::nextafter(rounded, -std::numeric_limits<float>::infinity()) : rounded;
  }

  uint32_t anchor_of(uint64_t key) const { return uint32_t(key) / uint32_t(classes_); }
  bool is_suppressed(uint64_t key) const { return params_.agnostic && suppressed_[anchor_of(key)]; }

  void look_at(uint64_t key, bool apart) {
    if (is_suppressed(key)) return;
    const int64_t anchor = anchor_of(key), class_id = uint32_t(key) % uint32_t(classes_);
    const Corners& box = boxes_[anchor];
    const Corners moved = box.shifted(params_.agnostic ? 0 : float(class_id) * kClassOffset);
    const float area = moved.area();
    Kept& own = kept_[params_.agnostic ? 0 : size_t(class_id)];
    const auto any_rival = [&](const Kept& list) { return list.any_suppresses(moved, area, limit_); };
    if (apart ? any_rival(own) : std::any_of(kept_.begin(), kept_.end(), any_rival)) {
      if (params_.agnostic) suppressed_[size_t(anchor)] = true;
      return;
    }
    own.add(moved, area);
    const float values[] = {box.x1, box.y1, box.x2, box.y2, score_of_key(key), float(class_id), float(anchor)};
    std::copy(std::begin(values), std::end(values), rows_ + count_++ * kDetectionColumns);
  }

  const int64_t classes_;
  const DetectParams& params_;
  const float limit_ = not_above(params_.iou);  // of overlaps
  const Corners* const boxes_;
  float* const rows_;
  std::vector<Kept> kept_;         // by class, unless they suppress each other
  std::vector<bool> suppressed_;   // agnostic: anchors whose box is, of whatever class, by one that stays
  Extent extent_;
  int64_t count_ = 0, looked_at_ = 0;
};

void gather_coefficients(const DetectInput& in, int64_t image, const float* rows, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i, rows += kDetectionColumns, out += in.masks()) {
    if (rows[4] == 0) {
      std::fill_n(out, in.masks(), 0.0f);
      continue;
    }
    const int64_t anchor = int64_t(rows[6]);
    const int level = level_of(in, anchor);
    const ImageView& k = in.levels[size_t(level)].coefficients;
    std::copy_n(data<float>(k) + (image * k.h * k.w + anchor - in.first_anchor(level)) * k.pitch, in.masks(), out);
  }
}

void Detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) {
  const std::vector<Block> blocks = blocks_of(in);
  const int64_t images = in.images(), per_image = int64_t(blocks.size()), anchors = in.anchors();
  std::vector<float> highest(size_t(images * anchors));
  parallel_chunks(images * per_image, [&](int64_t i) {
    const int64_t image = i / per_image;
    set_highest(in, image, blocks[size_t(i % per_image)], highest.data() + image * anchors);
  });
  parallel_chunks(images, [&](int64_t image) {
    const auto boxes = std::make_unique_for_overwrite<Corners[]>(size_t(anchors));
    const int64_t first = image * params.max_detections;
    float* const rows = detections + first * kDetectionColumns;
    Suppression suppression(in, params, boxes.get(), rows);
    const Layers layers(in, params, highest.data() + image * anchors);
    for (const Layer& layer : layers.all) {
      if (!suppression.done()) suppression.take(search(in, params, image, layer, boxes.get()));
    }
    suppression.finish();
    gather_coefficients(in, image, rows, params.max_detections, coefficients + first * in.masks());
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(Detect);

void detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) {
  HWY_DYNAMIC_DISPATCH(Detect)(in, params, detections, coefficients);
}

}  // namespace tessera::cpu
#endif
