// Batch normalisation in as few passes over memory as it takes: one for the statistics, one to apply, two backward.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/norm.cpp"
#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/channel_moments.h"
#include "tensor/cpu/chunks.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/wide_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

// Elements from a row to the one that is fetched while it is worked on. The processor's own fetching starts anew at every page, and
// brings a whole row of a matrix where a slice of it is read.
template <class T>
int64_t ahead_in(const RowsView& v) {
  constexpr int64_t kAheadBytes = 4096;
  const int64_t row = std::max<int64_t>(1, v.pitch * int64_t(sizeof(T)));
  return (kAheadBytes + row - 1) / row * v.pitch;
}

// First row, mean less that row and squares about the mean of a strip of kVectors vectors over one block of rows: the mean first,
// then the squares while the block is still in the L1 cache. What lies `next` elements on is fetched.
template <class T, size_t kVectors, class Part>
HWY_INLINE void block_moments(const RowsView& block, int64_t next, int64_t column, Part part, float* first, float* mean,
                              float* m2) {
  V k[kVectors], sum[kVectors], square[kVectors];
  const auto get = [part](const auto* p, size_t v) HWY_ATTR { return part.get(p + v * kLanes); };
  for (size_t v = 0; v < kVectors; ++v) {
    k[v] = get(at<T>(block, 0, column), v);
    part.put(k[v], first + column + v * kLanes);
    sum[v] = square[v] = hn::Zero(F32());
  }
  for (int64_t r = 0; r < block.rows; ++r) {
    const T* x = at<T>(block, r, column);
    for (size_t v = 0; v < kVectors; ++v) {
      hwy::Prefetch(x + v * kLanes + next);
      sum[v] = hn::Add(sum[v], hn::Sub(get(x, v), k[v]));
    }
  }
  for (size_t v = 0; v < kVectors; ++v) {
    sum[v] = hn::Mul(sum[v], splat(1.0f / float(block.rows)));
    k[v] = hn::Add(k[v], sum[v]);
  }
  for (int64_t r = 0; r < block.rows; ++r) {
    const T* x = at<T>(block, r, column);
    for (size_t v = 0; v < kVectors; ++v) {
      const V d = hn::Sub(get(x, v), k[v]);
      square[v] = hn::MulAdd(d, d, square[v]);
    }
  }
  for (size_t v = 0; v < kVectors; ++v) {
    part.put(sum[v], mean + column + v * kLanes);
    part.put(square[v], m2 + column + v * kLanes);
  }
}

// See Note [Moments] in channel_moments.h. `n` rows so far.
template <class T>
void join_rows(const RowsView& x, int64_t n, double* total, double* mean, double* m2) {
  // Blocks small enough for the L1 cache.
  const int64_t block_rows = std::clamp<int64_t>(4096 / std::max<int64_t>(1, x.cols), 8, kBlockRows);
  const auto width = static_cast<size_t>(x.cols);
  std::vector<float> of_block(3 * width);
  float* const first = of_block.data();
  float* const block_mean = first + width;
  float* const block_m2 = block_mean + width;
  const int64_t next = ahead_in<T>(x);
  for (int64_t r = 0; r < x.rows; r += block_rows) {
    const RowsView block = block_of<T>(x, r, block_rows);
    for_each_strip(x.cols, [&](int64_t c, auto vectors, auto part)
                               HWY_ATTR { block_moments<T, vectors()>(block, next, c, part, first, block_mean, block_m2); });
    const auto before = double(n + r), rows = double(block.rows);
    const double share = rows / (before + rows), between = before * share;
    for (size_t c = 0; c < width; ++c) {
      const double of_rows = double(first[c]) + double(block_mean[c]);
      total[c] += rows * of_rows;
      const double delta = of_rows - mean[c];
      mean[c] += delta * share;
      m2[c] += double(block_m2[c]) + delta * delta * between;
    }
  }
}

void JoinRows(const RowsView& x, int64_t n, double* total, double* mean, double* m2) {
  with_element(x.t, [&](auto element) HWY_ATTR { join_rows<decltype(element)>(x, n, total, mean, m2); });
}

// Pixels that stand side by side in a wide row of dense pixels.
int64_t PixelsOfWideRow(int64_t channels) { return WideRows(RowsView{nullptr, DType::kF32, 0, channels, channels}).group; }

