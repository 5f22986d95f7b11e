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
