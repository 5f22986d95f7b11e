#include "yolo/eval/coco_eval.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "tensor/base/check.h"
#include "tensor/base/parallel.h"

namespace tessera {

namespace {

constexpr int kThresholds = 10, kAreas = 4, kRecalls = 101, kConfidences = 1001;
constexpr int64_t kLimits[3] = {1, 10, kComparedDetections};
constexpr uint16_t kAllThresholds = (1 << kThresholds) - 1;
constexpr double kAreaRange[kAreas][2] = {{0, 1e10}, {0, 32 * 32}, {32 * 32, 96 * 96}, {96 * 96, 1e10}};

// linspace(0.5, 0.95, 10) and linspace(0, 1, 101) as NumPy rounds them.
constexpr auto kIou = [] {
  std::array<double, kThresholds> t{};
  for (int i = 0; i < kThresholds; ++i) t[size_t(i)] = i * ((0.95 - 0.5) / (kThresholds - 1)) + 0.5;
  t[kThresholds - 1] = 0.95;
  return t;
}();
constexpr auto kRecall = [] {
  std::array<double, kRecalls> r{};
  for (int i = 0; i < kRecalls; ++i) r[size_t(i)] = i * 0.01;
  r[kRecalls - 1] = 1;
  return r;
}();

// Rounded so that a recall of 3/10 meets the point 0.3.
constexpr auto kDrawnRecall = [] {
  std::array<double, kConfidences> r{};
  for (int i = 0; i < kConfidences; ++i) r[size_t(i)] = i / double(kConfidences - 1);
  return r;
}();

bool outside(double area, int range) { return area < kAreaRange[range][0] || area > kAreaRange[range][1]; }

// Bit t: at IoU threshold t the detection is matched / left out of the count.
struct Flags {
  uint16_t matched[kAreas], ignored[kAreas];
  double iou;  // of the match at IoU 0.50, all areas
};

// Positions 0 .. n-1, sorted stably by key(i) in 0 .. keys-1.
template <class Key>
std::vector<uint32_t> counting_sort(const std::vector<uint32_t>& order, int64_t keys, Key key) {
  std::vector<uint32_t> start(size_t(keys) + 1, 0), sorted(order.size());
  for (uint32_t i : order) ++start[size_t(key(i)) + 1];
  std::partial_sum(start.begin(), start.end(), start.begin());
  for (uint32_t i : order) sorted[start[size_t(key(i))]++] = i;
  return sorted;
}

// By category, image id and file order. Items of unknown categories (-1) come last.
template <class Item>
std::vector<uint32_t> by_category_and_image(std::span<const Item> items, int64_t categories,
                                            const std::vector<int64_t>& image_rank) {
  std::vector<uint32_t> order(items.size());
  std::iota(order.begin(), order.end(), 0u);
  order = counting_sort(order, int64_t(image_rank.size()), [&](uint32_t i) { return image_rank[size_t(items[i].image)]; });
  return counting_sort(order, categories + 1, [&](uint32_t i) {
    const int32_t c = items[i].category;
    return c < 0 ? categories : int64_t{c};
  });
}

// Where the part of each category begins; and the end of the last.
template <class Item>
std::vector<int64_t> category_starts(std::span<const Item> items, const std::vector<uint32_t>& order, int64_t categories) {
  std::vector<int64_t> start(size_t(categories) + 1, 0);
  for (uint32_t i : order) ++start[size_t(items[i].category) + 1];
  std::partial_sum(start.begin(), start.end(), start.begin());
  return start;
}

// The place of each image among the ids in ascending order.
std::vector<int64_t> ranks_by_id(const std::vector<int64_t>& ids) {
  std::vector<int64_t> by_id(ids.size()), rank(ids.size());
  std::iota(by_id.begin(), by_id.end(), 0);
  std::sort(by_id.begin(), by_id.end(), [&](int64_t a, int64_t b) { return ids[size_t(a)] < ids[size_t(b)]; });
  for (size_t i = 0; i < by_id.size(); ++i) rank[size_t(by_id[i])] = int64_t(i);
  return rank;
}

// Detections, without those of unknown categories, and objects in the order of by_category_and_image. A slot is a place in it.
struct Ordered {
  std::span<const CocoDetection> detections;
  std::span<const CocoTruth> truths;
  std::vector<uint32_t> detection_order, truth_order;
  std::vector<int64_t> detection_start, truth_start;  // slots by category

