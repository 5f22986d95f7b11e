// Bands of rows and the filter gradients of the bf16 kernels on the tiles of AMX, for conv_tile_bf16.cpp. Pixels and packed weights
// lie as for the vectors: 32 channels of 16 pixels are a tile of A, and the pairs that the weights are packed in (Note [Pairs]) are
// what the unit wants of B.
//
// Note [Blocks of tiles]: tiles 0 to 3 hold sums of kDown x NV tiles, 4 x 1 or 2 x 2: a product is not done before three others
// have begun, so fewer sums would wait for it. A product takes as long as its rows of A, a load half of that where no row crosses a
// line, so two loads for each product can hide behind it. A run that is no multiple of 32 ends with a product of its own shape:
// tiles 6 and 7 have it; otherwise they are a second pair of factors.
//
// Note [Sums in the next block]: the sums of a block are stored between the first products of the next, and leave for the output
// beside its later ones, some pixels a step: neither the tile unit nor the vectors wait for each other.
//
// No include guard: once, after conv_bf16-inl.h.
#include "tensor/cpu/amx_tiles.h"

TESSERA_TILE_BEGIN;
namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE {

constexpr int kTileRows = 16;
constexpr int64_t kTileDepth = 32;                 // channels of a full tile of A
constexpr int kMaxAmxVectors = 2;                  // of a group of output channels
constexpr int64_t kAmxJobPixels = 512;             // 16 steps of pairs: those of two tiles of A stay in L1
constexpr int64_t kSumBytes = 16 * sizeof(float);  // a row of sums

template <class Tiles>
void configure_tiles(int rows, int64_t tail) {
  thread_local TileConfig now;
  TileConfig c;
  const auto set = [&](int tile, int64_t r, int64_t bytes) { c.rows[tile] = uint8_t(r), c.row_bytes[tile] = uint16_t(bytes); };
  const int64_t end = tail > 0 ? tail : kTileDepth;
  for (int t = 0; t < 4; ++t) set(t, rows, kSumBytes);
  set(4, rows, kTileDepth * 2);
  set(5, kTileDepth / 2, kSumBytes);
  set(6, rows, end * 2);
  set(7, end / 2, kSumBytes);
  if (c == now) return;
  now = c;
  Tiles::configure(now);
}

// One step of k: each of kDown tiles of A, at a[row] + at, meets each of NV tiles of B, at b + across(column), in sums kRow * NV +
// kColumn; before<sum>() is called before the product into it. kTurns: factors take turns in two registers each, and those of B
// stay for all rows; else each has one, 4 and 5 or, in the shape of the tail, 6 and 7, and every other row meets the columns in
// reverse.
template <class Tiles, int kDown, int NV, bool kTurns, bool kOfTail, class Across, class Before>
HWY_INLINE void tile_step(const T* const (&a)[kDown], int64_t at, int64_t a_bytes, const T* b, int64_t b_bytes,
                          const Across& across, const Before& before) {
  static_assert(kDown <= 4 && NV <= 4);
  const auto row = [&]<int kRow>() {
    if constexpr (kRow < kDown) {
      constexpr int kA = kOfTail || (kTurns && kRow % 2 == 1) ? 6 : 4;
      Tiles::template load<kA>(a[kRow] + at, a_bytes);
      const auto column = [&]<int kStep>() {
        if constexpr (kStep < NV) {
          constexpr int kColumn = !kTurns && kRow % 2 == 1 ? NV - 1 - kStep : kStep;
          constexpr int kB = kOfTail || (kTurns && kColumn % 2 == 1) ? 7 : 5;
          if constexpr (kRow == 0 || (kStep > 0 && !(kTurns && NV <= 2))) Tiles::template load<kB>(b + across(kColumn), b_bytes);
          before.template operator()<kRow * NV + kColumn>();
          Tiles::template multiply_add<kRow * NV + kColumn, kA, kB>();
        }
      };
      column.template operator()<0>();
      column.template operator()<1>();
      column.template operator()<2>();
      column.template operator()<3>();
    }
  };
  row.template operator()<0>();
  row.template operator()<1>();
  row.template operator()<2>();
  row.template operator()<3>();
}

// What a band is the first to ask for, some lines at each step.
class AheadSteps {
 public:
  AheadSteps(const Ahead& ahead, int64_t steps) : ahead_(ahead) {
    const int64_t lines = ahead.pixels * ((ahead.bytes + kLineBytes - 1) / kLineBytes);
    lines_ = (lines + steps - 1) / std::max<int64_t>(steps, 1);
  }
  HWY_INLINE void step() {
    for (int64_t i = 0; i < lines_ && ahead_.pixels > 0; ++i) {
      __builtin_prefetch(ahead_.p + at_, 0, 2);
      if ((at_ += kLineBytes) < ahead_.bytes) continue;
      at_ = 0, ahead_.p += ahead_.pitch, --ahead_.pixels;
    }
  }

 private:
  Ahead ahead_;
  int64_t lines_, at_ = 0;
};

// A row of output pixels is cut in tiles of one height; the last starts earlier where they do not fit, so no pixel beyond the last
// is read, and the pixels that it repeats are not stored twice.
template <class Tiles>
class AmxBand {
 public:
  explicit AmxBand(const BandJob<T>& band)
      : band_(band),
        of_row_((band.groups[0].pixels + kTileRows - 1) / kTileRows),
        height_(int((band.groups[0].pixels + of_row_ - 1) / of_row_)),
        steps_(band.groups[0].kernel_rows * band.groups[0].taps * ((band.groups[0].run + kTileDepth - 1) / kTileDepth)),
        ahead_(band.groups[0].ahead, of_row_ * band.rows / 2 * int64_t(band.groups.size()) * steps_) {
    configure_tiles<Tiles>(height_, band.groups[0].run % kTileDepth);
  }

  // All groups for a few tiles of pixels, which so stay in L1, and then the next.
  void run() {
    const int64_t tiles = of_row_ * band_.rows;
    for (int64_t first = 0; first < tiles; first += kFew) {
      Place places[kFew];
      const int count = int(std::min<int64_t>(kFew, tiles - first));
      for (int i = 0; i < count; ++i) places[i] = place(first + i);
      for (const RowJob<T>& job : band_.groups) {
        if (job.vectors == 1) {
          block<4, 1>(job, places, count);
        } else {
          for (int i = 0; i < count; i += 2) block<2, 2>(job, places + i, std::min(2, count - i));
        }
      }
    }
    flush();
  }

 private:
  static constexpr int kFew = 4;

  // Where a tile of pixels lies, in elements from those of the first row's first pixel, and its first pixel that is stored.
  struct Place {
    int64_t a, y, residual;
    int first;
  };
  Place place(int64_t tile) const {
    const RowJob<T>& j = band_.groups[0];
    const int64_t row = tile / of_row_, p = tile % of_row_ * height_, start = std::min(p, j.pixels - height_);
    return {row * band_.a_next + start * j.a_step, row * band_.y_next + start * j.y_step,
            row * band_.residual_next + start * j.residual_step, int(p - start)};
  }

  // Sums of kDown tiles of pixels by NV of channels; where there are fewer places, some are computed again and not stored.
  template <int kDown, int NV>
  void block(const RowJob<T>& j, const Place* places, int count) {
    static_assert(kDown * NV == 4);
    if (waiting_ != nullptr && waiting_->vectors != NV) flush();
    const T* a[kDown];
    for (int m = 0; m < kDown; ++m) a[m] = j.a + places[m < count ? m : 0].a;
    const int64_t a_bytes = j.a_step * int64_t(sizeof(T)), b_bytes = NV * kSumBytes;
    const auto across = [](int column) { return column * 2 * kWidth; };
    const int64_t whole = j.run / kTileDepth * kTileDepth, tail = j.run - whole;
    const int of_step = int((end_ + steps_ - 2) / std::max<int64_t>(steps_ - 1, 1));
    const T* w = j.w;
    bool begins = true;
    const auto take_over = [&]<int kTile>() {
      if (waiting_ != nullptr) store_tile<NV, kTile>();
      Tiles::template zero<kTile>();
    };
    const auto step = [&]<bool kTurns, bool kOfTail>(int64_t at) {
      if (begins) {
        begins = false;
        tile_step<Tiles, kDown, NV, kTurns, kOfTail>(a, at, a_bytes, w, b_bytes, across, take_over);
      } else {
        tile_step<Tiles, kDown, NV, kTurns, kOfTail>(a, at, a_bytes, w, b_bytes, across, []<int>() {});
        finish<NV>(std::min(end_, next_ + of_step));
      }
      ahead_.step();
    };
    for (int64_t r = 0; r < j.kernel_rows; ++r) {
      for (int64_t t = 0; t < j.taps; ++t) {
        int64_t at = r * j.a_row + t * j.a_tap;
        for (int64_t k = 0; k < whole; k += kTileDepth, at += kTileDepth, w += kTileDepth * NV * kWidth) {
          if (tail == 0) {
            step.template operator()<true, false>(at);
          } else {
            step.template operator()<false, false>(at);
          }
        }
        if (tail > 0) {
          step.template operator()<false, true>(at);
          w += tail * NV * kWidth;
        }
      }
    }
    if (begins) {  // no tap at all
      take_over.template operator()<0>(), take_over.template operator()<1>();
      take_over.template operator()<2>(), take_over.template operator()<3>();
    }
    finish<NV>(end_);
    waiting_ = &j;
    std::copy_n(places, count, waiting_places_);
    next_ = 0, end_ = count * kTileRows;
  }

  template <int NV, int kTile>
  HWY_INLINE void store_tile() {
    Tiles::template store<kTile>(sums_ + kTile / NV * kTileRows * NV * kWidth + kTile % NV * kWidth, NV * kSumBytes);
  }
  template <int NV>
  void store_and_finish() {
    store_tile<NV, 0>(), store_tile<NV, 1>(), store_tile<NV, 2>(), store_tile<NV, 3>();
    finish<NV>(end_);
  }
  void flush() {
    if (waiting_ == nullptr) return;
    waiting_->vectors == 1 ? store_and_finish<1>() : store_and_finish<2>();
    waiting_ = nullptr;
    next_ = end_ = 0;
  }

  // Rows of the sums up to `end`: bias, what y holds, activation and residual.
  template <int NV>
  HWY_INLINE void finish(int end) {
    for (; next_ < end; ++next_) {
      const RowJob<T>& j = *waiting_;
      const Place& place = waiting_places_[next_ / kTileRows];
      const int row = next_ % kTileRows;
      if (row < place.first || row >= height_) continue;
      const float* sums = sums_ + next_ * NV * kWidth;
      T* y = j.y + place.y + row * j.y_step;
      const T* residual = j.residual ? j.residual + place.residual + row * j.residual_step : nullptr;
      const auto value = [&](int64_t c) {
        const int64_t left = j.channels - c;
        V v = load(sums + c);
        if (j.bias) v = hn::Add(v, load(j.bias + c));
        if (j.accumulate) v = hn::Add(v, load_first(y + c, left));
        if (j.silu) v = hn::Mul(v, sigmoid_for<T>(v));
        if (residual) v = hn::Add(v, load_first(residual + c, left));
        return v;
      };
      if (NV == 2 && j.channels == 2 * kWidth) {
        _mm512_storeu_si512(y, (__m512i)_mm512_cvtne2ps_pbh(value(kWidth).raw, value(0).raw));
      } else {
        for (int64_t c = 0; c < j.channels; c += kWidth) store_first(value(c), y + c, j.channels - c);
      }
    }
  }

  const BandJob<T>& band_;
  const int64_t of_row_;  // tiles
  const int height_;      // of each, in pixels
  const int64_t steps_;   // of a block
  AheadSteps ahead_;
  const RowJob<T>* waiting_ = nullptr;  // whose sums are in the tiles or, up to end_, in sums_
  Place waiting_places_[kFew];
  int next_ = 0, end_ = 0;  // rows of sums_
  alignas(64) float sums_[4 * kTileRows * 16];
};

template <class Tiles>
void run_amx_band(const BandJob<T>& band) {
  if (band.groups.empty() || band.groups[0].pixels == 0 || band.rows == 0) return;
  AmxBand<Tiles>(band).run();
}

// Note [Filter gradients on tiles]: dw = d^T x over the pixels of a job. Pixels lie in pairs (Note [Pairs]), which are the rows
// that the unit wants of B; A wants 16 channels of d with 16 pairs in a row, so d is transposed first, once for all columns of x.
// Rows of pixels that are no multiple of 16 pairs end with a product of their own shape.

// The first `channels` of 16 columns of `pairs` of 16 rows of pairs, `step` elements apart, as 16 rows of 16 pairs; zero beyond.
HWY_INLINE void transpose_pairs(const T* src, int64_t step, int64_t pairs, int64_t channels, T* to) {
  const __mmask16 valid = first_of_16(channels);
  __m512i r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = i < pairs ? _mm512_maskz_loadu_epi32(valid, src + i * step) : _mm512_setzero_si512();
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {  // squares of 4 within each 128 bits
    const __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]), b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    const __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]), d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c), t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d), t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {  // t[4 g + i] holds, in part q, rows 4 g to 4 g + 3 of column 4 q + i
    const __m512i a = _mm512_shuffle_i32x4(t[i], t[4 + i], 0x44), b = _mm512_shuffle_i32x4(t[i], t[4 + i], 0xee);
    const __m512i c = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0x44), d = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0xee);
    _mm512_store_si512(to + (0 + i) * 32, _mm512_shuffle_i32x4(a, c, 0x88));
    _mm512_store_si512(to + (4 + i) * 32, _mm512_shuffle_i32x4(a, c, 0xdd));
    _mm512_store_si512(to + (8 + i) * 32, _mm512_shuffle_i32x4(b, d, 0x88));
    _mm512_store_si512(to + (12 + i) * 32, _mm512_shuffle_i32x4(b, d, 0xdd));
  }
}

