// Compiled once per CPU target: the register tile of the forward kernel, its epilogue and the packing of weights.
//
// Note [Tile]: MR pixels x NV vectors of output channels stay in registers while the reduction runs; each step loads NV vectors of
// weights and broadcasts one value per pixel. Rows are cut into tiles of nearly equal height (20 = 10 + 10, not 14 + 6), and
// every height up to the largest is its own instance, so a tail never runs at the speed of a 1-pixel tile.
//
// The file that includes this one first gives the multiply-add of its type T: conv_f32-inl.h or conv_bf16-inl.h. Each has its own
// target attributes (TESSERA_TILE_ATTRIBUTES), so nothing here may be shared between the two.
//
// No include guard: once per target, after the arithmetic.
#include <algorithm>
#include <array>
#include <utility>

TESSERA_TILE_BEGIN;
namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE {

constexpr int64_t kWidth = kLanes;     // sums of a vector
constexpr int64_t kDeep = kSummed<T>;  // products of a sum that one multiply-add takes

// AVX-512 has 32 vector registers, AVX2 16: accumulators + weights + one broadcast must fit.
constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3;
constexpr int kMaxVectors = kManyRegisters ? 5 : 3;
constexpr int max_rows(int vectors) {
  constexpr int many[] = {0, 20, 14, 8, 6, 5};
  constexpr int few[] = {0, 12, 6, 4};
  return kManyRegisters ? many[vectors] : few[std::min(vectors, 3)];
}

// Largest tile, in vectors of sums.
constexpr int kTileVectors = 32;

// Activation and residual of a tile whose sums lie in L1: keeps the exponential out of the unrolled tiles.
HWY_NOINLINE void finish_tile(const RowJob<T>& j, int64_t first, int64_t count, const float* sums) {
  for (int64_t p = first; p < first + count; ++p, sums += j.vectors * kWidth) {
    T* y = j.y + p * j.y_step;
    const T* residual = j.residual ? j.residual + p * j.residual_step : nullptr;
    for (int64_t c = 0; c < j.channels; c += kWidth) {
      const int64_t left = j.channels - c;
      V v = load(sums + c);
      if (j.silu) v = hn::Mul(v, sigmoid_for<T>(v));
      if (residual) v = hn::Add(v, load_first(residual + c, left));
      store_first(v, y + c, left);
    }
  }
}

// Note [Fetches]: what is not in L1 yet is asked for a line at a time beside the steps of the multiply-adds, in two streams: the
// input of the next tile into L1; into L2 first the output of this tile, then the input of the tile after the next, or what
// RowJob::ahead names. In bursts they fill the few buffers for misses, and the loads behind them wait. Asking twice, or past the
// end, costs next to nothing.
constexpr int64_t kSteps = kLine<T> / kDeep;  // multiply-adds that read a line of a pixel

// A tile whose pixels are this deep fills L1 with its input and weights: what is fetched for the next one is gone when that starts,
// so its own next line is fetched instead.
constexpr int64_t kDeepRun = 768 / int64_t(sizeof(T));

// A stream: one line for each step.
struct Lines {
  const char* p;
  int64_t step;  // bytes
};
HWY_INLINE Lines lines_of(const T* p, int64_t step) { return {reinterpret_cast<const char*>(p), step * int64_t(sizeof(T))}; }

// What `ahead` names, in even shares for `blocks` blocks of kSteps; a share is of one pixel.
class AheadLines {
 public:
  AheadLines(const Ahead& ahead, int64_t blocks) : p_(ahead.p), pitch_(ahead.pitch) {
    if (blocks <= 0 || ahead.pixels <= 0) return;
    const bool dense = ahead.bytes == ahead.pitch;  // one long pixel
    pixels_ = dense ? 1 : ahead.pixels;
    bytes_ = dense ? ahead.pixels * ahead.bytes : ahead.bytes;
    const int64_t of_pixel = kSteps * std::max<int64_t>(1, blocks / pixels_);
    step_ = (bytes_ + of_pixel - 1) / of_pixel;
  }
  bool empty() const { return pixels_ <= 0; }
  Lines next() {
    const Lines lines{p_ + at_, step_};
    if ((at_ += kSteps * step_) >= bytes_) at_ = 0, p_ += pitch_, --pixels_;
    return lines;
  }

 private:
  const char* p_;
  int64_t pixels_ = 0, bytes_ = 0, pitch_;  // left to fetch; of each, and from one to the next
  int64_t step_ = 0, at_ = 0;               // bytes of a step; where in the pixel
};

// Note [Addresses]: the pixels of a tile are a run-time stride apart, which asks for more address registers than x86 has: compilers
// keep one pointer per pixel and spill them in the inner loop. Five pixels share a base pointer here: +0, +step, +2 step, +4 step
// are addressing modes and +3 step costs one register for all bases. opaque() keeps the compiler from undoing this.
constexpr int kRowsOfBase = 5;
template <class Address>
HWY_INLINE void opaque(Address& value) {
  asm("" : "+r"(value));
}

template <int MR>
constexpr int kBases = (MR + kRowsOfBase - 1) / kRowsOfBase;

// One step: sums c of MR pixels and NV vectors += products of what lies at the pixels' bases a and at the weights w; moves both on.
template <int MR, int NV>
HWY_INLINE void multiply_step(V (&c)[MR][NV], const T* (&a)[kBases<MR>], const T* HWY_RESTRICT& w, int64_t step, int64_t step3) {
  Factors b[NV];
#pragma GCC unroll 32
  for (int v = 0; v < NV; ++v) b[v] = aligned_factors(w + v * kWidth * kDeep);
#pragma GCC unroll 32
  for (int m = 0; m < MR; ++m) {
    const T* p = a[m / kRowsOfBase];
    const int of = m % kRowsOfBase;
    const Factors x = broadcast(p + (of == 3 ? step3 : of * step));
#pragma GCC unroll 32
    for (int v = 0; v < NV; ++v) c[m][v] = multiply_add(x, b[v], c[m][v]);
  }
#pragma GCC unroll 32
  for (int g = 0; g < kBases<MR>; ++g) opaque(a[g] += kDeep);
  w += NV * kWidth * kDeep;
}

template <int MR, int NV>
HWY_NOINLINE void tile(const RowJob<T>& j, int64_t first, AheadLines& ahead, float* sums) {
  static_assert(MR * NV <= kTileVectors);
  T* y = j.y + first * j.y_step;
  if (j.residual) {
    const T* residual = j.residual + first * j.residual_step;
#pragma GCC unroll 1
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 32
      for (int c = 0; c < NV * kWidth; c += kLine<T>) __builtin_prefetch(residual + m * j.residual_step + c);
    }
  }
  V c[MR][NV];
#pragma GCC unroll 32
  for (int v = 0; v < NV; ++v) {
    const V start = j.bias ? load(j.bias + v * kWidth) : hn::Zero(F32());
#pragma GCC unroll 32
    for (int m = 0; m < MR; ++m) c[m][v] = start;
  }
  const T* HWY_RESTRICT w = j.w;
  const T* row = j.a + first * j.a_step;
  const int64_t step = j.a_step;
  int64_t step3 = 3 * step;
  opaque(step3);
  const bool deep = j.run >= kDeepRun && j.kernel_rows * j.taps == 1;
  int64_t output = j.past_caches ? NV * kWidth : 0;  // channels whose lines have been asked for
  for (int64_t r = 0; r < j.kernel_rows; ++r, row += j.a_row) {
    const T* tap = row;
    for (int64_t t = 0; t < j.taps; ++t, tap += j.a_tap) {
      // See Note [Addresses].
      const T* a[kBases<MR>];
#pragma GCC unroll 32
      for (int g = 0; g < kBases<MR>; ++g) a[g] = tap + kRowsOfBase * g * step;
      int64_t k = 0;
      // See Note [Fetches].
      while (k < j.run && (j.next_tile_ahead || output < NV * kWidth || !ahead.empty())) {
        const int64_t end = std::min(j.run, k + kLine<T>);
        Lines next = lines_of(tap + k, 0), far = next;
        if (j.next_tile_ahead) {
          next = lines_of(tap + MR * step + k, step);
          if (deep) next = lines_of(tap + (end < j.run ? end : MR * step), step);
        }
        if (output < NV * kWidth) {
          far = lines_of(y + output, j.y_step);
          output += kLine<T>;
        } else if (j.second_tile_ahead) {
          far = lines_of(tap + 2 * MR * step + k, step);
        } else if (!ahead.empty()) {
          far = ahead.next();
        }
        for (; k < end; k += kDeep) {
#pragma GCC unroll 2
          for (int64_t f = 0; f < MR; f += kSteps, next.p += next.step) __builtin_prefetch(next.p);
          __builtin_prefetch(far.p, 0, 2);
          far.p += far.step;
          multiply_step<MR, NV>(c, a, w, step, step3);
        }
      }
      for (; k < j.run; k += kDeep) multiply_step<MR, NV>(c, a, w, step, step3);
    }
  }
  if (sums != nullptr) {
#pragma GCC unroll 32
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 32
      for (int v = 0; v < NV; ++v) store(c[m][v], sums + (m * NV + v) * kWidth);
    }
    return;
  }
  if constexpr (kWidth == kLine<T>) {
    if (j.past_caches) {
#pragma GCC unroll 32
      for (int m = 0; m < MR; ++m, y += j.y_step) {
#pragma GCC unroll 32
        for (int v = 0; v < NV; ++v) store_past_cache(c[m][v], y + v * kWidth);
      }
      return;
    }
  }
  const int64_t last = j.channels - (NV - 1) * kWidth;