// The constants of z = (x - mean) * scale + beta and dx = scale * dz + (x - mean) * slope + offset, as tables of one wide row.
struct Constants {
  Constants() = default;
  Constants(const WideRows& cut, const BatchNormView& bn) {
    const auto* rstd = static_cast<const float*>(bn.rstd);
    const auto* gamma = static_cast<const float*>(bn.gamma);
    std::vector<float> product(static_cast<size_t>(cut.channels));
    for (size_t c = 0; c < product.size(); ++c) product[c] = rstd[c] * gamma[c];
    mean = cut.repeat(static_cast<const float*>(bn.mean));
    scale = cut.repeat(product.data());
    beta = cut.repeat(static_cast<const float*>(bn.beta));
  }

  std::vector<float> mean, scale, beta, slope, offset;
};

// The column that stands at `place` when pairs of vectors of bf16 have come apart: of each pair the even ones first.
size_t column_of(size_t place) {
  const size_t in_pair = place % (2 * kLanes);
  return place - in_pair + in_pair % kLanes * 2 + in_pair / kLanes;
}

// The tables in that order; none for f32, which is not taken in pairs.
template <class T>
Constants of_pairs(const Constants& k) {
  Constants out;
  if constexpr (std::is_same_v<T, BFloat16>) {
    for (auto table : {&Constants::mean, &Constants::scale, &Constants::beta, &Constants::slope, &Constants::offset}) {
      const std::vector<float>& from = k.*table;
      std::vector<float>& to = out.*table = from;
      for (size_t i = 0; i < from.size() / (2 * kLanes) * (2 * kLanes); ++i) to[i] = from[column_of(i)];
    }
  }
  return out;
}

// The vector of a pair of bf16 that holds the elements at even places, and that of those at odd places.
struct Even {
  HWY_INLINE V get(const float* constants) const { return load(constants); }
  HWY_INLINE V get(const BFloat16* p) const { return load_even(p); }
};
struct Odd {
  HWY_INLINE V get(const float* constants) const { return load(constants); }
  HWY_INLINE V get(const BFloat16* p) const { return load_odd(p); }
};

template <class Part, class T>
HWY_INLINE void fetch(Part, const T* p) {
  if constexpr (!std::is_same_v<Part, Odd>) hwy::Prefetch(p);  // Even has fetched the line
}

// Whether rows are taken in pairs of vectors, and whether they can be written past the caches.
template <class T>
bool in_pairs(const RowsView& v) {
  return std::is_same_v<T, BFloat16> && v.cols % int64_t(2 * kLanes) == 0;
}
template <class T>
bool can_stream(const RowsView& v) {
  const auto lanes = int64_t(in_pairs<T>(v) ? 2 * kLanes : kLanes);
  return reinterpret_cast<uintptr_t>(v.p) % (size_t(lanes) * sizeof(T)) == 0 && v.pitch % lanes == 0;
}

// Calls body(pairs, streams) with both as std::bool_constant, for rows of T that are written.
template <class T, class F>
HWY_INLINE void with_row_kind(const RowsView& out, bool stream, const F& body) {
  const bool streams = stream && can_stream<T>(out);
  const auto with_stream = [&](auto pairs) HWY_ATTR { streams ? body(pairs, std::true_type()) : body(pairs, std::false_type()); };
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (in_pairs<T>(out)) return with_stream(std::true_type());
  }
  with_stream(std::false_type());
}

// out[c] = value(c, at, part) for a row, `at` the place of the vector's constants.
template <bool kPairs, bool kStream, class T, class F>
HWY_INLINE void put_row(size_t cols, T* out, const F& value) {
  if constexpr (kPairs) {
    for (size_t c = 0; c < cols; c += 2 * kLanes) {
      const V even = value(c, c, Even()), odd = value(c, c + kLanes, Odd());
      kStream ? store_pair_past_cache(even, odd, out + c) : store_pair(even, odd, out + c);
    }
  } else {
    for_each_vector(cols, [&](size_t c, auto part) HWY_ATTR {
      const V v = value(c, c, part);
      if constexpr (kStream && std::is_same_v<decltype(part), Whole>) {
        store_past_cache(v, out + c);
      } else {
        part.put(v, out + c);
      }
    });
  }
}

template <class T, bool kSilu, bool kResidual, bool kPairs, bool kStream>
void apply_rows(const RowsView& x, const RowsView& residual, const RowsView& y, const Constants& k) {
  const int64_t next = ahead_in<T>(x), next_residual = kResidual ? ahead_in<T>(residual) : 0;
  for (int64_t r = 0; r < x.rows; ++r) {
    const T* in = at<T>(x, r);
    const T* add = kResidual ? at<T>(residual, r) : nullptr;
    put_row<kPairs, kStream>(size_t(x.cols), at<T>(y, r), [&](size_t c, size_t i, auto part) HWY_ATTR {
      fetch(part, in + c + next);
      if constexpr (kResidual) fetch(part, add + c + next_residual);
      const V centred = hn::Sub(part.get(in + c), part.get(k.mean.data() + i));
      V v = hn::MulAdd(centred, part.get(k.scale.data() + i), part.get(k.beta.data() + i));
      if constexpr (kSilu) v = hn::Mul(v, sigmoid_of_rounded<T>(v));
      if constexpr (kResidual) v = hn::Add(v, part.get(add + c));
      return v;
    });
  }
  if constexpr (kStream) hwy::FlushStream();
}