  Ordered(std::span<const CocoDetection> all_detections, std::span<const CocoTruth> all_truths, int64_t unknown, int64_t categories,
          const std::vector<int64_t>& image_rank)
      : detections(all_detections),
        truths(all_truths),
        detection_order(by_category_and_image(detections, categories, image_rank)),
        truth_order(by_category_and_image(truths, categories, image_rank)) {
    detection_order.resize(detection_order.size() - size_t(unknown));
    detection_start = category_starts(detections, detection_order, categories);
    truth_start = category_starts(truths, truth_order, categories);
  }
  int64_t categories() const { return int64_t(detection_start.size()) - 1; }
  const CocoDetection& detection(int64_t slot) const { return detections[detection_order[size_t(slot)]]; }
  const CocoTruth& truth(int64_t slot) const { return truths[truth_order[size_t(slot)]]; }
};

// Detections and objects of one category in one image, as ranges of slots.
struct Group {
  int64_t detection_begin, detection_end, truth_begin, truth_end;
};

// Those with a detection.
std::vector<Group> find_groups(const Ordered& o, const std::vector<int64_t>& image_rank) {
  std::vector<Group> groups;
  const auto truth_rank = [&](int64_t slot) { return image_rank[size_t(o.truth(slot).image)]; };
  for (size_t c = 0; c < size_t(o.categories()); ++c) {
    int64_t d = o.detection_start[c], g = o.truth_start[c];
    const int64_t d_end = o.detection_start[c + 1], g_end = o.truth_start[c + 1];
    while (d < d_end) {
      const int64_t image = o.detection(d).image;
      Group group{d, d, g, g};
      while (group.detection_end < d_end && o.detection(group.detection_end).image == image) ++group.detection_end;
      while (group.truth_begin < g_end && truth_rank(group.truth_begin) < image_rank[size_t(image)]) ++group.truth_begin;
      group.truth_end = group.truth_begin;
      while (group.truth_end < g_end && truth_rank(group.truth_end) == image_rank[size_t(image)]) ++group.truth_end;
      groups.push_back(group);
      d = group.detection_end, g = group.truth_end;
    }
  }
  return groups;
}

// What one thread needs to match one group.
struct Scratch {
  std::vector<double> iou, best;
  std::vector<uint8_t> ignore, crowd, taken;
  std::vector<int> order;
  std::vector<int64_t> id;
  std::vector<double> sorted_iou;
};

// Greedy matching of one group (spec 9.7): iou is detections x truths, in score order and file order.
template <class Truth, class Area>
void match(int64_t nd, int64_t ng, Truth truth, Area detection_area, Scratch& s, Flags* flags) {
  for (int a = 0; a < kAreas; ++a) {
    for (int64_t d = 0; d < nd; ++d)
      flags[d].matched[a] = 0, flags[d].ignored[a] = outside(detection_area(d), a) ? kAllThresholds : 0, flags[d].iou = 0;
  }
  if (ng == 0) return;
  s.best.assign(size_t(nd), 0);
  double best_of_all = 0;
  for (int64_t d = 0; d < nd; ++d) {
    for (int64_t g = 0; g < ng; ++g) s.best[size_t(d)] = std::max(s.best[size_t(d)], s.iou[size_t(d * ng + g)]);
    best_of_all = std::max(best_of_all, s.best[size_t(d)]);
  }
  if (best_of_all < kIou[0]) return;

  s.order.resize(size_t(ng)), s.ignore.resize(size_t(ng)), s.crowd.resize(size_t(ng)), s.id.resize(size_t(ng));
  s.sorted_iou.resize(size_t(nd * ng));
  for (int a = 0; a < kAreas; ++a) {
    // Objects that count come first.
    int64_t n = 0, counted = 0;
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t g = 0; g < ng; ++g) {
        const CocoTruth& t = truth(g);
        const bool ignored = t.crowd || outside(t.area, a);
        if (ignored != (pass == 1)) continue;
        s.order[size_t(n)] = int(g), s.crowd[size_t(n)] = t.crowd, s.id[size_t(n)] = t.id;
        ++n;
      }
      if (pass == 0) counted = n;
    }
    for (int64_t d = 0; d < nd; ++d) {
      for (int64_t g = 0; g < ng; ++g) s.sorted_iou[size_t(d * ng + g)] = s.iou[size_t(d * ng + s.order[size_t(g)])];
    }
    for (int t = 0; t < kThresholds && kIou[size_t(t)] <= best_of_all; ++t) {
      const uint16_t bit = uint16_t(1 << t);
      s.taken.assign(size_t(ng), 0);
      for (int64_t d = 0; d < nd; ++d) {
        if (s.best[size_t(d)] < kIou[size_t(t)]) continue;
        const double* iou = &s.sorted_iou[size_t(d * ng)];
        double least = kIou[size_t(t)];
        int64_t m = -1;
        for (int64_t g = 0; g < ng; ++g) {
          if (s.taken[size_t(g)] && !s.crowd[size_t(g)]) continue;
          if (m >= 0 && m < counted && g >= counted) break;
          if (iou[g] < least) continue;
          least = iou[g], m = g;
        }
        if (m < 0) continue;
        s.taken[size_t(m)] = 1;
        const bool credited = s.id[size_t(m)] != 0;
        const bool ignored = m >= counted || (!credited && outside(detection_area(d), a));
        if (credited) flags[d].matched[a] |= bit;
        if (credited && a == 0 && t == 0) flags[d].iou = least;
        flags[d].ignored[a] = uint16_t(ignored ? flags[d].ignored[a] | bit : flags[d].ignored[a] & ~bit);
      }
    }
  }
}

