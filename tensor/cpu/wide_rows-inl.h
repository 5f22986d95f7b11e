// Work along the columns of a matrix: per-channel constants and per-channel sums.
//
// A channel's constants repeat from row to row. Dense rows that do not fill whole vectors are therefore taken several at a time as
// one wide row of W = g C columns, with the constants repeated g times in a table that stays in the L1 cache: 16 or 3 channels run
// as fast as 64.
#if defined(TESSERA_CPU_WIDE_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_WIDE_ROWS_INL_H_
#undef TESSERA_CPU_WIDE_ROWS_INL_H_
#else
#define TESSERA_CPU_WIDE_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include "tensor/cpu/chunks.h"
#include "tensor/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

inline constexpr size_t kStrip = 4;                 // vectors whose sums are kept in registers
inline constexpr int64_t kBlockRows = 64;           // wide rows summed in f32 before they join the sums of the chunk

// How the rows are regrouped: `wide` rows of `width` columns, then `rest` rows of the original width.
struct WideRows {
  template <class... Views>
  explicit WideRows(const RowsView& x, const Views&... more) : channels(x.cols) {
    const bool flat = ((x.pitch == x.cols) && ... && (more.p == nullptr || more.pitch == more.cols));
    if (flat) {
      const auto lanes = int64_t(x.t == DType::kBF16 ? 2 * kLanes : kLanes);  // what is loaded at a time
      group = lanes / std::gcd(channels, lanes);
      while (group * channels < int64_t(kStrip * kLanes)) group *= 2;
    }
    width = group * channels;
    wide = x.rows / group;
    rest = x.rows - wide * group;
    step = std::max<int64_t>(1, chunk_elements(wide * width) / width);
    chunks = (wide + step - 1) / step + (rest != 0 ? 1 : 0);
  }

  // A view of the rows [begin, end) of a chunk, as wide rows (or, in the last chunk, as the rest).
  RowsView slice(const RowsView& x, int64_t chunk) const {
    auto* p = data<std::byte>(x);
    const int64_t row = x.pitch * int64_t(size_of(x.t));
    if (rest != 0 && chunk == chunks - 1) return {p + wide * group * row, x.t, rest, channels, x.pitch};
    const int64_t begin = chunk * step;
    return {p + begin * group * row, x.t, std::min(wide, begin + step) - begin, width, group * x.pitch};
  }

  std::vector<float> repeat(const float* values) const {
    std::vector<float> table(static_cast<size_t>(width));
    for (int64_t i = 0; i < width; ++i) table[size_t(i)] = values[i % channels];
    return table;
  }

  int64_t channels, group = 1, width, wide, rest, step, chunks;
};

// Calls strip(column, vectors, part) along `cols` columns: kStrip whole vectors at a time, then single ones, the last one in part.
// `vectors` is a std::integral_constant.
template <class F>
HWY_INLINE void for_each_strip(int64_t cols, const F& strip) {
  int64_t c = 0;
  for (; c + int64_t(kStrip * kLanes) <= cols; c += kStrip * kLanes) strip(c, std::integral_constant<size_t, kStrip>(), Whole());
  for_each_vector(size_t(cols - c),
                  [&](size_t i, auto part) HWY_ATTR { strip(c + int64_t(i), std::integral_constant<size_t, 1>(), part); });
}

// The same along columns that are whole pairs of vectors: kStrip vectors at a time, then a pair.
template <class F>
HWY_INLINE void for_each_strip_of_pairs(int64_t cols, const F& strip) {
  int64_t c = 0;
  for (; c + int64_t(kStrip * kLanes) <= cols; c += kStrip * kLanes) strip(c, std::integral_constant<size_t, kStrip>(), Whole());
  if (c < cols) strip(c, std::integral_constant<size_t, 2>(), Whole());
}

// The rows [begin, begin + count) of a view, fewer at its end.
template <class T = float>
RowsView block_of(const RowsView& v, int64_t begin, int64_t count) {
  return {at<T>(v, begin), v.t, std::min(count, v.rows - begin), v.cols, v.pitch};
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
