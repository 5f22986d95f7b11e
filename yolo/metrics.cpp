#include "yolo/metrics.h"

#include <cmath>

namespace tessera {

namespace {
double rounded(double x) { return std::nearbyint(x * 1e5) / 1e5; }
double one(const MetricSet& m) { return 0.1 * rounded(m.map50) + 0.9 * rounded(m.map); }
}  // namespace

double fitness(const ValidationResult& r) { return rounded(one(r.box) + one(r.mask)); }

}  // namespace tessera
