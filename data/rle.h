// Run-length masks as COCO defines them: pixels in column-major order, run lengths that start with the zeros. Encoding, decoding,
// geometry, polygons and intersection over union with the results of the COCO mask API (spec 9.7), without ever storing planes of
// pixels.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/polygon.h"

namespace tessera {

// counts[0] zeros, counts[1] ones, counts[2] zeros, ... in column-major order; they sum to height * width.
struct Rle {
  int32_t height = 0, width = 0;
  std::vector<uint32_t> counts;

  bool operator==(const Rle&) const = default;
};

using BoxLtwh = std::array<double, 4>;  // left, top, width, height

// mask: row-major height x width, any non-zero byte is set; `pitch` bytes from row to row (0 = width).
Rle rle_encode(const uint8_t* mask, int height, int width, int64_t pitch = 0);
// The same of a mask that is zero outside of `where`: `words` holds that rectangle alone, as rows of bits (tensor/bit_rows.h).
Rle rle_encode(const uint32_t* words, const PixelBox& where, int height, int width);
// Writes height * width bytes 0/1, row-major.
void rle_decode(const Rle& rle, uint8_t* mask);

int64_t rle_area(const Rle& rle);
// Smallest box around the set pixels; all zero for an empty mask. A run that crosses a column border counts as a full column.
BoxLtwh rle_box(const Rle& rle);
// Union of masks of equal size; throws kData when sizes differ. An empty list gives a 0 x 0 mask.
Rle rle_union(std::span<const Rle> masks);

// The compressed form of COCO: each count minus the one two positions earlier (from the fourth on), in 5-bit groups, + 48 as ASCII.
std::string rle_to_string(const Rle& rle);
// The same at the end of a text, plain or as in a string of JSON, where backslashes are doubled.
enum class RleText { kPlain, kJson };
void append_rle_string(const Rle& rle, RleText form, std::string& text);
// Throws kData when the text is cut, holds foreign characters, or its runs do not sum to height * width.
Rle rle_from_string(std::string_view text, int64_t height, int64_t width);
// The same checks, without a result.
void rle_check_string(std::string_view text, int64_t height, int64_t width);
// Uncompressed counts, checked the same way.
Rle rle_from_counts(std::span<const int64_t> counts, int64_t height, int64_t width);

// One polygon (x0 y0 x1 y1 ..., pixels) -> mask, by the COCO rule: outline walked on a grid five times finer, boundaries where the
// fine x changes (spec 9.7). Fewer than three points enclose nothing. Throws kData for no or an odd number of coordinates and for
// values that are not finite or beyond 1e6.
Rle rle_from_polygon(std::span<const double> xy, int64_t height, int64_t width);
// The same for the rectangle of a box.
Rle rle_from_box(const BoxLtwh& box, int64_t height, int64_t width);

// iou[d * ground_truths + g]: |d and g| / |d or g|; / |d| where crowd[g]; 0 where the bounding boxes do not overlap. `crowd` may be
// empty.
std::vector<double> rle_iou(std::span<const Rle> detections, std::span<const Rle> ground_truths, std::span<const uint8_t> crowd);
// The same for boxes.
double box_iou_ltwh(const BoxLtwh& detection, const BoxLtwh& ground_truth, bool crowd);
std::vector<double> box_iou_ltwh(std::span<const BoxLtwh> detections, std::span<const BoxLtwh> ground_truths,
                                 std::span<const uint8_t> crowd);

// Many masks, ready for intersections: mask i is the list of boundaries b0 < b1 <= b2 < b3 ... of its runs of set pixels [b0, b1),
// [b2, b3), ... in column-major positions. The lists lie in large blocks that are handed on, not copied, when lists are joined.
class RunList {
 public:
  RunList() = default;
  RunList(RunList&&) = default;
  RunList& operator=(RunList&&) = default;

  int64_t size() const { return static_cast<int64_t>(masks_.size()); }
  std::span<const uint32_t> bounds(int64_t i) const {
    const Mask& m = masks_[static_cast<size_t>(i)];
    return {m.bounds, m.count};
  }
  int64_t area(int64_t i) const { return masks_[static_cast<size_t>(i)].area; }
  const BoxLtwh& box(int64_t i) const { return masks_[static_cast<size_t>(i)].box; }

  void push(const Rle& rle) { push_counts(rle.counts, rle.height, rle.width); }
  void push_counts(std::span<const uint32_t> counts, int64_t height, int64_t width);
  // From the compressed text, without an Rle in between; errors as rle_from_string.
  void push_string(std::string_view text, int64_t height, int64_t width);
  void push_empty();  // a place holder
  void append(RunList&& other);
  // Place for masks, and for `bounds` more boundaries in a block of just that size. To push counts takes one boundary for each of
  // them and one more.
  void reserve(int64_t masks, size_t bounds = 0);

 private:
  struct Mask {
    const uint32_t* bounds;
    uint32_t count;
    int64_t area;
    BoxLtwh box;
  };

  void add_block(size_t bounds);
  uint32_t* room(size_t bounds);                     // space for that many boundaries
  void finish(const uint32_t* end, int64_t height);  // what was written from room() up to end is the next mask

  std::vector<Mask> masks_;
  std::vector<std::unique_ptr<uint32_t[]>> blocks_;
  uint32_t* free_ = nullptr;
  size_t left_ = 0;
};

// Pixels that two boundary lists have in common.
int64_t run_intersection(std::span<const uint32_t> a, std::span<const uint32_t> b);
// As rle_iou, for one pair.
double run_iou(const RunList& detections, int64_t d, const RunList& ground_truths, int64_t g, bool crowd);

}  // namespace tessera