// What is paired for a later job, some pairs at each step: loads, turns and stores find room beside the products.
class PairSteps {
 public:
  PairSteps(std::span<const PairColumn> columns, int64_t steps) : columns_(columns) {
    int64_t pairs = 0;
    for (const PairColumn& column : columns) pairs += column.pairs;
    of_step_ = (pairs + steps - 1) / std::max<int64_t>(steps, 1);
  }
  HWY_INLINE void step() {
    for (int64_t left = of_step_; left > 0;) {
      if (now_.of.pairs == 0) {
        if (columns_.empty()) return;
        now_ = Aside(columns_.front());
        columns_ = columns_.subspan(1);
      }
      const int64_t count = now_.steps(left);
      for (int64_t i = 0; i < count; ++i) now_.step(nullptr, nullptr);
      left -= count;
    }
  }

 private:
  std::span<const PairColumn> columns_;
  Aside now_{PairColumn()};
  int64_t of_step_ = 0;
};

template <class Tiles>
class AmxWeights {
 public:
  explicit AmxWeights(const WeightRows<T>& rows)
      : rows_(rows),
        j_(rows.job),
        steps_(j_.rows * ((j_.pixels + 15) / 16)),
        down_(steps_ * kTile),
        pairs_(j_.columns_ahead, all_steps()) {}

