#include "data/transforms/flip.h"

namespace tessera {

void flip_horizontal(std::vector<Instance>& instances, int width) {
  const float w = float(width);
  for (Instance& i : instances) {
    i.box = {w - i.box.x2, i.box.y1, w - i.box.x1, i.box.y2};
    for (Point& p : i.polygon) p.x = w - p.x;
  }
}

void flip_vertical(std::vector<Instance>& instances, int height) {
  const float h = float(height);
  for (Instance& i : instances) {
    i.box = {i.box.x1, h - i.box.y2, i.box.x2, h - i.box.y1};
    for (Point& p : i.polygon) p.y = h - p.y;
  }
}

}  // namespace tessera
