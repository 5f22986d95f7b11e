// Label text by each policy, and what is done with the objects that it holds.
#include <cmath>
#include <vector>

#include "data/yolo_txt.h"
#include "tests/fuzz/fuzz.h"

using namespace tessera;

namespace {

constexpr int kSide = 64;

void use(const LabelFile& labels, bool checked) {
  std::vector<uint8_t> plane(kSide * kSide);
  for (const LabelObject& o : labels.objects) {
    fuzz::require(o.class_id >= 0 && o.class_id < 3, "a class is one of the set's");
    if (!checked || o.polygon.empty()) continue;
    for (const Point& p : o.polygon) fuzz::require(p.x >= 0 && p.x <= 1 && p.y >= 0 && p.y <= 1, "vertices are inside");
    Polygon pixels = resample(o.polygon, resample_count(int64_t(o.polygon.size())));
    for (Point& p : pixels) p.x *= kSide, p.y *= kSide;
    fill_polygon(pixels, plane.data(), kSide, kSide);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  const LabelFile lenient = parse_labels(text, "labels.txt", 3, LabelPolicy::kLenient);
  use(lenient, true);
  const LabelFile again = parse_labels(label_rows(lenient.objects), "labels.txt", 3, LabelPolicy::kLenient);
  fuzz::require(again.objects.size() == lenient.objects.size(), "rows that are written are read as the same objects");
  use(parse_labels(text, "labels.txt", 3, LabelPolicy::kOriginal), false);
  fuzz::takes_or_refuses("labels.txt", [&] { use(parse_labels(text, "labels.txt", 3, LabelPolicy::kStrict), true); });
  return 0;
}