template <class T, bool kSilu, bool kResidual>
void apply(const RowsView& x, const BatchNormView& bn, const RowsView& residual, const RowsView& y) {
  const WideRows cut(x, residual, y);
  const Constants k(cut, bn), k_of_pairs = of_pairs<T>(k);
  const bool stream = y.rows * y.cols * int64_t(sizeof(T)) >= kStreamBytes;
  parallel_chunks(cut.chunks, [&](int64_t chunk) HWY_ATTR {
    const RowsView in = cut.slice(x, chunk), out = cut.slice(y, chunk);
    const RowsView add = kResidual ? cut.slice(residual, chunk) : RowsView{};
    with_row_kind<T>(out, stream, [&](auto pairs, auto streams) HWY_ATTR {
      apply_rows<T, kSilu, kResidual, pairs(), streams()>(in, add, out, pairs() ? k_of_pairs : k);
    });
  });
}

void BatchNormApply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) {
  const bool add = residual.p != nullptr;
  with_element(x.t, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    if (act == Activation::kSilu) return add ? apply<T, true, true>(x, bn, residual, y) : apply<T, true, false>(x, bn, residual, y);
    add ? apply<T, false, true>(x, bn, residual, y) : apply<T, false, false>(x, bn, residual, y);
  });
}

// dy * act'(z): silu' = s (1 + z (1 - s)).
template <class T, bool kSilu>
HWY_INLINE V grad_z(V dy, V centred, V scale, V beta) {
  if constexpr (!kSilu) return dy;
  const V z = hn::MulAdd(centred, scale, beta);
  const V s = sigmoid_of_rounded<T>(z);
  const V one = splat(1.0f);
  return hn::Mul(hn::Mul(dy, s), hn::MulAdd(z, hn::Sub(one, s), one));
}

// Sums of dz and dz * (x - mean) over a block of rows for kVectors vectors, added to db and dg in the order of the constants. What
// lies next_x and next_dy elements on is fetched.
template <class T, bool kSilu, bool kPairs, size_t kVectors, class Part>
HWY_INLINE void sum_block(const RowsView& x, const RowsView& dy, int64_t next_x, int64_t next_dy, int64_t column, Part part,
                          const Constants& k, float* db, float* dg) {
  V sum[kVectors], dot[kVectors];
  for (size_t v = 0; v < kVectors; ++v) sum[v] = dot[v] = hn::Zero(F32());
  for (int64_t r = 0; r < x.rows; ++r) {
    const T* px = at<T>(x, r, column);
    const T* pd = at<T>(dy, r, column);
    const auto add = [&](size_t v, size_t c, auto taken) HWY_ATTR {
      fetch(taken, px + c + next_x);
      fetch(taken, pd + c + next_dy);
      const auto constant = [&](const std::vector<float>& table) HWY_ATTR { return taken.get(table.data() + column + v * kLanes); };
      const V centred = hn::Sub(taken.get(px + c), constant(k.mean));
      const V dz = grad_z<T, kSilu>(taken.get(pd + c), centred, constant(k.scale), constant(k.beta));
      sum[v] = hn::Add(sum[v], dz);
      dot[v] = hn::MulAdd(dz, centred, dot[v]);
    };
    if constexpr (kPairs) {
      for (size_t v = 0; v < kVectors; v += 2) {
        add(v, v * kLanes, Even());
        add(v + 1, v * kLanes, Odd());
      }
    } else {
      for (size_t v = 0; v < kVectors; ++v) add(v, v * kLanes, part);
    }
  }
  for (size_t v = 0; v < kVectors; ++v) {
    const size_t c = size_t(column) + v * kLanes;
    part.put(hn::Add(part.get(db + c), sum[v]), db + c);
    part.put(hn::Add(part.get(dg + c), dot[v]), dg + c);
  }
}