#pragma GCC unroll 32
  for (int m = 0; m < MR; ++m, y += j.y_step) {
#pragma GCC unroll 32
    for (int v = 0; v < NV; ++v) {
      const int64_t count = v + 1 < NV ? kWidth : last;
      if (j.accumulate) c[m][v] = hn::Add(c[m][v], load_first(y + v * kWidth, count));
      store_first(c[m][v], y + v * kWidth, count);
    }
  }
}

template <int NV>
void run_row(const RowJob<T>& j) {
  using Tile = void (*)(const RowJob<T>&, int64_t, AheadLines&, float*);
  static constexpr auto kTiles = []<int... M>(std::integer_sequence<int, M...>) {
    return std::array<Tile, sizeof...(M)>{&tile<M + 1, NV>...};
  }
  (std::make_integer_sequence<int, max_rows(NV)>());
  const int64_t tiles = (j.pixels + max_rows(NV) - 1) / max_rows(NV);
  if (tiles == 0) return;
  const int64_t low = j.pixels / tiles;
  const int64_t short_tiles = tiles - j.pixels % tiles;
  const bool finishes = j.silu || j.residual;
  const int64_t of_output = j.past_caches ? 0 : NV * kWidth / kLine<T>;
  const int64_t blocks = j.kernel_rows * j.taps * (j.run / kLine<T>)-of_output;  // of a tile, beside its output's
  AheadLines ahead(j.ahead, tiles * blocks);
  HWY_ALIGN float sums[kTileVectors * kWidth];
  for (int64_t t = 0, p = 0; t < tiles; ++t) {
    const int64_t rows = low + (t >= short_tiles);
    kTiles[static_cast<size_t>(rows - 1)](j, p, ahead, finishes ? sums : nullptr);
    if (finishes) finish_tile(j, p, rows, sums);
    p += rows;
  }
}

void run_row_job(const RowJob<T>& j) {
  switch (j.vectors) {
    case 1: return run_row<1>(j);
    case 2: return run_row<2>(j);
    case 3: return run_row<3>(j);
#if HWY_TARGET <= HWY_AVX3
    case 4: return run_row<4>(j);
    case 5: return run_row<5>(j);
#endif
    default: return;
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE
TESSERA_TILE_END;
