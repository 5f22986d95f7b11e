#include "yolo/eval/nms.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "tensor/base/check.h"

namespace tessera {

namespace {

constexpr int64_t kMaxCandidates = 30000, kFirstSorted = 1024;
constexpr float kClassOffset = 7680;

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

// Candidates sort by falling score, then by their order of enumeration: scores are positive, so their bits sort like themselves.
struct Candidate {
  uint64_t key;
  int32_t anchor, class_id;

  Candidate(float score, size_t order, int64_t anchor_, int64_t class_)
      : key(uint64_t{~std::bit_cast<uint32_t>(score)} << 32 | uint32_t(order)),
        anchor(int32_t(anchor_)),
        class_id(int32_t(class_)) {}
  bool operator<(const Candidate& o) const { return key < o.key; }
  float score() const { return std::bit_cast<float>(~uint32_t(key >> 32)); }
};

BoxXyxy corners(const float* row) {
  const float w = row[2] / 2, h = row[3] / 2;
  return {row[0] - w, row[1] - h, row[0] + w, row[1] + h};
}

bool suppresses(const BoxXyxy& a, float area_a, const BoxXyxy& b, float area_b, double threshold) {
  const float w = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  const float h = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  if (!(w > 0) || !(h > 0)) return false;
  const float inter = w * h;
  return double(inter / (area_a + area_b - inter)) > threshold;
}

std::vector<Candidate> candidates(const float* rows, int64_t anchors, int64_t nc, int64_t pitch, const NmsOptions& o) {
  std::vector<uint8_t> wanted(size_t(nc), o.classes.empty());
  for (int32_t c : o.classes) {
    if (c >= 0 && c < nc) wanted[size_t(c)] = 1;
  }
  std::vector<Candidate> found;
  for (int64_t a = 0; a < anchors; ++a) {
    const float* scores = rows + a * pitch + 4;
    const float best = highest(scores, nc);
    if (!(best > o.confidence)) continue;
    if (o.multi_label && nc > 1) {
      for (int64_t c = 0; c < nc; ++c) {
        if (scores[c] > o.confidence && wanted[size_t(c)]) found.emplace_back(scores[c], found.size(), a, c);
      }
    } else {
      const int64_t c = std::find(scores, scores + nc, best) - scores;
      if (wanted[size_t(c)]) found.emplace_back(best, found.size(), a, c);
    }
  }
  return found;
}

}  // namespace

void Detections::keep(const std::vector<uint8_t>& wanted) {
  TESSERA_CHECK(int64_t(wanted.size()) == size(), "Detections::keep: {} flags for {} detections", wanted.size(), size());
  size_t n = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!wanted[i]) continue;
    boxes[n] = boxes[i], scores[n] = scores[i], classes[n] = classes[i], anchors[n] = anchors[i];
    std::copy_n(coefficients.begin() + int64_t(i) * masks, masks, coefficients.begin() + int64_t(n) * masks);
    ++n;
  }
  boxes.resize(n), scores.resize(n), classes.resize(n), anchors.resize(n), coefficients.resize(n * size_t(masks));
}

Detections non_max_suppression(const float* rows, int64_t anchors, int64_t nc, int64_t masks, int64_t pitch, const NmsOptions& o) {
  if (!(o.confidence >= 0 && o.confidence <= 1))
    throw Error(ErrorCode::kUsage, fmt::format("conf is {}, allowed are 0 to 1", o.confidence));
  if (!(o.iou >= 0 && o.iou <= 1)) throw Error(ErrorCode::kUsage, fmt::format("iou is {}, allowed are 0 to 1", o.iou));
  TESSERA_CHECK(nc > 0 && pitch >= 4 + nc + masks, "non_max_suppression: pitch {} for {} classes and {} coefficients", pitch, nc,
                masks);

  std::vector<Candidate> found = candidates(rows, anchors, nc, pitch, o);

  // Boxes of different classes can only meet when they spread over more than the class offset in both directions; below that it is
  // enough to compare within a class.
  float low_x = 0, low_y = 0, high_x = 0, high_y = 0;
  bool finite = true;
  for (const Candidate& c : found) {
    const BoxXyxy b = corners(rows + int64_t{c.anchor} * pitch);
    low_x = std::min(low_x, b.x1), low_y = std::min(low_y, b.y1), high_x = std::max(high_x, b.x2), high_y = std::max(high_y, b.y2);
    finite = finite && std::isfinite(b.x1 + b.y1 + b.x2 + b.y2);
  }
  constexpr float kSafe = kClassOffset - 8;
  const bool apart = !o.agnostic && finite && (high_x - low_x < kSafe || high_y - low_y < kSafe);

  struct Kept {
    BoxXyxy box;  // with the class offset
    float area;
  };
  std::vector<std::vector<Kept>> kept(apart ? size_t(nc) : 1);
  Detections out;
  out.masks = masks;
  const int64_t limit = std::min(int64_t(found.size()), kMaxCandidates);
  int64_t sorted = 0;  // so many of the best candidates are in order; most images need only the first few
  for (int64_t i = 0; i < limit && out.size() < o.max_detections; ++i) {
    if (i == sorted) {
      sorted = std::min(limit, std::max(kFirstSorted, 2 * sorted));
      if (sorted < int64_t(found.size())) std::nth_element(found.begin() + i, found.begin() + sorted, found.end());
      std::sort(found.begin() + i, found.begin() + sorted);
    }
    const Candidate& c = found[size_t(i)];
    const float* row = rows + int64_t{c.anchor} * pitch;
    const BoxXyxy box = corners(row);
    const float offset = o.agnostic ? 0 : float(c.class_id) * kClassOffset;
    const BoxXyxy shifted{box.x1 + offset, box.y1 + offset, box.x2 + offset, box.y2 + offset};
    const float area = shifted.width() * shifted.height();
    std::vector<Kept>& rivals = kept[apart ? size_t(c.class_id) : 0];
    const bool gone =
        std::any_of(rivals.begin(), rivals.end(), [&](const Kept& k) { return suppresses(k.box, k.area, shifted, area, o.iou); });
    if (gone) continue;
    rivals.push_back({shifted, area});
    out.boxes.push_back(box), out.scores.push_back(c.score()), out.classes.push_back(c.class_id), out.anchors.push_back(c.anchor);
    out.coefficients.insert(out.coefficients.end(), row + 4 + nc, row + 4 + nc + masks);
  }
  return out;
}

}  // namespace tessera