// By slot of the detection.
struct Matches {
  std::vector<Flags> flags;
  std::vector<uint8_t> place;  // by score within the group; kComparedDetections and beyond are left out, and have no flags
};

// Sorts the detections of each group by score and matches the first kComparedDetections. iou(detection, truth): of positions in the
// lists.
template <class Iou>
Matches match_groups(Ordered& o, const std::vector<Group>& groups, Iou iou) {
  Matches matches{std::vector<Flags>(o.detection_order.size()), std::vector<uint8_t>(o.detection_order.size(), 0)};
  parallel_for(static_cast<int64_t>(groups.size()), 256, [&](int64_t begin, int64_t end) {
    thread_local Scratch s;
    for (int64_t i = begin; i < end; ++i) {
      const Group& group = groups[size_t(i)];
      uint32_t* detection = o.detection_order.data() + group.detection_begin;
      const uint32_t* truth = o.truth_order.data() + group.truth_begin;
      const int64_t all = group.detection_end - group.detection_begin, ng = group.truth_end - group.truth_begin;
      const int64_t nd = std::min(all, kComparedDetections);
      std::stable_sort(detection, detection + all,
                       [&](uint32_t a, uint32_t b) { return o.detections[a].score > o.detections[b].score; });
      for (int64_t d = 0; d < all; ++d) matches.place[size_t(group.detection_begin + d)] = uint8_t(std::min(d, kComparedDetections));
      s.iou.resize(size_t(nd * ng));
      for (int64_t d = 0; d < nd; ++d) {
        for (int64_t g = 0; g < ng; ++g) s.iou[size_t(d * ng + g)] = iou(detection[d], truth[g]);
      }
      match(
          nd, ng, [&](int64_t g) -> const CocoTruth& { return o.truths[truth[g]]; },
          [&](int64_t d) { return o.detections[detection[d]].area; }, s, matches.flags.data() + group.detection_begin);
    }
  });
  return matches;
}

std::vector<DetectionMatch> counted_matches(const Ordered& o, const Matches& matches) {
  std::vector<DetectionMatch> counted;
  counted.reserve(o.detection_order.size());
  for (size_t slot = 0; slot < o.detection_order.size(); ++slot) {
    const Flags& flags = matches.flags[slot];
    if (matches.place[slot] >= kComparedDetections || flags.ignored[0] & 1) continue;
    const CocoDetection& d = o.detection(int64_t(slot));
    counted.push_back({d.image, d.score, flags.matched[0] & 1 ? flags.iou : 0});
  }
  return counted;
}

// Figures of one category.
struct CategoryFigures {
  int64_t counted[kAreas] = {};                  // objects that count, for each area range
  double precision[kAreas][kThresholds] = {};    // sum over the recall points
  int64_t found[kAreas][3][kThresholds] = {};    // true positives within the detection limits
  std::array<int32_t, kConfidences> tp{}, fp{};  // at IoU 0.50, by confidence
  std::vector<double> precision_at_recall;       // at IoU 0.50; only when it is drawn
};

