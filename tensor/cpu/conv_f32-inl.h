// The arithmetic of the f32 tiles, for conv_tile-inl.h. No include guard: once per target, after highway.h.
#include "tensor/cpu/conv_tile.h"
#include "tensor/cpu/vec_math-inl.h"

#define TESSERA_TILE f32_tile
#define TESSERA_TILE_BEGIN HWY_BEFORE_NAMESPACE()
#define TESSERA_TILE_END HWY_AFTER_NAMESPACE()

TESSERA_TILE_BEGIN;
namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE {

using T = float;
using Factors = V;  // of a vector of sums

HWY_INLINE Factors aligned_factors(const T* p) { return hn::Load(F32(), p); }
HWY_INLINE Factors factors(const T* p) { return hn::LoadU(F32(), p); }
HWY_INLINE Factors broadcast(const T* p) { return hn::Set(F32(), *p); }
HWY_INLINE V multiply_add(Factors a, Factors b, V sum) { return hn::MulAdd(a, b, sum); }

// What a tile of the weight gradient does for the next job beside its own work: fetches a line of either image for every pixel.
struct Aside {
  int64_t x, d;
  HWY_INLINE int64_t steps(int64_t pixels) const { return pixels; }
  // Into L2 only: fetches into L1 fill its few buffers for misses, and the loads beside them wait.
  HWY_INLINE void step(const T* x_now, const T* d_now) const {
    __builtin_prefetch(x_now + x, 0, 2);
    __builtin_prefetch(d_now + d, 0, 2);
  }
  HWY_INLINE void finish() const {}
};
// Deals them out to the tiles of a job. A tile that has no line to fetch fetches what is there already.
class Asides {
 public:
  Asides(const WeightJob<T>& job, int64_t tiles)
      : job_(job), x_{job.x_ahead_lines, tiles, 0}, d_{job.d_ahead_lines, tiles, tiles / 2} {}
  Aside next(int64_t o, int64_t q) {
    const int64_t x = x_.next(), d = d_.next();
    return {x < 0 ? 0 : job_.x_ahead + x * kLine<T> - q, d < 0 ? 0 : job_.d_ahead + d * kLine<T> - o};
  }
  void finish() {}

 private:
  const WeightJob<T>& job_;
  Spread x_, d_;
};

HWY_INLINE void store_first(V v, T* p, int64_t count) {
  if (count >= int64_t(kLanes)) {
    store(v, p);
  } else {
    store(first(static_cast<size_t>(count)), v, p);
  }
}
HWY_INLINE V load_first(const T* p, int64_t count) {
  return count >= int64_t(kLanes) ? load(p) : load(first(static_cast<size_t>(count)), p);
}

}  // namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE
TESSERA_TILE_END;
