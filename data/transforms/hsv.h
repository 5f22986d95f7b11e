// Random change of hue, saturation and value (spec 6.7, 14.4).
#pragma once

#include <array>
#include <cstdint>

#include "data/augment_config.h"
#include "data/image.h"
#include "tensor/base/rng.h"

namespace tessera {

struct HsvDraw {
  double hue = 0, saturation = 0, value = 0;  // U(-1, 1) times the gains
};
HsvDraw draw_hsv(Rng& rng, const AugmentConfig& config);

// Saturation and value are multiplied in fixed point: 255 times a gain of up to 2 stays below 2^31.
constexpr int kHsvGainBits = 22;

// What the change does to 8-bit hue (0..179), saturation and value: hue + 180 r modulo 180, x (1 + r) clipped; all truncated.
struct HsvTables {
  std::array<uint8_t, 256> hue{}, saturation{}, value{};
};
HsvTables hsv_tables(const HsvDraw& draw);

// OpenCV's 8-bit conversion of one pixel.
std::array<uint8_t, 3> rgb_to_hsv(uint8_t r, uint8_t g, uint8_t b);

// Every pixel to HSV, through the change, and back; in place. The way back truncates to 8 bits everywhere (OpenCV rounds in the
// tail of each row, which depends on its build).
void augment_hsv(Image& image, const HsvDraw& draw);

}  // namespace tessera