// Calls use(i, precision) with the interpolated precision at the i-th recall, as far as recall goes. Precision only rises at true
// positives, so they are all that is looked at: fp_at[k] false positives stand before the k-th of them.
template <class Recalls, class Use>
void interpolate_precision(const std::vector<uint32_t>& fp_at, int64_t counted, const Recalls& recalls,
                           std::vector<double>& envelope, Use use) {
  const size_t n = fp_at.size();
  envelope.resize(n);
  double highest = 0;
  for (size_t k = n; k-- > 0;) {
    const double tp = double(k + 1);
    highest = std::max(highest, tp / (double(fp_at[k]) + tp + 2.220446049250313e-16));
    envelope[k] = highest;
  }
  size_t k = 0;
  for (size_t i = 0; i < recalls.size(); ++i) {
    while (k < n && double(k + 1) / double(counted) < recalls[i]) ++k;
    if (k == n) break;
    use(i, envelope[k]);
  }
}

int confidence_bin(double score) {
  int bin = std::clamp(static_cast<int>(std::clamp(score, 0.0, 1.0) * 1000), 0, kConfidences - 1);
  while (bin > 0 && score < bin * 0.001) --bin;
  while (bin + 1 < kConfidences && score >= (bin + 1) * 0.001) ++bin;
  return bin;
}

// The detections of a category that count, by falling score.
struct Scored {
  double score;
  int64_t slot;
};
std::vector<Scored> scored_detections(const Ordered& o, const Matches& matches, size_t category) {
  std::vector<Scored> scored;
  for (int64_t slot = o.detection_start[category]; slot < o.detection_start[category + 1]; ++slot) {
    if (matches.place[size_t(slot)] < kComparedDetections) scored.push_back({o.detection(slot).score, slot});
  }
  std::sort(scored.begin(), scored.end(),
            [](const Scored& a, const Scored& b) { return a.score > b.score || (a.score == b.score && a.slot < b.slot); });
  return scored;
}

CategoryFigures category_figures(const Ordered& o, const Matches& matches, size_t category, bool drawn) {
  CategoryFigures f;
  for (int64_t g = o.truth_start[category]; g < o.truth_start[category + 1]; ++g) {
    const CocoTruth& t = o.truth(g);
    for (int a = 0; a < kAreas; ++a) f.counted[a] += !t.crowd && !outside(t.area, a);
  }
  const std::vector<Scored> scored = scored_detections(o, matches, category);
  std::vector<uint32_t> fp_at;
  std::vector<double> envelope;
  std::vector<std::array<uint16_t, 2>> hits(scored.size());  // bits of true and false positives
  for (int a = 0; a < kAreas; ++a) {
    if (f.counted[a] == 0) continue;
    for (size_t i = 0; i < scored.size(); ++i) {
      const Flags& flag = matches.flags[size_t(scored[i].slot)];
      const uint16_t valid = uint16_t(~flag.ignored[a] & kAllThresholds);
      hits[i] = {uint16_t(flag.matched[a] & valid), uint16_t(~flag.matched[a] & valid)};
      if (hits[i][0] == 0) continue;
      for (int limit = 0; limit < 3; ++limit) {
        if (matches.place[size_t(scored[i].slot)] >= kLimits[limit]) continue;
        for (int t = 0; t < kThresholds; ++t) f.found[a][limit][t] += hits[i][0] >> t & 1;
      }
    }
    for (int t = 0; t < kThresholds; ++t) {
      fp_at.clear();
      uint32_t fp = 0;
      for (const auto& hit : hits) {
        if (hit[0] >> t & 1) fp_at.push_back(fp);
        fp += hit[1] >> t & 1;
      }
      interpolate_precision(fp_at, f.counted[a], kRecall, envelope, [&](size_t, double p) { f.precision[a][t] += p; });
      if (a > 0 || t > 0 || !drawn) continue;
      f.precision_at_recall.assign(kConfidences, 0);
      interpolate_precision(fp_at, f.counted[a], kDrawnRecall, envelope, [&](size_t i, double p) { f.precision_at_recall[i] = p; });
    }
    if (a > 0) continue;
    for (size_t i = 0; i < scored.size(); ++i) {
      const size_t bin = size_t(confidence_bin(scored[i].score));
      f.tp[bin] += hits[i][0] & 1, f.fp[bin] += hits[i][1] & 1;
    }
  }
  return f;
}