template <class T, bool kSilu, bool kPairs>
void chunk_sums(const RowsView& x, const RowsView& dy, const Constants& k, float* db, float* dg) {
  constexpr int64_t kShortBlock = 16;  // rows: gradients are of either sign, so short sums round less
  const int64_t next_x = ahead_in<T>(x), next_dy = ahead_in<T>(dy);
  for (int64_t r = 0; r < x.rows; r += kShortBlock) {
    const RowsView block_x = block_of<T>(x, r, kShortBlock), block_dy = block_of<T>(dy, r, kShortBlock);
    const auto sum = [&](int64_t c, auto vectors, auto part) HWY_ATTR {
      sum_block<T, kSilu, kPairs, vectors()>(block_x, block_dy, next_x, next_dy, c, part, k, db, dg);
    };
    if constexpr (kPairs) {
      for_each_strip_of_pairs(x.cols, sum);
    } else {
      for_each_strip(x.cols, sum);
    }
  }
}

// dx = scale * dz + (x - mean) * slope + offset.
template <class T, bool kSilu, bool kPairs, bool kStream>
void dx_rows(const RowsView& x, const RowsView& dy, const RowsView& dx, const Constants& k) {
  const int64_t next_x = ahead_in<T>(x), next_dy = ahead_in<T>(dy);
  for (int64_t r = 0; r < x.rows; ++r) {
    const T* px = at<T>(x, r);
    const T* pd = at<T>(dy, r);
    put_row<kPairs, kStream>(size_t(x.cols), at<T>(dx, r), [&](size_t c, size_t i, auto part) HWY_ATTR {
      fetch(part, px + c + next_x);
      fetch(part, pd + c + next_dy);
      const V scale = part.get(k.scale.data() + i);
      const V centred = hn::Sub(part.get(px + c), part.get(k.mean.data() + i));
      const V dz = grad_z<T, kSilu>(part.get(pd + c), centred, scale, part.get(k.beta.data() + i));
      return hn::MulAdd(dz, scale, hn::MulAdd(centred, part.get(k.slope.data() + i), part.get(k.offset.data() + i)));
    });
  }
  if constexpr (kStream) hwy::FlushStream();
}

template <class T, bool kSilu>
void backward(const RowsView& x, const RowsView& dy, const BatchNormView& bn, const RowsView& dx, float* dgamma, float* dbeta,
              bool accumulate) {
  const WideRows cut(x, dy, dx);
  Constants k(cut, bn), k_of_pairs = of_pairs<T>(k);
  const auto width = size_t(cut.width);
  std::vector<float> sums(size_t(cut.chunks) * 2 * width);  // per chunk: sums of dz, sums of dz * (x - mean)
  parallel_chunks(cut.chunks, [&](int64_t chunk) HWY_ATTR {
    float* p = sums.data() + size_t(chunk) * 2 * width;
    const RowsView in = cut.slice(x, chunk);
    with_row_kind<T>(in, false, [&](auto pairs, auto) HWY_ATTR {
      chunk_sums<T, kSilu, pairs()>(in, cut.slice(dy, chunk), pairs() ? k_of_pairs : k, p, p + width);
    });
  });
  const auto channels = size_t(cut.channels);
  std::vector<double> db(channels), dg(channels);
  for (int64_t chunk = 0; chunk < cut.chunks; ++chunk) {
    const float* p = sums.data() + size_t(chunk) * 2 * width;
    const RowsView in = cut.slice(x, chunk);
    const bool pairs = in_pairs<T>(in);
    for (size_t i = 0; i < size_t(in.cols); ++i) {
      const size_t c = (pairs ? column_of(i) : i) % channels;
      db[c] += double(p[i]);
      dg[c] += double(p[width + i]);
    }
  }
  std::vector<float> slope(channels), offset(channels);
  for (size_t c = 0; c < channels; ++c) {
    const double rstd = static_cast<const float*>(bn.rstd)[c];
    dg[c] *= rstd;
    const double scale = rstd * double(static_cast<const float*>(bn.gamma)[c]);
    slope[c] = float(-scale * rstd * dg[c] / double(x.rows));
    offset[c] = float(-scale * db[c] / double(x.rows));
    dgamma[c] = float(accumulate ? double(dgamma[c]) + dg[c] : dg[c]);
    dbeta[c] = float(accumulate ? double(dbeta[c]) + db[c] : db[c]);
  }
  k.slope = cut.repeat(slope.data());
  k.offset = cut.repeat(offset.data());
  k_of_pairs = of_pairs<T>(k);
  const bool stream = dx.rows * dx.cols * int64_t(sizeof(T)) >= kStreamBytes && dx.p != dy.p;
  // From the last chunk to the first: the end of the tensors is what the first pass left in the caches.
  parallel_chunks(cut.chunks, [&](int64_t i) HWY_ATTR {
    const int64_t chunk = cut.chunks - 1 - i;
    const RowsView out = cut.slice(dx, chunk);
    with_row_kind<T>(out, stream, [&](auto pairs, auto streams) HWY_ATTR {
      dx_rows<T, kSilu, pairs(), streams()>(cut.slice(x, chunk), cut.slice(dy, chunk), out, pairs() ? k_of_pairs : k);
    });
  });
}