  void run() {
    const int64_t blocks = (j_.outputs + kTileRows - 1) / kTileRows;
    const T* const panel = transpose(blocks);
    configure_tiles<Tiles>(kTileRows, j_.pixels % 16 * 2);
    for (int64_t b = 0; b < blocks; b += 2) {
      for (size_t i = 0; i < rows_.x_offsets.size(); ++i) {
        const T* x = j_.x + rows_.x_offsets[i];
        float* dw = j_.dw + int64_t(i) * rows_.dw_next;
        if (b + 1 < blocks) {
          for (int64_t q = 0; q < j_.run; q += 2 * kWidth) block<2, 2>(panel + b * down_, x, dw, b * kTileRows, q);
        } else {
          for (int64_t q = 0; q < j_.run; q += 4 * kWidth) block<1, 4>(panel + b * down_, x, dw, b * kTileRows, q);
        }
      }
    }
    flush();
  }

 private:
  static constexpr int64_t kTile = kTileRows * kTileDepth;  // elements

  int64_t all_steps() const {
    const int64_t blocks = (j_.outputs + kTileRows - 1) / kTileRows;
    const auto of_run = [&](int64_t columns) { return (j_.run + columns - 1) / columns; };
    return steps_ * int64_t(rows_.x_offsets.size()) * (blocks / 2 * of_run(2 * kWidth) + blocks % 2 * of_run(4 * kWidth));
  }