// But for the operating point.
CocoClassResult class_result(const Ordered& o, const CocoCategory& category, size_t c, const CategoryFigures& f) {
  CocoClassResult r;
  r.category_id = category.id, r.name = category.name;
  int64_t last_image = -1;
  for (int64_t g = o.truth_start[c]; g < o.truth_start[c + 1]; ++g) {
    const CocoTruth& t = o.truth(g);
    if (t.crowd) continue;
    ++r.instances;
    r.images += t.image != last_image;
    last_image = t.image;
  }
  if (f.counted[0] == 0) return r;
  r.ap = std::accumulate(f.precision[0], f.precision[0] + kThresholds, 0.0) / (kThresholds * kRecalls);
  r.ap50 = f.precision[0][0] / kRecalls;
  return r;
}

double f1_of(int64_t tp, int64_t fp, int64_t objects) { return 2.0 * double(tp) / double(tp + fp + objects); }

void operating_point(const std::vector<CategoryFigures>& figures, CocoReport& report) {
  std::array<double, kConfidences> f1{};
  int64_t measured = 0;
  for (const CategoryFigures& f : figures) {
    if (f.counted[0] == 0) continue;
    ++measured;
    int64_t tp = 0, fp = 0;
    for (int k = kConfidences; k-- > 0;) {
      tp += f.tp[size_t(k)], fp += f.fp[size_t(k)];
      f1[size_t(k)] += f1_of(tp, fp, f.counted[0]);
    }
  }
  if (measured == 0) return;
  const int best = static_cast<int>(std::max_element(f1.begin(), f1.end()) - f1.begin());
  report.confidence = best * 0.001;
  for (size_t c = 0; c < figures.size(); ++c) {
    const CategoryFigures& f = figures[c];
    if (f.counted[0] == 0) continue;
    const int64_t tp = std::accumulate(f.tp.begin() + best, f.tp.end(), int64_t{0});
    const int64_t fp = std::accumulate(f.fp.begin() + best, f.fp.end(), int64_t{0});
    CocoClassResult& r = report.classes[c];
    r.precision = tp + fp > 0 ? double(tp) / double(tp + fp) : 0;
    r.recall = double(tp) / double(f.counted[0]);
    r.f1 = f1_of(tp, fp, f.counted[0]);
    report.precision += r.precision / double(measured), report.recall += r.recall / double(measured),
        report.f1 += r.f1 / double(measured);
  }
}

DetectionCurves curves_to_draw(const std::vector<CategoryFigures>& figures, const CocoReport& report) {
  DetectionCurves out;
  out.x.assign(kDrawnRecall.begin(), kDrawnRecall.end());
  for (size_t c = 0; c < figures.size(); ++c) {
    const CategoryFigures& f = figures[c];
    if (f.counted[0] == 0) continue;
    DetectionCurves::Row& row = out.classes.emplace_back();
    row.class_id = report.classes[c].category_id;
    row.ap50 = report.classes[c].ap50;
    row.precision_at_recall = f.precision_at_recall;
    for (std::vector<double>* curve : {&row.precision, &row.recall, &row.f1}) curve->resize(kConfidences);
    const auto any = [](const auto& bins) { return std::any_of(bins.begin(), bins.end(), [](int32_t n) { return n > 0; }); };
    const bool detected = any(f.tp) || any(f.fp);
    int64_t tp = 0, fp = 0;
    for (size_t k = kConfidences; k-- > 0;) {
      tp += f.tp[k], fp += f.fp[k];
      row.precision[k] = tp + fp > 0 ? double(tp) / double(tp + fp) : detected ? 1 : 0;
      row.recall[k] = double(tp) / double(f.counted[0]);
      row.f1[k] = f1_of(tp, fp, f.counted[0]);
    }
  }
  std::sort(out.classes.begin(), out.classes.end(), [](const auto& a, const auto& b) { return a.class_id < b.class_id; });
  out.mean = mean_row(out.classes);
  return out;
}