void BatchNormBackward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, float* dgamma, float* dbeta,
                       bool accumulate) {
  with_element(x.t, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    act == Activation::kSilu ? backward<T, true>(x, dy, bn, dx, dgamma, dbeta, accumulate)
                             : backward<T, false>(x, dy, bn, dx, dgamma, dbeta, accumulate);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(JoinRows);
HWY_EXPORT(PixelsOfWideRow);
HWY_EXPORT(BatchNormApply);
HWY_EXPORT(BatchNormBackward);

void ChannelMoments::add(Sums& sums, const RowsView& rows) {
  if (rows.rows == 0) return;
  const auto width = static_cast<size_t>(rows.cols);
  if (sums.rows == 0) {
    for (auto* v : {&sums.total, &sums.mean, &sums.m2}) v->assign(width, 0.0);
  }
  HWY_DYNAMIC_DISPATCH(JoinRows)(rows, sums.rows, sums.total.data(), sums.mean.data(), sums.m2.data());
  sums.rows += rows.rows;
}

void ChannelMoments::add(int64_t part, const RowsView& rows, int64_t channel) {
  Part& p = parts_[static_cast<size_t>(part)];
  p.channel = channel;
  p.channels = rows.cols;
  const int64_t group = rows.pitch == rows.cols ? HWY_DYNAMIC_DISPATCH(PixelsOfWideRow)(rows.cols) : 1;
  const int64_t wide = rows.rows / group;
  add(p.wide, {rows.p, rows.t, wide, group * rows.cols, group * rows.pitch});
  auto* rest = data<std::byte>(rows) + wide * group * rows.pitch * int64_t(size_of(rows.t));
  add(p.single, {rest, rows.t, rows.rows - wide * group, rows.cols, rows.pitch});
}

void ChannelMoments::join(double* sums, double* squares) const {
  const auto channels = static_cast<size_t>(channels_);
  std::vector<double> count(channels);
  std::fill_n(sums, channels, 0.0);
  std::fill_n(squares, channels, 0.0);
  const auto for_each = [&](const auto& body) {
    for (const Part& p : parts_) {
      for (const Sums* s : {&p.wide, &p.single}) {
        for (size_t i = 0; i < s->mean.size(); ++i) body(size_t(p.channel) + i % size_t(p.channels), *s, i);
      }
    }
  };
  // First the mean of all, then the squares about it.
  for_each([&](size_t c, const Sums& s, size_t i) {
    count[c] += double(s.rows);
    sums[c] += s.total[i];
  });
  for_each([&](size_t c, const Sums& s, size_t i) {
    const double d = s.mean[i] - sums[c] / count[c];
    squares[c] += s.m2[i] + double(s.rows) * d * d;
  });
}

// Parts are several images, or pieces of one.
void batch_norm_moments(const ImageView& x, double* sums, double* squares) {
  const int64_t group = HWY_DYNAMIC_DISPATCH(PixelsOfWideRow)(x.c);
  const int64_t pixels = x.h * x.w;
  const int64_t step = std::max<int64_t>(1, kChunkElements / (group * x.c)) * group;
  const int64_t shared_out = chunk_elements(x.n * pixels * x.c) / x.c;
  const int64_t images = std::max<int64_t>(1, shared_out / std::max<int64_t>(1, pixels)), pieces = (pixels + step - 1) / step;
  ChannelMoments moments(x.c);
  const int64_t parts = (x.n + images - 1) / images * pieces;
  moments.start(parts);
  parallel_chunks(parts, [&](int64_t part) {
    const int64_t first = part % pieces * step;
    for (int64_t n = part / pieces * images; n < std::min(x.n, (part / pieces + 1) * images); ++n) {
      std::byte* const from = data<std::byte>(x) + (n * pixels + first) * x.pitch * int64_t(size_of(x.t));
      moments.add(part, {from, x.t, std::min(step, pixels - first), x.c, x.pitch});
    }
  });
  moments.join(sums, squares);
}

void batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) {
  HWY_DYNAMIC_DISPATCH(BatchNormApply)(x, bn, act, residual, y);
}

void batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, float* dgamma, float* dbeta,
                         bool accumulate) {
  HWY_DYNAMIC_DISPATCH(BatchNormBackward)(x, dy, bn, act, dx, dgamma, dbeta, accumulate);
}

}  // namespace tessera::cpu
#endif
