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

// Memory that is asked for evenly over many steps: what a core can have under way at a time is little, and a burst of misses
// keeps the loads beside it waiting. A step moves on by a part of a line, so most lines are asked for more than once.
class Trickle {
 public:
  const char* p = nullptr;
  int64_t by = 0;    // bytes of a step
  int64_t left = 0;  // steps to the end of the pixel
  Trickle(const Ahead& ahead, int64_t steps) {
    const bool dense = ahead.bytes == ahead.pitch;  // a single long pixel
    const int64_t pixels = dense ? 1 : ahead.pixels, bytes = dense ? ahead.pixels * ahead.bytes : ahead.bytes;
    p = ahead.p;
    left = of_pixel_ = std::max<int64_t>(1, pixels > 0 ? steps / pixels : steps);
    by = (bytes + of_pixel_ - 1) / of_pixel_;
    back_ = pixels > 0 ? ahead.pitch - by * of_pixel_ : 0;
  }
  // From the last step of a pixel to the next.
  void wrap() {
    if (left > 0) return;
    left = of_pixel_;
    p += back_;
  }

 private:
  int64_t of_pixel_, back_;
};

// What the tiles of a weight gradient do for the next job beside their own work: they fetch it, into L2 only, since fetches into L1
// fill its few buffers for misses.
struct Asides;
struct Aside {
  Asides& all;
  const char *x, *d;
  int64_t by_x, by_d;
  HWY_INLINE int64_t steps(int64_t pixels);
  HWY_INLINE void step(const T*, const T*) {
    __builtin_prefetch(x, 0, 2);
    __builtin_prefetch(d, 0, 2);
    x += by_x;
    d += by_d;
  }
  HWY_INLINE void finish();
};
struct Asides {
  Trickle x, d;
  Asides(const WeightJob<T>& job, int64_t tiles)
      : x(job.x_ahead, tiles * job.rows * job.pixels), d(job.d_ahead, tiles * job.rows * job.pixels) {}
  Aside next(int64_t, int64_t) { return {*this, x.p, d.p, x.by, d.by}; }
  void finish() {}
};
// How many steps there are to the end of a pixel.
HWY_INLINE int64_t Aside::steps(int64_t pixels) {
  finish();
  all.x.wrap(), all.d.wrap();
  const int64_t n = std::min(pixels, std::min(all.x.left, all.d.left));
  all.x.left -= n, all.d.left -= n;
  x = all.x.p, d = all.d.p;
  return n;
}
HWY_INLINE void Aside::finish() { all.x.p = x, all.d.p = d; }

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
