// The matrix tiles of Intel's AMX: eight registers of up to 16 rows of 64 bytes, and one instruction that multiplies two of them.
// Twice: as instructions, and as plain code with the same rules for CPUs without them, so that the kernels are tested everywhere.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "tensor/base/check.h"

namespace tessera::cpu {

// Shapes of the eight tiles, as LDTILECFG reads them.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
  bool operator==(const TileConfig&) const = default;
};
static_assert(sizeof(TileConfig) == 64);

// All functions work on tile numbers that are known when compiling, as the instructions want them.
struct AmxTiles {
  // The compiler's own intrinsic declares 8 of the 64 bytes as input (gcc 12), hence "memory".
  static void configure(const TileConfig& c) { asm volatile("ldtilecfg %0" ::"m"(c) : "memory"); }
  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  static void load(const void* p, int64_t row_step) {  // bytes from row to row
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(row_step), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void store(void* p, int64_t row_step) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(row_step), "i"(kTile) : "memory");
  }
  // f32 sum[m][n] += sum over pairs k of a[m][2k] b[k][2n] + a[m][2k + 1] b[k][2n + 1], a and b of bf16.
  template <int kSum, int kA, int kB>
  static void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
};

struct TwinTiles {
  static void configure(const TileConfig& c) {
    state() = {};
    state().config = c;
  }
  template <int kTile>
  static void zero() {
    std::memset(state().tile[kTile], 0, sizeof state().tile[kTile]);
  }
  template <int kTile>
  static void load(const void* p, int64_t row_step) {
    zero<kTile>();
    for (int r = 0; r < state().config.rows[kTile]; ++r) {
      std::memcpy(state().tile[kTile][r], static_cast<const char*>(p) + r * row_step, state().config.row_bytes[kTile]);
    }
  }
  template <int kTile>
  static void store(void* p, int64_t row_step) {
    for (int r = 0; r < state().config.rows[kTile]; ++r) {
      std::memcpy(static_cast<char*>(p) + r * row_step, state().tile[kTile][r], state().config.row_bytes[kTile]);
    }
  }
  template <int kSum, int kA, int kB>
  static void multiply_add() {
    State& s = state();
    const TileConfig& c = s.config;
    const int m = c.rows[kSum], n = c.row_bytes[kSum] / 4, pairs = c.row_bytes[kA] / 4;
    // Otherwise the instruction is an invalid one.
    TESSERA_CHECK(c.rows[kA] == m && c.rows[kB] == pairs && c.row_bytes[kB] == c.row_bytes[kSum],
                  "tiles: {} x {} bytes times {} x {} bytes into {} x {} bytes", c.rows[kA], c.row_bytes[kA], c.rows[kB],
                  c.row_bytes[kB], m, c.row_bytes[kSum]);
    for (int i = 0; i < m; ++i) {
      for (int k = 0; k < pairs; ++k) {
        for (int j = 0; j < n; ++j) {
          float sum;
          std::memcpy(&sum, s.tile[kSum][i] + 4 * j, 4);
          sum += value(kA, i, 2 * k) * value(kB, k, 2 * j) + value(kA, i, 2 * k + 1) * value(kB, k, 2 * j + 1);
          std::memcpy(s.tile[kSum][i] + 4 * j, &sum, 4);
        }
      }
    }
  }

 private:
  struct State {
    TileConfig config;
    char tile[8][16][64] = {};
  };
  static State& state() {
    thread_local State s;
    return s;
  }
  static float value(int tile, int row, int column) {
    uint16_t bits;
    std::memcpy(&bits, state().tile[tile][row] + 2 * column, 2);
    return std::bit_cast<float>(uint32_t(bits) << 16);
  }
};

}  // namespace tessera::cpu
