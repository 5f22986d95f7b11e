// Random change of hue, saturation and value (spec 6.7, 14.4).
#pragma once

#include <array>
#include <cstdint>

#include "data/augment_config.h"
#include "data/image.h"
#include "tensor/augment.h"
#include "tensor/base/rng.h"

namespace tessera {

struct HsvDraw {
  double hue = 0, saturation = 0, value = 0;  // U(-1, 1) times the gains
};
HsvDraw draw_hsv(Rng& rng, const AugmentConfig& config);

// OpenCV's 8-bit conversion of one pixel. The change: hue + 180 r modulo 180, saturation and value x (1 + r) clipped; all truncated.
std::array<uint8_t, 3> rgb_to_hsv(uint8_t r, uint8_t g, uint8_t b);

// Every pixel to HSV, through the change, and back. The way back truncates to 8 bits everywhere (OpenCV rounds in the tail of each row,
// which depends on its build).
class HsvChange {
 public:
  explicit HsvChange(const HsvDraw& draw);
  // `pixels` RGB pixels into `out`, in reverse order with `mirror`. `out` may be `rgb` itself when not mirrored.
  void apply(const uint8_t* rgb, int64_t pixels, bool mirror, uint8_t* out) const;

  int32_t hue_shift() const { return hue_shift_; }              // 0 .. 179
  int32_t saturation_gain() const { return saturation_gain_; }  // in fixed point (kHsvGainBits)
  int32_t value_gain() const { return value_gain_; }

  // What becomes of each byte, for CPUs that look up 256 bytes in registers.
  struct alignas(64) Tables {
    std::array<uint8_t, 256> value, saturation;         // new ones
    std::array<uint8_t, 256> highest;                   // by old value: the highest channel on the way back
    std::array<std::array<uint8_t, 256>, 4> share;      // by kHueOffset + hue as found: bytes of the middle channel's float share
    std::array<uint8_t, 256> channels;                  // the same: which channel is the middle (bits 0 to 2: red, green, blue) and the lowest (3 to 5)
  };
  static constexpr int kHueOffset = 32;  // hues are found as -30 .. 150

 private:
  int32_t hue_shift_, saturation_gain_, value_gain_;
  Tables tables_;
};
void augment_hsv(Image& image, const HsvDraw& draw);  // in place

}  // namespace tessera
