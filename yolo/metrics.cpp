#include "yolo/metrics.h"

#include <algorithm>

namespace tessera {

LossReport joined(std::span<const LossReport> parts) {
  if (parts.size() == 1) return parts[0];
  LossReport whole;
  for (const LossReport& p : parts) {
    // Items are sums divided by what was counted; the sums add up.
    const double scores = std::max(p.target_score_sum, 1.0), positives = std::max(double(p.positives), 1.0);
    whole.items.box += p.items.box * scores;
    whole.items.cls += p.items.cls * scores;
    whole.items.dfl += p.items.dfl * scores;
    whole.items.seg += p.items.seg * positives;
    whole.positives += p.positives;
    whole.target_score_sum += p.target_score_sum;
  }
  const double scores = std::max(whole.target_score_sum, 1.0), positives = std::max(double(whole.positives), 1.0);
  for (double* item : {&whole.items.box, &whole.items.cls, &whole.items.dfl}) *item /= scores;
  whole.items.seg /= positives;
  return whole;
}

}  // namespace tessera