  // Tiles of d, those of each 16 outputs together.
  const T* transpose(int64_t blocks) const {
    thread_local std::vector<T> memory;
    memory.resize(static_cast<size_t>(std::max<int64_t>(int64_t(memory.size()), blocks * down_ + kLine<T>)));
    auto* const panel = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    for (int64_t b = 0; b < blocks; ++b) {
      T* to = panel + b * down_;
      for (int64_t y = 0; y < j_.rows; ++y) {
        for (int64_t p = 0; p < j_.pixels; p += 16, to += kTile) {
          transpose_pairs(j_.d + y * j_.d_row + p * j_.d_step + b * 2 * kTileRows, j_.d_step, std::min<int64_t>(16, j_.pixels - p),
                          std::min<int64_t>(kTileRows, j_.outputs - b * kTileRows), to);
        }
      }
    }
    return panel;
  }

  // Gradients of kDown x 16 outputs from `o` on and NV x 16 columns from `q` on; `d`: their tiles. Columns beyond the run are
  // the first again and not stored.
  template <int kDown, int NV>
  void block(const T* d, const T* x, float* dw, int64_t o, int64_t q) {
    static_assert(kDown * NV == 4);
    if (waits_ && waiting_vectors_ != NV) flush();
    const T* a[kDown];
    for (int m = 0; m < kDown; ++m) a[m] = d + m * down_;
    const int64_t b_bytes = j_.x_step * int64_t(sizeof(T));
    const int64_t columns = std::min<int64_t>(j_.run - q, NV * kWidth);
    const int64_t vectors = (columns + kWidth - 1) / kWidth;
    const int64_t whole = j_.pixels / 16, tail = j_.pixels % 16;
    const int of_step = int((end_ + steps_ - 2) / std::max<int64_t>(steps_ - 1, 1));
    int64_t at = 0;
    bool begins = true;
    const auto step = [&]<bool kTurns, bool kOfTail>(const T* b) {
      const auto across = [&](int column) { return column < vectors ? column * 2 * kWidth : 0; };
      if (begins) {
        begins = false;
        const auto take_over = [&]<int kSum>() {
          if (waits_) store_tile<NV, kSum>();
          Tiles::template zero<kSum>();
        };
        tile_step<Tiles, kDown, NV, kTurns, kOfTail>(a, at, 64, b, b_bytes, across, take_over);
      } else {
        tile_step<Tiles, kDown, NV, kTurns, kOfTail>(a, at, 64, b, b_bytes, across, []<int>() {});
        finish<NV>(std::min(end_, next_ + of_step));
      }
      pairs_.step();
      at += kTile;
    };
    for (int64_t y = 0; y < j_.rows; ++y) {
      const T* b = x + y * j_.x_row + 2 * q;
      for (int64_t k = 0; k < whole; ++k, b += 16 * j_.x_step) {
        if (tail == 0) {
          step.template operator()<true, false>(b);
        } else {
          step.template operator()<false, false>(b);
        }
      }
      if (tail > 0) step.template operator()<false, true>(b);
    }
    finish<NV>(end_);
    waits_ = true, waiting_vectors_ = NV, waiting_columns_ = columns;
    to_ = dw + o * j_.dw_step + q;
    next_ = 0, end_ = int(std::min<int64_t>(kDown * kTileRows, j_.outputs - o));
  }

