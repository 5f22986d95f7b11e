// Compiled once per CPU target: the register tile of the weight gradient. MR output channels (broadcast from dy) x NV vectors of
// the (kx, channel) run of x: accumulators live over all pixels of a job and land in the layout of the filter without a transpose.
// No include guard: once per target, after conv_tile-inl.h.
TESSERA_TILE_BEGIN;
namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE {

constexpr int kWeightVectors = kManyRegisters ? 4 : 3;
constexpr int max_outputs(int vectors) {
  constexpr int many[] = {0, 16, 12, 8, 6};
  constexpr int few[] = {0, 12, 6, 4};
  return kManyRegisters ? many[vectors] : few[std::min(vectors, 3)];
}

// One pixel: `aside` stands after the first loads, which so do not wait for it.
template <bool kAside, int MR, int NV>
HWY_INLINE void weight_step(const T* HWY_RESTRICT x, const T* HWY_RESTRICT g, V (&c)[MR][NV], Aside& aside) {
  Factors b[NV];
#pragma GCC unroll 32
  for (int v = 0; v < NV; ++v) b[v] = factors(x + v * kWidth * kDeep);
  if constexpr (kAside) aside.step(x, g);
#pragma GCC unroll 32
  for (int m = 0; m < MR; ++m) {
    const Factors s = broadcast(g + m * kDeep);
#pragma GCC unroll 32
    for (int v = 0; v < NV; ++v) c[m][v] = multiply_add(s, b[v], c[m][v]);
  }
}

template <int MR, int NV>
HWY_NOINLINE void weight_tile(const WeightJob<T>& j, int64_t o, int64_t q, Aside aside) {
  float* out = j.dw + o * j.dw_step + q;
#pragma GCC unroll 1
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 32
    for (int c = 0; c < NV * kWidth; c += kLine<float>) __builtin_prefetch(out + m * j.dw_step + c, 1);
  }
  V c[MR][NV];
#pragma GCC unroll 32
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 32
    for (int v = 0; v < NV; ++v) c[m][v] = hn::Zero(F32());
  }
  for (int64_t y = 0; y < j.rows; ++y) {
    const T* HWY_RESTRICT x = j.x + y * j.x_row + q * kDeep;
    const T* HWY_RESTRICT g = j.d + y * j.d_row + o * kDeep;
    for (int64_t p = 0; p < j.pixels;) {
      const int64_t busy = p + aside.steps(j.pixels - p);
      for (; p < busy; ++p, x += j.x_step, g += j.d_step) weight_step<true>(x, g, c, aside);
      if constexpr (kDeep > 1) {
        for (; p < j.pixels; ++p, x += j.x_step, g += j.d_step) weight_step<false>(x, g, c, aside);
      }
    }
  }
  aside.finish();
  const int64_t last = j.run - q - (NV - 1) * kWidth;
#pragma GCC unroll 32
  for (int m = 0; m < MR; ++m, out += j.dw_step) {
#pragma GCC unroll 32
    for (int v = 0; v < NV; ++v) {
      const int64_t count = v + 1 < NV ? kWidth : last;
      float* to = out + v * kWidth;
      const M valid = first(static_cast<size_t>(count));
      if (count >= kWidth) {
        store(j.accumulate ? hn::Add(c[m][v], load(to)) : c[m][v], to);
      } else {
        store(valid, j.accumulate ? hn::Add(c[m][v], load(valid, to)) : c[m][v], to);
      }
    }
  }
}

// Note [Far pixels]: pixels a whole number of 256 bytes apart share few sets of L1 (16 of 64, or fewer), and the CPU does not fetch
// over 2 KiB and more by itself. Where both hold and enough tiles read them, the block of columns that they read is first copied
// together.
constexpr int64_t kCrowdedBytes = 256, kFarBytes = 2048, kManyOutputs = 48, kBlockPixels = 128;
HWY_INLINE bool copies_block(const WeightJob<T>& j) {
  const int64_t step = j.x_step * int64_t(sizeof(T));
  return kDeep == 1 && step >= kFarBytes && step % kCrowdedBytes == 0 && j.outputs >= kManyOutputs &&
         j.rows * j.pixels <= kBlockPixels;
}
template <int NV>
void run_weight_columns(const WeightJob<T>& j, int64_t q, Asides& asides) {
  using Tile = void (*)(const WeightJob<T>&, int64_t, int64_t, Aside);
  static constexpr auto kTiles = []<int... M>(std::integer_sequence<int, M...>) {
    return std::array<Tile, sizeof...(M)>{&weight_tile<M + 1, NV>...};
  }
  (std::make_integer_sequence<int, max_outputs(NV)>());
  const int64_t tiles = (j.outputs + max_outputs(NV) - 1) / max_outputs(NV);
  const int64_t low = j.outputs / tiles;
  const int64_t short_tiles = tiles - j.outputs % tiles;
  for (int64_t t = 0, o = 0; t < tiles; ++t) {
    const int64_t rows = low + (t >= short_tiles);
    kTiles[static_cast<size_t>(rows - 1)](j, o, q, asides.next(o, q));
    o += rows;
  }
}

template <int NV>
HWY_NOINLINE void run_weight_block(const WeightJob<T>& all, int64_t q, Asides& asides) {
  if constexpr (kDeep == 1) {
    WeightJob<T> j = all;
    constexpr int64_t kStep = NV * kWidth;
    HWY_ALIGN T block[kBlockPixels * kStep];
    T* to = block;
    for (int64_t y = 0; y < j.rows; ++y) {
      const T* x = j.x + y * j.x_row + q;
      for (int64_t p = 0; p < j.pixels; ++p, x += j.x_step, to += kStep) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) store(load(x + v * kWidth), to + v * kWidth);
      }
    }
    j.x = block - q;
    j.x_step = kStep;
    j.x_row = j.pixels * kStep;
    run_weight_columns<NV>(j, q, asides);
  }
}

void run_weight_job(const WeightJob<T>& j) {
  const int64_t vectors = (j.run + kWidth - 1) / kWidth;
  const int64_t blocks = (vectors + kWeightVectors - 1) / kWeightVectors;
  int64_t tiles = 0;
  for (int64_t b = 0, v = 0; b < blocks; ++b) {
    const int64_t count = (vectors - v) / (blocks - b);
    tiles += (j.outputs + max_outputs(static_cast<int>(count)) - 1) / max_outputs(static_cast<int>(count));
    v += count;
  }
  Asides asides(j, tiles);
  const bool block = copies_block(j);
  for (int64_t b = 0, v = 0; b < blocks; ++b) {
    const int64_t count = (vectors - v) / (blocks - b);
    switch (count) {
      case 1: (block ? run_weight_block<1> : run_weight_columns<1>)(j, v * kWidth, asides); break;
      case 2: (block ? run_weight_block<2> : run_weight_columns<2>)(j, v * kWidth, asides); break;
      case 3: (block ? run_weight_block<3> : run_weight_columns<3>)(j, v * kWidth, asides); break;
#if HWY_TARGET <= HWY_AVX3
      case 4: (block ? run_weight_block<4> : run_weight_columns<4>)(j, v * kWidth, asides); break;
#endif
      default: break;
    }
    v += count;
  }
  asides.finish();
}

}  // namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE
TESSERA_TILE_END;