CocoSummary summarize(const std::vector<CategoryFigures>& figures) {
  CocoSummary s;
  const auto mean = [&](int area, auto value) {
    double sum = 0;
    int64_t n = 0;
    for (const CategoryFigures& f : figures) {
      if (f.counted[area] > 0) sum += value(f), ++n;
    }
    return n == 0 ? -1 : sum / double(n);
  };
  const auto ap = [&](int area, int first, int last) {
    return mean(area, [&](const CategoryFigures& f) {
      return std::accumulate(f.precision[area] + first, f.precision[area] + last, 0.0) / ((last - first) * kRecalls);
    });
  };
  const auto ar = [&](int area, int limit) {
    return mean(area, [&](const CategoryFigures& f) {
      double sum = 0;
      for (int64_t found : f.found[area][limit]) sum += double(found) / double(f.counted[area]);
      return sum / kThresholds;
    });
  };
  s.values[0] = ap(0, 0, kThresholds), s.values[1] = ap(0, 0, 1), s.values[2] = ap(0, 5, 6);
  for (int a = 1; a < kAreas; ++a) s.values[2 + a] = ap(a, 0, kThresholds), s.values[8 + a] = ar(a, 2);
  for (int limit = 0; limit < 3; ++limit) s.values[6 + limit] = ar(0, limit);
  return s;
}

}  // namespace

std::string to_string(const CocoSummary& summary) {
  static constexpr const char* kIouText[12] = {"0.50:0.95", "0.50", "0.75"};
  static constexpr const char* kArea[12] = {"all", "all", "all", "small", "medium", "large",
                                            "all", "all", "all", "small", "medium", "large"};
  static constexpr int kLimit[12] = {100, 100, 100, 100, 100, 100, 1, 10, 100, 100, 100, 100};
  std::string text;
  for (int i = 0; i < 12; ++i) {
    text += fmt::format(" {:<18} {} @[ IoU={:<9} | area={:>6} | maxDets={:>3} ] = {:0.3f}\n",
                        i < 6 ? "Average Precision" : "Average Recall", i < 6 ? "(AP)" : "(AR)",
                        kIouText[i] ? kIouText[i] : kIouText[0], kArea[i], kLimit[i], summary.values[i]);
  }
  return text;
}

CocoEval::CocoEval(std::vector<CocoCategory> categories) : categories_(std::move(categories)) {
  std::vector<int64_t> ids;
  for (const auto& c : categories_) ids.push_back(c.id);
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end()) throw Error(ErrorCode::kData, fmt::format("category id {} occurs twice", *twice));
}

CocoEval::CocoEval(const CocoInstances& instances, CocoResults results) : CocoEval(instances.categories) {
  const bool masks = results.masks.size() > 0 || results.records.empty();
  for (const CocoImage& image : instances.images) add_image(image.id, image.height, image.width);
  std::unordered_map<int64_t, int32_t> category;
  for (size_t c = 0; c < categories_.size(); ++c) category.emplace(categories_[c].id, int32_t(c));

  const int64_t n = static_cast<int64_t>(instances.annotations.size());
  std::vector<Rle> truth_rle(masks ? size_t(n) : 0);
  if (masks) {
    parallel_for(n, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const CocoAnnotation& a = instances.annotations[size_t(i)];
        const CocoImage& image = *instances.find_image(a.image_id);
        try {
          truth_rle[size_t(i)] = coco_mask(a, image.height, image.width);
        } catch (const Error& e) {
          throw Error(e.code(), fmt::format("annotation {}: {}", a.id, e.message()), {instances.file}, e.hint());
        }
      }
    });
  }
  truths_.reserve(size_t(n));
  for (int64_t i = 0; i < n; ++i) {
    const CocoAnnotation& a = instances.annotations[size_t(i)];
    if (!a.area)
      throw Error(ErrorCode::kData, fmt::format("annotation {} has no 'area'", a.id), {instances.file},
                  "evaluation by object size needs it");
    if (!a.box && !masks)
      throw Error(ErrorCode::kData, fmt::format("annotation {} has no 'bbox'", a.id), {instances.file}, "box evaluation needs it");
    const BoxLtwh box = a.box ? *a.box : rle_box(truth_rle[size_t(i)]);
    add_truth({image_index_.at(a.image_id), category.at(a.category_id), a.crowd, *a.area, box, a.id},
              masks ? &truth_rle[size_t(i)] : nullptr);
  }

  detection_masks_ = std::move(results.masks);
  detections_.reserve(results.records.size());
  for (const CocoResult& r : results.records) {
    const auto c = category.find(r.category_id);
    unknown_category_ += c == category.end();
    // Unknown categories keep their place, so that masks and detections stay in step; category -1 is left out of the evaluation.
    detections_.push_back({r.image, c == category.end() ? -1 : c->second, r.score, r.box, r.area});
  }
}

