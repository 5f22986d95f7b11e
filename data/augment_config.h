// The augmentation settings of a training run, with the original's names and defaults (spec 8.11, section 6).
#pragma once

namespace tessera {

// Whose objects copy-paste takes: the image's own, mirrored, or another image's.
enum class CopyPasteMode { kFlip, kMixup };

struct AugmentConfig {
  double mosaic = 1.0;                             // probability of a four-image mosaic
  double copy_paste = 0.0;                         // share of the objects that may be pasted
  CopyPasteMode copy_paste_mode = CopyPasteMode::kFlip;
  double degrees = 0.0;                            // rotation within +- degrees
  double translate = 0.1;                          // shift within +- this share of the side
  double scale = 0.5;                              // factor 1 +- scale
  double shear = 0.0;                              // within +- degrees
  double perspective = 0.0;                        // within +- this
  double mixup = 0.0, cutmix = 0.0;                // probabilities
  double hsv_h = 0.015, hsv_s = 0.7, hsv_v = 0.4;  // largest relative change of hue, saturation, value
  double flipud = 0.0, fliplr = 0.5;               // probabilities
  double bgr = 0.0;                                // probability of exchanging red and blue
};

}  // namespace tessera