  template <int NV, int kSum>
  HWY_INLINE void store_tile() {
    Tiles::template store<kSum>(sums_ + kSum / NV * kTileRows * NV * kWidth + kSum % NV * kWidth, NV * kSumBytes);
  }
  template <int NV>
  void store_and_finish() {
    store_tile<NV, 0>(), store_tile<NV, 1>(), store_tile<NV, 2>(), store_tile<NV, 3>();
    finish<NV>(end_);
  }
  void flush() {
    if (!waits_) return;
    waiting_vectors_ == 2 ? store_and_finish<2>() : store_and_finish<4>();
    waits_ = false;
    next_ = end_ = 0;
  }

  // Rows of the sums up to `end`.
  template <int NV>
  HWY_INLINE void finish(int end) {
    for (; next_ < end; ++next_) {
      const float* from = sums_ + next_ * NV * kWidth;
      float* to = to_ + next_ * j_.dw_step;
      for (int64_t c = 0; c < waiting_columns_; c += kWidth) {
        const __mmask16 valid = first_of_16(waiting_columns_ - c);
        const __m512 sum = _mm512_load_ps(from + c);
        _mm512_mask_storeu_ps(to + c, valid, j_.accumulate ? _mm512_add_ps(sum, _mm512_maskz_loadu_ps(valid, to + c)) : sum);
      }
    }
  }

  const WeightRows<T>& rows_;
  const WeightJob<T>& j_;
  const int64_t steps_, down_;  // of a block; elements from the tiles of 16 outputs to those of the next
  PairSteps pairs_;
  bool waits_ = false;  // whether there is a block whose sums are in the tiles or, from next_ to end_, in sums_
  int waiting_vectors_ = 0;
  int64_t waiting_columns_ = 0;
  float* to_ = nullptr;
  int next_ = 0, end_ = 0;  // rows
  alignas(64) float sums_[4 * kTileRows * 16];
};

template <class Tiles>
void run_amx_weight_rows(const WeightRows<T>& rows) {
  if (rows.job.rows * rows.job.pixels == 0) return;
  AmxWeights<Tiles>(rows).run();
}
template <class Tiles>
void run_amx_weight_job(const WeightJob<T>& j) {
  constexpr int64_t kOne[] = {0};
  run_amx_weight_rows<Tiles>({j, kOne, 0});
}

}  // namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE
TESSERA_TILE_END;
