#include "yolo/eval/detection_curves.h"

#include <algorithm>
#include <functional>

namespace tessera {

DetectionCurves::Row mean_row(std::span<const DetectionCurves::Row> rows) {
  using Row = DetectionCurves::Row;
  Row mean;
  if (rows.empty()) return mean;
  const double n = double(rows.size());
  for (const Row& row : rows) mean.ap50 += row.ap50;
  mean.ap50 /= n;
  for (const auto curve : {&Row::precision_at_recall, &Row::precision, &Row::recall, &Row::f1}) {
    std::vector<double>& sum = mean.*curve;
    sum.assign((rows[0].*curve).size(), 0);
    for (const Row& row : rows) std::transform(sum.begin(), sum.end(), (row.*curve).begin(), sum.begin(), std::plus<>());
    for (double& v : sum) v /= n;
  }
  return mean;
}

}  // namespace tessera