int64_t CocoEval::add_image(int64_t id, int32_t height, int32_t width) {
  const int64_t index = static_cast<int64_t>(images_.size());
  if (!image_index_.emplace(id, index).second) throw Error(ErrorCode::kData, fmt::format("image id {} occurs twice", id));
  images_.push_back({id, height, width});
  return index;
}

void CocoEval::add_truth(const CocoTruth& truth, const Rle* mask) {
  TESSERA_CHECK(truth.image >= 0 && truth.image < int64_t(images_.size()), "add_truth: image {} of {}", truth.image,
                images_.size());
  TESSERA_CHECK(truth.category >= 0 && truth.category < int64_t(categories_.size()), "add_truth: category {} of {}", truth.category,
                categories_.size());
  truths_.push_back(truth);
  if (!mask) return;
  const Image& image = images_[size_t(truth.image)];
  TESSERA_CHECK(mask->height == image.height && mask->width == image.width, "add_truth: mask of {} x {} in an image of {} x {}",
                mask->height, mask->width, image.height, image.width);
  truth_masks_.push(*mask);
}

void CocoEval::append(const CocoDetection& detection) {
  TESSERA_CHECK(detection.image >= 0 && detection.image < int64_t(images_.size()), "add_detection: image {} of {}", detection.image,
                images_.size());
  TESSERA_CHECK(detection.category >= 0 && detection.category < int64_t(categories_.size()), "add_detection: category {} of {}",
                detection.category, categories_.size());
  if (std::isnan(detection.score)) throw Error(ErrorCode::kData, "a detection has a score that is not a number");
  detections_.push_back(detection);
}

void CocoEval::add_detection(const CocoDetection& detection, const Rle* mask) {
  append(detection);
  if (!mask) return;
  const Image& image = images_[size_t(detection.image)];
  TESSERA_CHECK(mask->height == image.height && mask->width == image.width, "add_detection: mask of {} x {} in an image of {} x {}",
                mask->height, mask->width, image.height, image.width);
  detection_masks_.push(*mask);
}

void CocoEval::add_detections(std::span<const CocoDetection> detections, RunList&& masks) {
  TESSERA_CHECK(int64_t(detections.size()) == masks.size(), "add_detections: {} detections with {} masks", detections.size(),
                masks.size());
  for (const CocoDetection& d : detections) append(d);
  detection_masks_.append(std::move(masks));
}

CocoReport CocoEval::evaluate(IouKind kind, DetectionCurves* drawn, std::vector<DetectionMatch>* counted) const {
  if (kind == IouKind::kMask) {
    TESSERA_CHECK(truth_masks_.size() == truths() && detection_masks_.size() == detections(),
                  "mask evaluation: {} masks for {} objects, {} masks for {} detections", truth_masks_.size(), truths(),
                  detection_masks_.size(), detections());
  }
  std::vector<int64_t> image_ids;
  for (const Image& image : images_) image_ids.push_back(image.id);
  const std::vector<int64_t> image_rank = ranks_by_id(image_ids);
  Ordered ordered(detections_, truths_, unknown_category_, int64_t(categories_.size()), image_rank);
  const Matches matches = match_groups(ordered, find_groups(ordered, image_rank), [&](uint32_t d, uint32_t g) {
    const bool crowd = truths_[g].crowd;
    return kind == IouKind::kMask ? run_iou(detection_masks_, d, truth_masks_, g, crowd)
                                  : box_iou_ltwh(detections_[d].box, truths_[g].box, crowd);
  });
  std::vector<CategoryFigures> figures(categories_.size());
  parallel_chunks(ordered.categories(),
                  [&](int64_t c) { figures[size_t(c)] = category_figures(ordered, matches, size_t(c), drawn != nullptr); });

  CocoReport report;
  report.kind = kind;
  report.summary = summarize(figures);
  for (size_t c = 0; c < categories_.size(); ++c) report.classes.push_back(class_result(ordered, categories_[c], c, figures[c]));
  operating_point(figures, report);
  if (counted) *counted = counted_matches(ordered, matches);
  if (drawn) *drawn = curves_to_draw(figures, report);  // before the classes leave the order of the figures
  std::sort(report.classes.begin(), report.classes.end(),
            [](const auto& a, const auto& b) { return a.category_id < b.category_id; });
  return report;
}

}  // namespace tessera
